"""New items get semantic IDs of their own; no published one moves and no codeword changes."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sidrec.codebook.artefact import Artefact, Codebook
from sidrec.codebook.items import MergedItems, traffic_of
from sidrec.data.catalog import Catalog, widened
from sidrec.quantization.collisions import resolve


@dataclass(frozen=True, eq=False)
class Appended:
    """The next catalogue, and how well the codewords fit the items that they were not fitted on."""

    codebook: Codebook
    catalog: Catalog
    quantized: NDArray[np.int32]  # [item, level], codes by plain distance; a published item's own
    fitted_errors: NDArray[np.float32]  # published items by content alone, as a share of their latent's length
    new_errors: NDArray[np.float32]


def append(parent: Artefact, merged: MergedItems, vectors: NDArray[np.float32]) -> Appended:
    """Return the catalogue in which published items keep everything and new ones have the nearest free semantic ID.

    A new item is not in the graph that smoothed the fitted ones, so it is quantized by its content alone; to be
    comparable, so are the published ones whose errors are returned. No extra code is added: the model of the parent
    has no embeddings for one.

    Args:
        vectors: content vectors [row of the new items table, width] of the parent's frozen embedder.

    Raises:
        CheckFailedError: no free semantic ID is left for a new item.
    """
    quantizer, catalog = parent.codebook.quantizer, parent.catalog
    sold_before = merged.source[: merged.published]
    new_rows = merged.source[merged.published :]
    fitted = quantizer.latent(torch.from_numpy(vectors[sold_before[sold_before >= 0]]))
    latent = quantizer.latent(torch.from_numpy(vectors[new_rows]))
    quantized = quantizer.quantize(latent).codes
    fitted_codes = quantizer.quantize(fitted).codes

    codes = catalog.codes
    if len(new_rows):
        rank = np.rint(traffic_of(merged.table)[merged.new] * 1e9).astype(np.int64)
        plain = quantized.numpy().astype(np.int32)
        resolved = resolve(quantizer, latent, plain, rank, parent.codebook.config, taken=catalog.codes)
        codes = np.concatenate([codes, widened(resolved.codes, catalog.num_codes)])
    return Appended(
        codebook=replace(parent.codebook, appended=parent.codebook.appended + len(new_rows)),
        catalog=Catalog.build(merged.table, codes),
        quantized=np.concatenate([catalog.codes[:, : quantizer.num_levels], quantized.numpy().astype(np.int32)]),
        fitted_errors=quantizer.relative_errors(fitted, fitted_codes).numpy(),
        new_errors=quantizer.relative_errors(latent, quantized).numpy(),
    )
