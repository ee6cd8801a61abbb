"""Percentile bootstrap over rows: one row is one user, so rows are the independent unit.

Axes: `row` evaluated users, `metric` columns that share the same resampled rows, `resample` bootstrap draws.
"""

from collections.abc import Mapping
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


class Bootstrap:
    """Columns of per-row values under one set of resamples, so any two of them can be compared by rows."""

    def __init__(self, columns: Mapping[str, NDArray[np.floating]], *, resamples: int, seed: int) -> None:
        shapes = {name: values.shape for name, values in columns.items()}
        if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"paired rows needed, seen {shapes}")
        self._place = {name: number for number, name in enumerate(columns)}
        self._rows = np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)
        self._means = resampled_means(self._rows, resamples=resamples, seed=seed)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of a column's mean."""
        return percentile_interval(self._means[:, self._place[name]])

    def difference(self, candidate: str, reference: str) -> Difference:
        """Return candidate minus reference with intervals from whole rows, so common row noise cancels.

        The relative difference divides by the reference's mean of the same resample.
        """
        columns = [self._place[candidate], self._place[reference]]
        own, other = (float(value) for value in self._rows[:, columns].mean(axis=0))
        per_row = self._rows[:, columns[0]] - self._rows[:, columns[1]]
        differences = self._means[:, columns[0]] - self._means[:, columns[1]]
        relative = [_share(d, r) for d, r in zip(differences, self._means[:, columns[1]], strict=True)]
        return Difference(
            candidate=own,
            reference=other,
            mean=own - other,
            interval=percentile_interval(differences),
            relative=_share(own - other, other),
            relative_interval=percentile_interval(np.array(relative)),
            row_sd=float(np.std(per_row, ddof=1)) if len(per_row) > 1 else 0.0,
            n=len(per_row),
        )


def mean_interval(values: NDArray[np.floating], *, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean over rows."""
    return Bootstrap({"values": values}, resamples=resamples, seed=seed).interval("values")


def paired_difference(
    candidate: NDArray[np.floating], reference: NDArray[np.floating], *, resamples: int, seed: int
) -> Difference:
    """Return candidate minus reference on the same rows."""
    columns = {"candidate": candidate, "reference": reference}
    return Bootstrap(columns, resamples=resamples, seed=seed).difference("candidate", "reference")


def _share(difference: float, reference: float) -> float:
    """Return difference / reference; against a reference of zero, the whole (±1) or nothing (0)."""
    if reference > 0:
        return float(difference / reference)
    return float(np.sign(difference))
