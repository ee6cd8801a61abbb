"""Clusters of each level's codewords: what a thinking token is supervised by.

Axes: `item` rows, `level` coarsest first, `code` entries of a codebook, `cluster` of codewords, `dim` width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.quantization.assign import nearest_codes
from sidrec.quantization.kmeans import kmeans
from sidrec.systems.s2gr.config import S2GRCodebookConfig


@dataclass(frozen=True, slots=True)
class Clusters:
    """The cluster g_l of every code and the cluster centres c_l,k."""

    of: Int[Tensor, "level code"]
    centres: Float[Tensor, "level cluster dim"]


def cluster_codewords(
    codewords: Float[Tensor, "level code dim"],
    codes: NDArray[np.int32],
    config: S2GRCodebookConfig,
    *,
    seed: int,
) -> Clusters:
    """Return the clusters of the codewords, by K-means within each level.

    Codes that no item has take no part in placing the centres; they belong to the nearest one.

    Source: S²GR, cluster supervision tables g_l and c_{l,k}.

    Args:
        codes: [item, level], the items' codes; further columns are not of the codebook.
    """
    cluster_of, centres = [], []
    for level, words in enumerate(codewords):
        used = words[np.unique(codes[:, level])]
        clusters = kmeans(
            used,
            config.num_clusters,
            seed=seed + level,
            iterations=config.kmeans_iterations,
            restarts=config.cluster_restarts,
        )
        centre, of = clusters.centres, nearest_codes(words, clusters.centres)
        if config.random_clusters:
            of = of[torch.randperm(len(of), generator=torch.Generator().manual_seed(seed + level))]
            centre = _means(words, of, len(centre))
        centres.append(centre)
        cluster_of.append(of)
    return Clusters(torch.stack(cluster_of), torch.stack(centres))


def _means(
    words: Float[Tensor, "code dim"], of: Int[Tensor, " code"], num_clusters: int
) -> Float[Tensor, "cluster dim"]:
    """Return the mean codeword of each cluster; sizes are those of the real clusters, only their members differ."""
    sums = torch.zeros(num_clusters, words.shape[1]).index_add_(0, of, words)
    return sums / of.bincount(minlength=num_clusters).clamp(min=1)[:, None]
