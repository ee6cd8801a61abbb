"""What a step names beside a token: the category of the item, of the catalogue's own categories or of K-means clusters.

REG4Rec (arXiv 2508.15308) is read to name a category a step; where they come from is not public. Ours: a shop's
categories where nearly every item has one, else clusters of the items' codewords. Each category has a centre among the
codewords either way, so an item without a known name, an appended one say, is in the category whose centre is nearest.

Axes: `item` catalogue rows, `slot` codebooks, `code` entries of one, `dim` of a codeword, `category`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.assign import nearest_codes
from sidrec.quantization.kmeans import kmeans
from sidrec.systems.reg4rec.config import CategorySource

# What `auto` asks of a catalogue's own categories.
MIN_SHARE, MIN_NAMES = 0.9, 8
_SEPARATOR = "; "


@dataclass(frozen=True, eq=False)
class Categories:
    """The categories that a model knows, in the order of its head.

    `names` are beginnings of category paths; clusters have none.
    """

    names: tuple[str, ...]
    centres: Float[Tensor, "category width"]

    def of(self, paths: Sequence[str | None], vectors: Float[Tensor, "item width"]) -> Int[Tensor, " item"]:
        """Return each item's category: by the longest known beginning of its path, else by the nearest centre."""
        nearest = nearest_codes(vectors, self.centres)
        known = _by_name(self.names, paths)
        return torch.where(known >= 0, known, nearest)


@dataclass(frozen=True, eq=False)
class ItemCategories:
    """What a fitted model remembers of its catalogue's categories."""

    names: tuple[str, ...]
    of_item: Int[Tensor, " item"]  # -1: appended since, and of no known name

    def appended(self, paths: Sequence[str | None]) -> "ItemCategories":
        """Return the categories of a catalogue with these items behind the published ones."""
        return ItemCategories(self.names, torch.cat([self.of_item, _by_name(self.names, paths)]))


def fit_categories(
    source: CategorySource,
    paths: Sequence[str | None],
    vectors: Float[Tensor, "item width"],
    num_categories: int,
    *,
    seed: int,
) -> Categories:
    """Return at most `num_categories` categories of a catalogue.

    Args:
        paths: each item's categories from coarse to fine, joined by "; ".

    Raises:
        UsageError: the catalogue's own are asked for, and it has none.
    """
    names = () if source == "clusters" else path_names(paths, num_categories)
    if source == "metadata" and not names:
        raise UsageError(
            f"model.categories is metadata, and none of the {len(paths)} items has a category",
            next_step="map the items file's categories (data.item_columns), or set model.categories to auto",
        )
    if source == "auto" and not _suffice(names, paths):
        names = ()
    if not names:
        return Categories((), kmeans(vectors, min(num_categories, len(vectors)), seed=seed).centres)
    own = _by_name(names, paths)
    return Categories(names, torch.stack([vectors[own == category].mean(dim=0) for category in range(len(names))]))


def path_names(paths: Sequence[str | None], limit: int) -> tuple[str, ...]:
    """Return the names of the finest cut of all paths that has at most `limit`, sorted.

    Where even the first level has more, the most frequent of it.
    """
    split = [parts for parts in map(_parts, paths) if parts]
    for depth in range(max(map(len, split), default=0), 0, -1):
        names = {_SEPARATOR.join(parts[:depth]) for parts in split}
        if len(names) <= limit:
            return tuple(sorted(names))
    by_count = sorted(Counter(parts[0] for parts in split).items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(sorted(name for name, _ in by_count[:limit]))


def item_vectors(
    codes: Int[Tensor, "item slot"], codebooks: Float[Tensor, "slot code dim"]
) -> Float[Tensor, "item width"]:
    """Return each item's codewords side by side."""
    return codebooks[torch.arange(codes.shape[1]), codes].flatten(1)


def _suffice(names: Sequence[str], paths: Sequence[str | None]) -> bool:
    named = int((_by_name(names, paths) >= 0).sum())
    return len(names) >= MIN_NAMES and named >= MIN_SHARE * len(paths)


def _by_name(names: Sequence[str], paths: Sequence[str | None]) -> Int[Tensor, " item"]:
    """Return the place among `names` of the longest beginning of each path that is one, -1 where none is."""
    number = {name: place for place, name in enumerate(names)}
    found = [next((number[name] for name in _beginnings(path) if name in number), -1) for path in paths]
    return torch.tensor(found, dtype=torch.int64)


def _beginnings(path: str | None) -> Iterator[str]:
    """Yield the whole path, then ever shorter beginnings of it."""
    parts = _parts(path)
    for depth in range(len(parts), 0, -1):
        yield _SEPARATOR.join(parts[:depth])


def _parts(path: str | None) -> list[str]:
    return [part.strip() for part in (path or "").split(";") if part.strip()]
