"""Which piece of the hash line belongs to which arm, so that a ramp moves nobody out of an arm that grows.

A user is a point of [0, 1) for ever, under one salt. Each challenger has an end of a region of the line and grows
from there towards the other end; what no challenger holds is the champion's. How far a challenger reaches hangs on
its own share alone, so growing one moves only the champion's users, never another challenger's.

One challenger grows from the top down, a second one from the bottom up: together they may take everything. More
challengers share the line by pairs, each pair an equal part of it, and cannot outgrow that part (`fits`). No rule
does better: nobody moves between challengers only if each one's set of users hangs on its own share, and three such
families of sets cannot be disjoint for all shares (docs/adr/0023).

Axes: shares and arm numbers are in the order of the revision's arms, the champion's first.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

_HASH_RANGE = 2**64
ROUNDING: Final = 1e-9
"""Shares that differ by less are equal."""


class Buckets(NamedTuple):
    """The line in pieces: piece i ends before `ends[i]` and is arm `arms[i]`'s; the last piece has no end."""

    ends: tuple[float, ...]
    arms: tuple[int, ...]

    def arm_at(self, point: float) -> int:
        """Return the number of the arm that holds a point."""
        return self.arms[bisect_right(self.ends, point)]


def point_of(user_id: str, salt: str) -> float:
    """Return where a user falls: uniform over [0, 1], and independent of where another salt puts them."""
    digest = hashlib.sha256(f"{salt}\0{user_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _HASH_RANGE


@lru_cache(maxsize=64)
def buckets(shares: tuple[float, ...]) -> Buckets:
    """Return each arm's pieces of the line; an arm without a share has none.

    Shares that do not fit their regions are laid end to end in their order: met, but not safe to ramp.
    """
    edges = _by_region(shares) if fits(shares) else _end_to_end(shares)
    # Shares sum to 1 only up to rounding, so the last piece takes what is left of the line.
    return Buckets(tuple(end for end, _ in edges[:-1]), tuple(arm for _, arm in edges))


def fits(shares: Sequence[float]) -> bool:
    """Return whether each pair of challengers stays within its part of the line; one or two always do."""
    regions, room = _regions(len(shares)), 1 / _regions(len(shares)) + ROUNDING
    return all(sum(shares[arm] for arm in _pair(region, len(shares))) <= room for region in range(regions))


def _regions(num_arms: int) -> int:
    return max(1, math.ceil((num_arms - 1) / 2))


def _pair(region: int, num_arms: int) -> range:
    """Return the region's challengers: the first grows from its top, the second from its bottom."""
    return range(2 * region + 1, min(2 * region + 3, num_arms))


def _by_region(shares: Sequence[float]) -> list[tuple[float, int]]:
    regions = _regions(len(shares))
    edges: list[tuple[float, int]] = []
    for region in range(regions):
        low, high = region / regions, (region + 1) / regions
        held = {arm: shares[arm] for arm in _pair(region, len(shares))}
        from_top, from_bottom = [*held, 0, 0][:2]
        bottom = low + held.get(from_bottom, 0.0)
        # Where the pair fills its region, rounding must not turn the order of the two edges round.
        top = max(high - held.get(from_top, 0.0), bottom)
        pieces = (bottom, from_bottom, held.get(from_bottom)), (top, 0, shares[0]), (high, from_top, held.get(from_top))
        edges += [(end, arm) for end, arm, share in pieces if share]
    return edges


def _end_to_end(shares: Sequence[float]) -> list[tuple[float, int]]:
    return [(math.fsum(shares[: arm + 1]), arm) for arm, share in enumerate(shares) if share > 0]
