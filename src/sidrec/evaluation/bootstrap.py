"""Percentile bootstrap over rows: one row is one user, so rows are the independent unit.

Axes: `row` evaluated users, `metric` columns that share the same resampled rows, `resample` bootstrap draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A candidate against a reference on the same rows: means, their difference and its intervals."""

    candidate: float
    reference: float
    mean: float
    interval: tuple[float, float]
    relative: float
    relative_interval: tuple[float, float]
    row_sd: float
    n: int


def resampled_means(values: NDArray[np.floating], *, resamples: int, seed: int, chunk: int = 64) -> NDArray[np.float64]:
    """Return the `[resample, metric]` means of rows drawn with replacement; equal seeds draw equal rows.

    Args:
        values: `[row]` or `[row, metric]`; the rows of a resample are the same for every metric, so differences of
            columns are paired.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    rows = len(table)
    if rows == 0:
        return np.full((resamples, table.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, table.shape[1]))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        # How often each row was drawn, times the values: one matrix product for all metrics.
        flat = (drawn + np.arange(size)[:, None] * rows).ravel()
        counts = np.bincount(flat, minlength=size * rows).reshape(size, rows)
        means[start : start + size] = counts @ table / rows
    return means


def percentile_interval(means: NDArray[np.floating], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the central interval of resampled means."""
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(values: NDArray[np.floating], *, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean over rows; NaNs when there is no row."""
    return percentile_interval(resampled_means(values, resamples=resamples, seed=seed)[:, 0])


def paired_difference(
    candidate: NDArray[np.floating], reference: NDArray[np.floating], *, resamples: int, seed: int
) -> Difference:
    """Return candidate minus reference with intervals from resampling whole rows, so common row noise cancels.

    The relative difference divides by the reference's mean of the same resample.
    """
    if candidate.shape != reference.shape or candidate.ndim != 1:
        raise ValueError(f"paired rows needed, seen {candidate.shape} and {reference.shape}")
    pair = np.stack([candidate, reference], axis=1).astype(np.float64)
    means = resampled_means(pair, resamples=resamples, seed=seed)
    difference = means[:, 0] - means[:, 1]
    own, other = (float(value) for value in pair.mean(axis=0))
    return Difference(
        candidate=own,
        reference=other,
        mean=own - other,
        interval=percentile_interval(difference),
        relative=_share(own - other, other),
        relative_interval=percentile_interval(
            np.array([_share(d, r) for d, r in zip(difference, means[:, 1], strict=True)])
        ),
        row_sd=float(np.std(pair[:, 0] - pair[:, 1], ddof=1)) if len(pair) > 1 else 0.0,
        n=len(pair),
    )


def _share(difference: float, reference: float) -> float:
    """Return difference / reference; against a reference of zero, the whole (±1) or nothing (0)."""
    if reference > 0:
        return float(difference / reference)
    return float(np.sign(difference))
