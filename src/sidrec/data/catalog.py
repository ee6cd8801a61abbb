"""Every item has exactly one semantic ID and every semantic ID one item.

Axes: `item` rows in item-index order, `level` codes of a semantic ID, coarsest first. Where the first codes
alone do not tell two items apart, the last column is a disambiguation code; it is -1 (`PAD`) for the items that
need none. No semantic ID is the beginning of another one, so a decoder never chooses between stopping and going on.

An item that is no longer sold stays as a tombstone (`removed_on`): histories still hold it, no other item is ever given
its semantic ID, and no answer offers it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec.errors import BundleError, UsageError

PAD = -1

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "codes": pl.List(pl.Int32),
    "popularity": pl.Int64,
    "recent_popularity": pl.Int64,
    "first_sold": pl.Date,
    "removed_on": pl.Date,
    "categories": pl.String,
}
# Columns that a catalogue may lack: every item of one without tombstones is sold, and items need no categories.
_OPTIONAL = frozenset({"removed_on", "categories"})


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items and their semantic IDs, one to one; the row number is the item index.

    Raises:
        BundleError: two items share a semantic ID, or one is the beginning of another.
    """

    item_ids: list[str]
    titles: list[str]
    codes: NDArray[np.int32]  # [item, level]
    popularity: NDArray[np.int64]  # [item]
    recent_popularity: NDArray[np.int64]  # [item]
    first_sold: list[date | None]
    removed_on: list[date | None] = field(default_factory=list)  # empty: none is
    categories: list[str | None] = field(default_factory=list)  # coarse to fine, joined by "; "; empty: none has any
    index_of: dict[str, int] = field(init=False, repr=False)
    _item_of: dict[tuple[int, ...], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.removed_on:
            object.__setattr__(self, "removed_on", [None] * len(self.item_ids))
        if not self.categories:
            object.__setattr__(self, "categories", [None] * len(self.item_ids))
        lengths = {
            "item_ids": len(self.item_ids),
            "titles": len(self.titles),
            "codes": len(self.codes),
            "popularity": len(self.popularity),
            "recent_popularity": len(self.recent_popularity),
            "first_sold": len(self.first_sold),
            "removed_on": len(self.removed_on),
            "categories": len(self.categories),
        }
        if len(set(lengths.values())) != 1:
            raise BundleError(f"the columns of a catalogue differ in length: {lengths}")
        index_of = {item_id: index for index, item_id in enumerate(self.item_ids)}
        if len(index_of) != len(self.item_ids):
            raise BundleError(f"an item stands twice in the catalogue: {_first_repeated(self.item_ids)!r}")
        object.__setattr__(self, "index_of", index_of)
        object.__setattr__(self, "_item_of", _decoding_table(self.codes, self.item_ids))

    @classmethod
    def build(
        cls,
        items: pl.DataFrame,
        codes: NDArray[np.int32],
    ) -> Self:
        """Return the catalogue of an `items` table (its row order is the item index) and its codes.

        Columns that a table lacks read as: no title, popularity 0, first sale unknown, not removed, no categories.
        """
        rows = len(items)

        def counts(name: str) -> NDArray[np.int64]:
            if name not in items.columns:
                return np.zeros(rows, dtype=np.int64)
            return items[name].fill_null(0).cast(pl.Int64).to_numpy().astype(np.int64)

        return cls(
            item_ids=items["item_id"].to_list(),
            titles=items["title"].fill_null("").to_list() if "title" in items.columns else [""] * rows,
            codes=np.ascontiguousarray(codes, dtype=np.int32),
            popularity=counts("popularity"),
            recent_popularity=counts("recent_popularity"),
            first_sold=items["first_sold"].to_list() if "first_sold" in items.columns else [None] * rows,
            removed_on=items["removed_on"].to_list() if "removed_on" in items.columns else [None] * rows,
            categories=items["categories"].to_list() if "categories" in items.columns else [None] * rows,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the catalogue in a Parquet file.

        Raises:
            BundleError: no such file, a column is missing or the codes do not tell the items apart.
        """
        try:
            table = pl.read_parquet(path)
        except (FileNotFoundError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"the catalogue cannot be read: {error}", evidence=path) from error
        missing = [name for name in SCHEMA if name not in table.columns and name not in _OPTIONAL]
        if missing:
            raise BundleError(f"the catalogue has no column {', '.join(missing)}", evidence=path)
        widths = table["codes"].list.len().unique().to_list()
        if len(widths) > 1:
            raise BundleError(f"semantic IDs of one catalogue differ in length: {sorted(widths)}", evidence=path)
        flat = table["codes"].explode().to_numpy() if widths else np.zeros(0)
        codes = flat.astype(np.int32).reshape(len(table), widths[0] if widths else 0)
        return cls.build(table, codes)

    def write(self, path: Path) -> None:
        """Write the catalogue as Parquet; `read` returns an equal one."""
        self.table().write_parquet(path, compression="zstd")

    def table(self) -> pl.DataFrame:
        """Return the catalogue as a table, one row an item, columns as in `SCHEMA`."""
        return pl.DataFrame(
            {
                "item_id": self.item_ids,
                "title": self.titles,
                "codes": self.codes.tolist(),
                "popularity": self.popularity,
                "recent_popularity": self.recent_popularity,
                "first_sold": self.first_sold,
                "removed_on": self.removed_on,
                "categories": self.categories,
            },
            schema=SCHEMA,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def num_codes(self) -> int:
        """Codes in a semantic ID, the disambiguation code included."""
        return int(self.codes.shape[1])

    @property
    def removed(self) -> NDArray[np.bool_]:
        """Which items [item] are tombstones."""
        return np.array([day is not None for day in self.removed_on], dtype=np.bool_)

    def title(self, index: int) -> str:
        """Return an item's title, its id where it has none."""
        return self.titles[index] or self.item_ids[index]

    def encode(self, item_id: str) -> tuple[int, ...]:
        """Return the item's semantic ID (`PAD` where it has no disambiguation code).

        Raises:
            UsageError: the catalogue does not have this item.
        """
        index = self.index_of.get(item_id)
        if index is None:
            raise UsageError(f"item {item_id!r} is not among the catalogue's {len(self)} items")
        return tuple(self.codes[index].tolist())

    def decode(self, codes: Sequence[int]) -> str:
        """Return the item of a semantic ID; a trailing `PAD` may be left out.

        Raises:
            UsageError: no item has this semantic ID.
        """
        return self.item_ids[self.decode_index(codes)]

    def decode_index(self, codes: Sequence[int]) -> int:
        """Return the item index of a semantic ID; a trailing `PAD` may be left out.

        Raises:
            UsageError: no item has this semantic ID.
        """
        index = self._item_of.get(_without_pad(codes))
        if index is None:
            raise UsageError(f"no item has the semantic ID {tuple(int(code) for code in codes)}")
        return index

    def known(self, item_ids: Iterable[str]) -> list[int]:
        """Return the indices of those items that the catalogue has, in the order given."""
        index_of = self.index_of
        return [index_of[item_id] for item_id in item_ids if item_id in index_of]


def disambiguate(codes: NDArray[np.int32], rank: NDArray[np.int64] | None = None) -> NDArray[np.int32]:
    """Return codes that tell all items apart: the same ones, or with one more column where some collide.

    Items that share all codes are numbered 0, 1, … in the added column, by falling `rank` (then by index);
    all other items have `PAD` there.

    Args:
        codes: [item, level], no `PAD` in it.
        rank: [item], usually popularity; None numbers by index.
    """
    num_items = len(codes)
    order = np.argsort(-rank, kind="stable") if rank is not None else np.arange(num_items)
    extra = np.full(num_items, PAD, dtype=np.int32)
    sharing: dict[tuple[int, ...], list[int]] = {}
    for index in order.tolist():
        sharing.setdefault(tuple(codes[index].tolist()), []).append(index)
    for group in sharing.values():
        if len(group) > 1:
            extra[group] = np.arange(len(group), dtype=np.int32)
    if (extra == PAD).all():
        return codes
    return np.concatenate([codes, extra[:, None]], axis=1)


def widened(codes: NDArray[np.int32], width: int) -> NDArray[np.int32]:
    """Return codes with `width` columns, `PAD` in those added."""
    missing = max(0, width - codes.shape[1])
    return np.pad(codes, ((0, 0), (0, missing)), constant_values=PAD)


def _decoding_table(codes: NDArray[np.int32], item_ids: Sequence[str]) -> dict[tuple[int, ...], int]:
    if codes.ndim != 2 or codes.shape[1] < 1:
        raise BundleError(f"codes have shape {codes.shape}, expected [item, level] with at least one level")
    if (codes[:, :-1] < 0).any() or (codes[:, -1] < PAD).any() or (codes.shape[1] == 1 and (codes < 0).any()):
        raise BundleError("a semantic ID has a negative code before its last one; only the last may be -1")
    table: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(codes.tolist()):
        sid = _without_pad(row)
        other = table.setdefault(sid, index)
        if other != index:
            raise BundleError(
                f"items {item_ids[other]!r} and {item_ids[index]!r} share the semantic ID {sid}",
                next_step="build the catalogue from disambiguated codes (sidrec.data.catalog.disambiguate)",
            )
    for sid, index in table.items():
        if len(sid) == codes.shape[1] and sid[:-1] in table:
            other = table[sid[:-1]]
            raise BundleError(
                f"the semantic ID {sid[:-1]} of item {item_ids[other]!r} is the beginning of {sid} "
                f"of item {item_ids[index]!r}",
                next_step="build the catalogue from disambiguated codes (sidrec.data.catalog.disambiguate)",
            )
    return table


def _without_pad(codes: Sequence[int]) -> tuple[int, ...]:
    sid = tuple(int(code) for code in codes)
    return sid[:-1] if sid and sid[-1] == PAD else sid


def _first_repeated(values: Sequence[str]) -> str:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    raise AssertionError("no value repeats")
