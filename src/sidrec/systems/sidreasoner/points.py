"""Training points: a user's past, and what of the next basket is asked for.

Axes: `point` (user, next basket) pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sidrec.systems.history import History


@dataclass(frozen=True, slots=True)
class Point:
    """A history up to a basket, and that basket."""

    user: int
    history: History
    targets: tuple[int, ...]


def points_of(histories: Sequence[History]) -> list[Point]:
    """Return every basket but a user's first as a point."""
    return [
        Point(user, _past(history, basket), tuple(basket_items(history, basket)))
        for user, history in enumerate(histories)
        for basket in range(1, len(history))
    ]


def basket_items(history: History, basket: int) -> list[int]:
    """Return the distinct items of a basket, in its order."""
    low, high = history.start[basket], history.start[basket + 1]
    return list(dict.fromkeys(history.items[low:high].tolist()))


def held_out(points: Sequence[Point], *, share: float, seed: int) -> tuple[list[Point], list[Point]]:
    """Return the points to learn from and those of a share of users, drawn by the seed, that are not learnt from."""
    users = sorted({point.user for point in points})
    chosen = np.random.default_rng([seed, 0x4E1D]).permutation(len(users))[: round(share * len(users))]
    kept = {users[place] for place in chosen.tolist()}
    return [point for point in points if point.user not in kept], [point for point in points if point.user in kept]


def _past(history: History, basket: int) -> History:
    return History(history.items[: history.start[basket]], history.start[: basket + 1], history.days[:basket])
