"""How far the items bought now are from the items bought then, against what chance alone would show.

Axes: `item` rows of one aligned pair of count vectors, `bin` equal-mass bins of the reference.

A Jensen-Shannon divergence is never compared with zero: two samples of one distribution differ. It is divided by
its noise floor, the divergence of a sample of the current size drawn from the reference itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sidrec.recipe import MonitoringConfig

Level = Literal["ok", "warn", "alarm", "insufficient"]
Counts = NDArray[np.float64]
Bins = NDArray[np.int64]

NUM_BINS = 20
WINDOWS_OF, WINDOWS_NEEDED = 3, 2
SHARE_FLOOR = 1e-4
FLOOR_REPEATS = 20
_SMALLEST_FLOOR = 1e-6


def align(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[list[str], Counts, Counts]:
    """Return the sorted keys of both tables and both count vectors over them."""
    keys = sorted(reference.keys() | current.keys())
    return (
        keys,
        np.array([reference.get(key, 0) for key in keys], dtype=np.float64),
        np.array([current.get(key, 0) for key in keys], dtype=np.float64),
    )


def js_divergence(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon divergence of two count vectors' shares, in bits (0 equal, 1 disjoint)."""
    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def _relative_entropy(p: Counts, q: Counts) -> float:
    inside = p > 0
    return float((p[inside] * np.log2(p[inside] / q[inside])).sum())


def noise_floor(reference: Counts, size: int, *, seed: int, repeats: int = FLOOR_REPEATS) -> float:
    """Return the mean divergence between the reference and `repeats` samples of `size` events from it."""
    rng = np.random.default_rng(seed)
    shares = reference / reference.sum()
    samples = rng.multinomial(size, shares, size=repeats)
    return float(np.mean([js_divergence(reference, sample.astype(np.float64)) for sample in samples]))


def two_sample_floor(reference: Counts, current: Counts, *, seed: int, repeats: int = FLOOR_REPEATS) -> float:
    """Return the mean divergence of random splits of both tables pooled into parts of their sizes.

    For a reference that is itself a small sample, such as last week's answers: its own noise counts too. Splits are
    without replacement; drawing with replacement would miss rare items and put the floor a third too low.
    """
    rng = np.random.default_rng(seed)
    pooled = (reference + current).astype(np.int64)
    first = rng.multivariate_hypergeometric(pooled, int(reference.sum()), size=repeats, method="marginals")
    splits = ((part.astype(np.float64), (pooled - part).astype(np.float64)) for part in first)
    return float(np.mean([js_divergence(part, rest) for part, rest in splits]))


def over_floor(divergence: float, floor: float) -> float:
    """Return how many times its noise floor a divergence is; a reference of one item has no noise."""
    return divergence / max(floor, _SMALLEST_FLOOR)


def popularity_bins(reference: Counts, num_bins: int = NUM_BINS) -> Bins:
    """Return each item's bin: equal mass of the reference, most popular first; `num_bins` = unseen there."""
    order = np.argsort(-reference, kind="stable")
    bins = np.empty(len(reference), dtype=np.int64)
    bins[order] = _equal_mass(reference[order], num_bins)
    bins[reference == 0] = num_bins
    return bins


def value_bins(reference: Counts, num_bins: int) -> Bins:
    """Return the bin of each value of an ordered axis: equal mass of the reference, lowest first.

    Bin 0 lies below, bin `num_bins + 1` above all that the reference holds: a value that it has throughout would
    otherwise swallow any other one.
    """
    bins = 1 + _equal_mass(reference, num_bins)
    held = np.flatnonzero(reference)
    bins[: held[0]] = 0
    bins[held[-1] + 1 :] = num_bins + 1
    return bins


def _equal_mass(ordered: Counts, num_bins: int) -> Bins:
    """Return floor(bins x cumulative share); the nudge keeps an exact bin border in the lower bin."""
    cumulative = np.cumsum(ordered) / ordered.sum()
    bins: Bins = np.clip((cumulative * num_bins - 1e-12).astype(np.int64), 0, num_bins - 1)
    return bins


