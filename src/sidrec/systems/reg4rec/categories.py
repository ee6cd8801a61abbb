"""What a step names beside a token: the category of the item, here a K-means cluster of its codewords.

REG4Rec (arXiv 2508.15308) is read to name a category a step; where they come from is not public. Clusters of what the
codebook keeps of an item's vector are our choice: every catalogue has them, and an appended item has one at once.

Axes: `item` catalogue rows, `slot` codebooks, `code` entries of one, `dim` of a codeword, `category`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.quantization.assign import nearest_codes
from sidrec.quantization.kmeans import kmeans


def item_vectors(
    codes: Int[Tensor, "item slot"], codebooks: Float[Tensor, "slot code dim"]
) -> Float[Tensor, "item width"]:
    """Return each item's codewords side by side."""
    return codebooks[torch.arange(codes.shape[1]), codes].flatten(1)


def category_centres(
    vectors: Float[Tensor, "item width"], num_categories: int, *, seed: int
) -> Float[Tensor, "category width"]:
    """Return the centres of the categories; fewer where there are fewer items."""
    return kmeans(vectors, min(num_categories, len(vectors)), seed=seed).centres


def categories_of(
    vectors: Float[Tensor, "item width"], centres: Float[Tensor, "category width"]
) -> Int[Tensor, " item"]:
    """Return the nearest category of each item."""
    return nearest_codes(vectors, centres)
