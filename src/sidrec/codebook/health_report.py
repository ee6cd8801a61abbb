"""How healthy a codebook is: on the catalogue, weighted by traffic, and on what is served; with one alarm.

Axes: `item` rows, `level` (or slot) codes of a semantic ID, `code` entries of one codebook.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sidrec.codebook.config import AlarmConfig
from sidrec.quantization.health import (
    chance_information,
    level_health,
    load_balance,
    mutual_information,
    prefix_stability,
    sid_health,
    weighted_health,
)

_BINS = 40


def health_report(
    *,
    quantized: NDArray[np.integer[Any]],
    final: NDArray[np.integer[Any]],
    codebook_size: int,
    traffic: NDArray[Any],
    served: NDArray[Any] | None = None,
    fitted_errors: NDArray[np.floating[Any]] | None = None,
    new_errors: NDArray[np.floating[Any]] | None = None,
    previous: NDArray[np.integer[Any]] | None = None,
    expert_load: NDArray[np.floating[Any]] | None = None,
    slots: bool = False,
    alarm: AlarmConfig,
) -> dict[str, Any]:
    """Return every figure of a codebook as JSON data.

    Args:
        quantized: [item, level], before collisions were resolved.
        final: [item, level] or one column more, as published.
        traffic: [item], any weights; popularity, say.
        served: [item], how often an item was in an answer; None where nothing was served yet.
        fitted_errors: relative errors of the items that the codewords were fitted on.
        new_errors: of items they were not; None or empty where there is none.
        previous: the parent's codes of the first items.
        expert_load: [slot], mean gate of each expert.
        slots: whether codes are unordered, so that their mutual information says something.
    """
    levels = quantized.shape[1]
    shown = final[:, :levels]
    views: dict[str, Any] = {
        "catalogue": [level_health(shown[:, level], codebook_size) for level in range(levels)],
        "traffic": _weighted(shown, codebook_size, traffic),
        "served": {"absent": "nothing was served yet"} if served is None else _weighted(shown, codebook_size, served),
    }
    stability = None
    if previous is not None:
        common = min(len(previous), len(final))
        stability = prefix_stability(previous[:common], final[:common], np.asarray(traffic, dtype=np.float64)[:common])
    return {
        "views": views,
        "identity": {"before": sid_health(quantized), "after": sid_health(final)},
        "residual": residual_figures(fitted_errors, new_errors),
        "alarm": span_alarm(fitted_errors, new_errors, alarm),
        "prefix_stability": stability,
        "mutual_information": mutual_information(quantized, codebook_size).tolist() if slots else None,
        "mutual_information_by_chance": chance_information(quantized, codebook_size) if slots else None,
        "expert_load": None if expert_load is None else load_balance(expert_load),
    }


def with_served(
    report: dict[str, Any], final: NDArray[np.integer[Any]], codebook_size: int, served: NDArray[Any]
) -> dict[str, Any]:
    """Return the report with the view of served items, which nobody knew when the codebook was made.

    Args:
        final: [item, level], as published.
        served: [item], how often an item was in an answer.
    """
    levels = len(report["views"]["catalogue"])
    return {**report, "views": {**report["views"], "served": _weighted(final[:, :levels], codebook_size, served)}}


def residual_figures(
    fitted: NDArray[np.floating[Any]] | None, new: NDArray[np.floating[Any]] | None
) -> dict[str, Any] | None:
    """Return the errors of fitted and of new items side by side, None without fitted ones.

    `auc` is the probability that a new item's error exceeds a fitted one's, ties counting half. An
    error above 1 counts as 1, here and in the alarm: such codes explain nothing, and one item without a vector would
    outweigh all others.
    """
    if fitted is None or len(fitted) == 0:
        return None
    fitted, new = np.minimum(fitted, 1.0), None if new is None else np.minimum(new, 1.0)
    both = fitted if new is None else np.concatenate([fitted, new])
    edges = np.linspace(0, max(float(both.max()), 1e-9), _BINS + 1)
    figures: dict[str, Any] = {"edges": edges.tolist(), "fitted": _spread(fitted, edges), "new": None}
    if new is None or len(new) == 0:
        return figures
    auc, interval = exceedance(fitted, new)
    ratio = float(new.mean() / max(float(fitted.mean()), 1e-12))
    return figures | {"new": _spread(new, edges), "ratio": ratio, "auc": auc, "auc_interval": list(interval)}


def span_alarm(
    fitted: NDArray[np.floating[Any]] | None, new: NDArray[np.floating[Any]] | None, alarm: AlarmConfig
) -> dict[str, Any]:
    """Return whether the codewords no longer span the catalogue, and the sentence that says so.

    Raised when there are enough new items, their mean error is `residual_ratio` times that of fitted ones, and chance
    does not explain it. Where fitted errors are so large that no error of at most 1 is that many times as large, the
    limit is half way to the largest ratio that can be.
    """
    count = 0 if new is None else len(new)
    if fitted is None or len(fitted) == 0 or new is None or count == 0:
        return {"raised": False, "sentence": "there are no new items to judge the codewords by"}
    fitted, new = np.minimum(fitted, 1.0), np.minimum(new, 1.0)
    usual = max(float(fitted.mean()), 1e-12)
    ratio, limit = float(new.mean()) / usual, min(alarm.residual_ratio, (1 + 1 / usual) / 2)
    auc, (low, _) = exceedance(fitted, new)
    said = (
        f"{count:,} new items have {ratio:.2f} times the error of fitted ones "
        f"(one exceeds a fitted one with probability {auc:.2f}, at least {low:.2f})"
    )
    if count < alarm.min_new_items:
        return {"raised": False, "sentence": f"{said}; fewer than {alarm.min_new_items} say nothing"}
    raised = ratio >= limit and low > 0.5
    opening = "the codebook no longer spans the catalogue: " if raised else ""
    return {"raised": raised, "sentence": f"{opening}{said}; the limit is {limit:.2f}"}


def exceedance(fitted: NDArray[np.floating[Any]], new: NDArray[np.floating[Any]]) -> tuple[float, tuple[float, float]]:
    """Return the probability that a new error exceeds a fitted one, with its 95 % interval.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982, for the variance.
    """
    n, m = len(new), len(fitted)
    ranks = rankdata(np.concatenate([new, fitted]))
    area = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    half = 1.96 * max(variance, 0.0) ** 0.5
    return area, (max(0.0, area - half), min(1.0, area + half))


def _weighted(codes: NDArray[np.integer[Any]], size: int, weights: NDArray[Any]) -> list[dict[str, Any]]:
    mass = np.asarray(weights, dtype=np.float64)
    return [weighted_health(codes[:, level], size, mass) for level in range(codes.shape[1])]


def _spread(values: NDArray[np.floating[Any]], edges: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "histogram": np.histogram(values, edges)[0].tolist(),
    }