def psi(reference: Counts, current: Counts, bins: Bins, num_bins: int) -> float:
    """Return the population stability index over bins 0..num_bins-1, shares floored at 1e-4."""
    p, q = bin_shares(reference, bins, num_bins), bin_shares(current, bins, num_bins)
    p, q = np.maximum(p, SHARE_FLOOR), np.maximum(q, SHARE_FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def bin_shares(counts: Counts, bins: Bins, num_bins: int) -> Counts:
    """Return the share of the counts in each bin."""
    shares: Counts = np.bincount(bins, weights=counts, minlength=num_bins) / counts.sum()
    return shares


@dataclass(frozen=True, slots=True)
class Statistics:
    """How far two tables of item counts are apart."""

    js: float
    noise_floor: float
    ratio: float
    psi: float
    unseen_share: float


def statistics(reference: Mapping[str, int], current: Mapping[str, int], *, seed: int) -> Statistics:
    """Return every statistic of two tables of item counts, neither of them empty."""
    _, before, now = align(reference, current)
    divergence = js_divergence(before, now)
    floor = noise_floor(before, int(now.sum()), seed=seed)
    return Statistics(
        js=divergence,
        noise_floor=floor,
        ratio=over_floor(divergence, floor),
        psi=psi(before, now, popularity_bins(before), NUM_BINS + 1),
        unseen_share=float(now[before == 0].sum() / now.sum()),
    )


@dataclass(frozen=True, slots=True)
class ItemDrift:
    """One window's purchases against the reference, judged."""

    level: Level
    reasons: tuple[str, ...]
    events: int
    reference_events: int
    statistics: Statistics | None

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self)


def measure(
    reference: Mapping[str, int], current: Mapping[str, int], config: MonitoringConfig, *, seed: int
) -> ItemDrift:
    """Return the drift of `current` item counts from `reference` ones, judged by the recipe's thresholds."""
    events, reference_events = sum(current.values()), sum(reference.values())
    if not events or not reference_events:
        reason = f"{events:,} purchases in the window, {reference_events:,} in the reference"
        return ItemDrift("insufficient", (reason,), events, reference_events, None)
    seen = statistics(reference, current, seed=seed)
    level, reasons = judge(seen.psi, seen.ratio, events, config)
    return ItemDrift(level, reasons, events, reference_events, seen)


def judge(stability: float, ratio: float, events: int, config: MonitoringConfig) -> tuple[Level, tuple[str, ...]]:
    """Return the level and what crossed: alarm needs both measures, warn either.

    Too few events are `insufficient` whatever the numbers say.
    """
    if events < config.min_events:
        return "insufficient", (f"{events:,} purchases, the rule needs {config.min_events:,}",)
    crossed = [
        text
        for text, over in (
            (f"PSI {stability:.3f} >= {config.warn_psi:g}", stability >= config.warn_psi),
            (f"JS {ratio:.2f} times its noise floor >= {config.warn_ratio:g}", ratio >= config.warn_ratio),
        )
        if over
    ]
    if stability >= config.alarm_psi and ratio >= config.alarm_ratio:
        both = f"PSI {stability:.3f} >= {config.alarm_psi:g} and JS {ratio:.2f} times its noise floor"
        return "alarm", (f"{both} >= {config.alarm_ratio:g}",)
    return ("warn", tuple(crossed)) if crossed else ("ok", ())


def settled(drift: ItemDrift, earlier: Sequence[ItemDrift], config: MonitoringConfig) -> ItemDrift:
    """Return the drift with a warning by the ratio alone kept only where it was over in enough of the last windows.

    A shop's assortment rotates: one window over the ratio's limit is common, and PSI, which new items move, says at
    once what matters. Two of three windows are needed, or as many as have enough purchases where those are fewer.

    Args:
        earlier: the windows before it, newest first, against the same reference.
    """
    seen = drift.statistics
    if drift.level != "warn" or seen is None or seen.psi >= config.warn_psi:
        return drift
    before = [
        one.statistics.ratio
        for one in earlier[: WINDOWS_OF - 1]
        if one.statistics is not None and one.events >= config.min_events
    ]
    over = 1 + sum(ratio >= config.warn_ratio for ratio in before)
    weeks = f"in {over} of {1 + len(before)} weeks"
    kept = over >= min(WINDOWS_NEEDED, 1 + len(before))
    return replace(drift, level="warn" if kept else "ok", reasons=(f"{drift.reasons[0]} {weeks}",))
