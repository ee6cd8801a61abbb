"""`next_basket_v1`: one row per user, the first basket of the gate window, everything before it as history.

A basket is the set of items that a user bought on one day. Baskets lie sorted by (user, day), so the history of a row
is a contiguous range of baskets. Items are indices into the catalogue (`items` row order); -1 is an item outside it,
which stays in a target set as a miss.

Axes: `item` catalogue, `basket` all baskets before `as_of`, `event` their items, `row` evaluated users.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from sidrec.errors import CheckFailedError

RECENT_DAYS = 28

Ints = NDArray[np.int64]
TargetKind = Literal["all", "novel"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The target sets of the rows of one kind, as pairs."""

    rows: Ints
    """Row numbers (into the protocol's rows) that have a target of this kind, ascending."""
    pair_row: Ints
    """Position in `rows` of each target."""
    pair_item: Ints
    sizes: Ints
    """Targets of each of `rows`, those outside the catalogue included."""


@dataclass(frozen=True, slots=True)
class NextBasket:
    """Baskets, the catalogue as of the gate's start, and the rows to judge."""

    item_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    basket_user: Ints
    basket_day: Ints
    """Days since 1970-01-01."""
    basket_time: Ints
    offsets: Ints
    """`[basket + 1]`: basket b holds `events[offsets[b] : offsets[b + 1]]`."""
    events: Ints
    popularity: Ints
    """Fit baskets with the item; also breaks ties."""
    recent_popularity: Ints
    """The same over the last 28 days before the gate."""
    gate_day: int
    """First day that no fit basket may lie on."""
    fit: NDArray[np.bool_]
    """`[basket]`: whether a model may learn from it; a user's fit baskets are their oldest."""
    row_basket: Ints
    """The target basket of each row."""
    row_first: Ints
    """The oldest basket that the row may look at; `row_first .. row_basket` is its history."""
    cold_users: int
    """Users with a target but nothing before it: counted, not scored."""

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.item_ids)

    @property
    def num_rows(self) -> int:
        """Targets to judge: one a user, or several where the protocol says so."""
        return len(self.row_basket)

    @property
    def fit_baskets(self) -> Ints:
        """Baskets that a floor may learn from."""
        return np.flatnonzero(self.fit)

    def incidence(self, baskets: Ints) -> sparse.csr_matrix:
        """Return `[basket, item]`, 1 where the basket holds the item."""
        sizes = np.diff(self.offsets)[baskets]
        column = self.events[_ranges(self.offsets[baskets], sizes)]
        row = np.repeat(np.arange(len(baskets)), sizes)
        known = column >= 0
        shape = (len(baskets), self.num_items)
        return sparse.csr_matrix((np.ones(int(known.sum())), (row[known], column[known])), shape=shape)

    def history(self, *, half_life: float | None = None) -> sparse.csr_matrix:
        """Return `[row, item]`: the number of history baskets with the item.

        Args:
            half_life: days after which a basket counts half; None counts every basket as 1.
        """
        sizes = self.row_basket - self.row_first
        basket = _ranges(self.row_first, sizes)
        row = np.repeat(np.arange(self.num_rows), sizes)
        weight = np.ones(len(basket))
        if half_life is not None:
            weight = 0.5 ** ((self.basket_day[self.row_basket[row]] - self.basket_day[basket]) / half_life)
        chosen = sparse.csr_matrix((weight, (row, np.arange(len(basket)))), shape=(self.num_rows, len(basket)))
        return (chosen @ self.incidence(basket)).tocsr()

    def last_basket(self) -> sparse.csr_matrix:
        """Return `[row, item]`, 1 for the items of the newest history basket."""
        return self.incidence(self.row_basket - 1)

    def targets(self, kind: TargetKind) -> Targets:
        """Return the target sets: all items of the row's basket, or those that its history does not hold."""
        sizes = np.diff(self.offsets)[self.row_basket]
        item = self.events[_ranges(self.offsets[self.row_basket], sizes)]
        row = np.repeat(np.arange(self.num_rows), sizes)
        if kind == "novel":
            seen = self.history()
            bought = np.asarray(seen[row, np.maximum(item, 0)]).ravel() > 0
            keep = (item < 0) | ~bought
            row, item = row[keep], item[keep]
        rows, position, counts = np.unique(row, return_inverse=True, return_counts=True)
        return Targets(rows=rows, pair_row=position, pair_item=item, sizes=counts)


def next_basket_v1(baskets: pl.DataFrame, items: pl.DataFrame, *, gate_start: date, as_of: date) -> NextBasket:
    """Return the rows of the gate window [gate_start, as_of) with everything that floors may learn from.

    Args:
        baskets: one row per (user_id, day), with `time` and `item_ids`.
        items: the catalogue; its row order is the item index.

    Raises:
        CheckFailedError: a basket lies on or after `as_of`, or the window has no user with an earlier basket.
    """
    late = baskets.filter(pl.col("day") >= as_of)
    if late.height:
        raise CheckFailedError(
            f"{late.height} baskets lie on or after as_of {as_of} (first: {min(late['day'].to_list())}); "
            "nothing from then on may reach a metric",
            next_step="build_sequences must cut its baskets at as_of",
        )
    baskets = baskets.sort("user_id", "day")
    index = {item_id: number for number, item_id in enumerate(items["item_id"].to_list())}
    exploded = baskets["item_ids"].explode()
    events = exploded.replace_strict(index, default=-1, return_dtype=pl.Int64).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(baskets["item_ids"].list.len().to_numpy())]).astype(np.int64)
    user_ids, user = np.unique(baskets["user_id"].to_numpy().astype(str), return_inverse=True)
    day = baskets["day"].cast(pl.Int32).to_numpy().astype(np.int64)
    gate_day = (gate_start - date(1970, 1, 1)).days

    first = np.searchsorted(user, np.arange(len(user_ids)))
    inside = np.flatnonzero(day >= gate_day)
    window_users, position = np.unique(user[inside], return_index=True)
    warm = day[first[window_users]] < gate_day
    if not warm.any():
        raise CheckFailedError(
            f"no user with a basket in [{gate_start}, {as_of}) has an earlier one ({len(window_users)} users seen)",
            next_step="check as_of and gate_days against the days of the data",
        )
    since = np.repeat(day, np.diff(offsets))
    learnt = (since < gate_day) & (events >= 0)
    recent_day = gate_day - timedelta(days=RECENT_DAYS).days
    return NextBasket(
        item_ids=tuple(index),
        user_ids=tuple(str(value) for value in user_ids),
        basket_user=user.astype(np.int64),
        basket_day=day,
        basket_time=baskets["time"].to_numpy().astype(np.int64),
        offsets=offsets,
        events=events,
        popularity=np.bincount(events[learnt], minlength=len(index)),
        recent_popularity=np.bincount(events[learnt & (since >= recent_day)], minlength=len(index)),
        gate_day=gate_day,
        fit=day < gate_day,
        row_basket=inside[position[warm]],
        row_first=first[window_users[warm]].astype(np.int64),
        cold_users=int((~warm).sum()),
    )


def load_next_basket(baskets: Path, items: Path, *, gate_start: date, as_of: date) -> NextBasket:
    """Return `next_basket_v1` of the two Parquet files that `build_sequences` writes."""
    return next_basket_v1(
        pl.read_parquet(baskets, columns=["user_id", "day", "time", "item_ids"]),
        pl.read_parquet(items, columns=["item_id"]),
        gate_start=gate_start,
        as_of=as_of,
    )


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """Return the concatenation of `start .. start + size` for every pair."""
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return np.asarray(np.repeat(starts, sizes) + within, dtype=np.int64)
