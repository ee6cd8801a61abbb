"""Item vectors smoothed over the graph of items that are bought together.

Axes: `item` rows in item-index order, `width` of an item vector, `window` sets of items that co-occur.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
import scipy.sparse
from numpy.typing import NDArray

from sidrec.data.unit import unit_rows

# Items whose co-occurrences are counted at a time; bounds memory at block × items.
_BLOCK = 2048


def item_graph(
    baskets: pl.DataFrame,
    item_ids: Sequence[str],
    *,
    windows: Literal["baskets", "events"],
    window: int,
    max_neighbours: int,
) -> scipy.sparse.csr_array:
    """Return the normalised co-occurrence graph [item, item] of these baskets.

    Args:
        baskets: of the fit period only; user_id, day, item_ids.
        windows: what co-occurs: items of one basket, or events near each other in a history.
        window: events per window, for `events`.
        max_neighbours: strongest edges kept per item.
    """
    index_of = {item_id: index for index, item_id in enumerate(item_ids)}
    by_basket = windows == "baskets"
    incidence = basket_windows(baskets, index_of) if by_basket else event_windows(baskets, index_of, window)
    return cooccurrence_graph(incidence, max_neighbours)


def basket_windows(baskets: pl.DataFrame, index_of: dict[str, int]) -> scipy.sparse.csr_array:
    """Return the incidence [window, item] of baskets, one window a basket."""
    flat = _known_events(baskets, index_of)
    windows = flat["basket"].to_numpy()
    return _incidence(windows, flat["item"].to_numpy(), len(baskets), len(index_of))


def event_windows(baskets: pl.DataFrame, index_of: dict[str, int], window: int) -> scipy.sparse.csr_array:
    """Return the incidence [window, item] of each user's events and the `window // 2` on both sides of them.

    Source: S²GR slides a fixed-length window over histories; one window a centre event is our choice.
    """
    flat = _known_events(baskets.sort("user_id", "day"), index_of)
    users = flat["user_id"].rank("dense").to_numpy()
    items = flat["item"].to_numpy()
    centres = np.arange(len(items))
    pairs = [(centres, items)]
    for offset in range(1, window // 2 + 1):
        together = users[offset:] == users[:-offset]
        pairs.append((centres[:-offset][together], items[offset:][together]))
        pairs.append((centres[offset:][together], items[:-offset][together]))
    rows, columns = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return _incidence(rows, columns, len(items), len(index_of))


def cooccurrence_graph(incidence: scipy.sparse.csr_array, max_neighbours: int) -> scipy.sparse.csr_array:
    """Return Â = D^-½ A D^-½ [item, item], A counting the windows that two different items share.

    Only edges among the strongest `max_neighbours` of one of their ends are kept. Strength is the count over the
    root of both items' window counts, not the count alone: by count everybody's neighbours are the best sellers.
    An item without neighbours has an empty row.

    Source: S²GR's co-occurrence graph; the cap is our choice, for memory.
    """
    num_items = incidence.shape[1]
    transposed = incidence.T.tocsr()
    sizes = np.maximum(np.asarray(incidence.sum(axis=0)), 1.0)
    blocks = []
    for start in range(0, num_items, _BLOCK):
        counts = (transposed[start : start + _BLOCK] @ incidence).tocsr()
        blocks.append(_strongest(counts, start, sizes, max_neighbours))
    kept = scipy.sparse.vstack(blocks, format="csr") if blocks else scipy.sparse.csr_array((0, 0))
    adjacency = kept.maximum(kept.T).tocsr()
    degrees = np.asarray(adjacency.sum(axis=1))
    scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    graph = adjacency.tocoo()
    values = graph.data * scale[graph.row] * scale[graph.col]
    return scipy.sparse.csr_array((values, (graph.row, graph.col)), shape=graph.shape)


def smoothing_weights(alpha: float, steps: int) -> NDArray[np.float64]:
    """Return β_k ∝ α(1-α)^k for k = 0..steps, summing to 1."""
    weights = alpha * (1 - alpha) ** np.arange(steps + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def smooth(
    vectors: NDArray[np.float32], graph: scipy.sparse.csr_array, *, alpha: float, steps: int
) -> NDArray[np.float32]:
    """Return H_align [item, width]: unit rows, each mixed with its neighbours' by personalised PageRank.

    Rows are brought to unit length before and after; so items without neighbours, which the sum only shortens, keep
    their own vector and are not quantized as a group of short ones.

    Source: S²GR, H(k) = (1-α) Â H(k-1) + α X, H_align = Σ β_k H(k).
    """
    content = unit_rows(vectors.astype(np.float64))
    state = content
    aligned = np.zeros_like(content)
    for step, weight in enumerate(smoothing_weights(alpha, steps)):
        if step > 0:
            state = (1 - alpha) * (graph @ state) + alpha * content
        aligned += weight * state
    return unit_rows(aligned).astype(np.float32)


def _known_events(baskets: pl.DataFrame, index_of: dict[str, int]) -> pl.DataFrame:
    """Return one row an event of a known item: its basket's row number, user and item index, in order."""
    items = pl.DataFrame({"item_id": list(index_of), "item": list(index_of.values())}, schema_overrides=_ITEM_TYPES)
    return (
        baskets.select("user_id", pl.col("item_ids").alias("item_id"))
        .with_row_index("basket")
        .explode("item_id")
        .join(items, on="item_id", how="inner", maintain_order="left")
    )


_ITEM_TYPES = {"item_id": pl.String, "item": pl.Int64}


def _incidence(
    windows: Sequence[int] | NDArray[np.integer], items: NDArray[np.integer], num_windows: int, num_items: int
) -> scipy.sparse.csr_array:
    ones = np.ones(len(items), dtype=np.float64)
    incidence = scipy.sparse.csr_array((ones, (windows, items)), shape=(num_windows, num_items))
    # An item counts once a window, however often it occurs there.
    incidence.data[:] = 1.0
    return incidence


def _strongest(
    counts: scipy.sparse.csr_array, start: int, sizes: NDArray[np.float64], max_neighbours: int
) -> scipy.sparse.csr_array:
    """Return the counts of each row's strongest edges, equal ones by item index, the diagonal left out."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    different = counts.indices != rows + start
    rows, columns, values = rows[different], counts.indices[different], counts.data[different]
    strength = values / np.sqrt(sizes[rows + start] * sizes[columns])
    order = np.lexsort((columns, -strength, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.searchsorted(rows, np.arange(counts.shape[0]))
    near = np.arange(len(rows)) - first[rows] < max_neighbours
    return scipy.sparse.csr_array((values[near], (rows[near], columns[near])), shape=counts.shape)
