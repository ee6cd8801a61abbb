"""From findings to suspects: which fault explains what moved, and whether it is one arm's or the world's.

A fault has a metric of its own that nothing else moves so; what it drags along (a cold answer after an empty history)
is filed under it. Two columns that were swapped are told by their histograms: each looks like the other did.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl

from monitoring import aggregate, item_drift
from monitoring.decide import ITEMS_BOUGHT
from monitoring.findings import ALL_ARMS, AREAS, LEVELS, Area, Cause, Finding, Suspect, worst

Histograms = Mapping[str, tuple[pl.DataFrame, pl.DataFrame]]
"""By arm: counts in the window, and in its reference."""

NUMERIC_COLUMNS = ("history_length", "known_items", "feature_age_days")
# A swap leaves each column closer to the other's past than this share of how far both have gone from their own.
_SWAPPED_BELOW = 0.25

_WORDS: Mapping[Cause, str] = {
    "unseen_items": "items that the reference never saw are bought",
    "popularity_shock": "a few known items suddenly sell far more",
    "null_histories": "requests find no history",
    "stale_features": "features are older than they were",
    "swapped_columns": "two feature columns hold each other's values",
    "codes_collapsed": "answers use far fewer semantic IDs",
    "broken_tie_order": "items of equal score no longer stand in their order",
    "degraded_answers": "answers are cold, cut short or thought less about",
    "quality_loss": "what is recommended is taken less often",
    "shifted": "what moved tells no fault by itself",
}

# The metric that tells a fault, in the order in which faults explain one another: an empty history makes a cold answer.
_TELLS: tuple[tuple[Cause, Area, tuple[str, ...]], ...] = (
    ("null_histories", "features", ("null_history",)),
    ("stale_features", "features", ("feature_age",)),
    ("codes_collapsed", "sid", ("/normalised_entropy", "/utilisation", "/largest_share")),
    ("broken_tie_order", "decoder", ("broken_ties",)),
    ("degraded_answers", "decoder", ("cold_share", "degraded_share", "short_list")),
    ("quality_loss", "outcome", ("recall@10", "ndcg@10")),
)


def name_causes(
    findings: Sequence[Finding],
    histograms: Histograms,
    *,
    reference_items: Mapping[str, int],
    current_items: Mapping[str, int],
    gained: Sequence[str],
) -> tuple[tuple[Finding, ...], tuple[Suspect, ...]]:
    """Return the findings with their causes, and the suspects, most severe first, then in the order of `AREAS`.

    Args:
        reference_items: purchases by item in the reference.
        current_items: in the window.
        gained: items whose share of purchases grew most.
    """
    moved = [finding for finding in findings if finding.level in ("warn", "alarm")]
    unseen = sorted(
        (item for item in current_items if item not in reference_items), key=lambda item: (-current_items[item], item)
    )
    suspects = _purchase_suspects([one for one in moved if one.area == "data"], unseen[:10], gained)
    arms = sorted({one.arm for one in moved if one.area != "data"})
    for arm in arms:
        own = [one for one in moved if one.arm == arm and one.area != "data"]
        flat = _flat_arms(findings, arm)
        suspects += _arm_suspects(own, arm, swapped(*histograms[arm]) if arm in histograms else None, flat)
    order = sorted(suspects, key=lambda one: (-LEVELS.index(one.level), AREAS.index(one.area), one.arm))
    cause_of = {key: suspect.cause for suspect in reversed(order) for key in suspect.findings}
    named = tuple(
        finding.model_copy(update={"cause": cause_of.get(finding.key)}) if finding in moved else finding
        for finding in findings
    )
    return named, tuple(order)


def swapped(current: pl.DataFrame, reference: pl.DataFrame) -> tuple[str, str] | None:
    """Return the two numeric columns of which each now looks as the other did, None where there are none."""
    for one, other in combinations(NUMERIC_COLUMNS, 2):
        tables = [_logarithmic(table, kind) for kind in (one, other) for table in (current, reference)]
        if not all(tables):
            continue
        now_one, then_one, now_other, then_other = tables
        own = _distance(now_one, then_one) + _distance(now_other, then_other)
        crossed = _distance(now_one, then_other) + _distance(now_other, then_one)
        if own > 0.1 and crossed < _SWAPPED_BELOW * own:
            return one, other
    return None


def _logarithmic(table: pl.DataFrame, kind: str) -> dict[str, int]:
    """Return counts over bins that double in width, which two columns of different units share."""
    binned: dict[str, int] = {}
    for key, count in aggregate.counts_of(table, kind).items():
        key = str(int(np.log2(max(float(key), 0) + 1) * 2))
        binned[key] = binned.get(key, 0) + count
    return binned


def _distance(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    _, one, other = item_drift.align(first, second)
    return item_drift.js_divergence(one, other)


def _purchase_suspects(moved: Sequence[Finding], unseen: Sequence[str], gained: Sequence[str]) -> list[Suspect]:
    if not moved:
        return []
    by_name = {finding.name: finding for finding in moved}
    if "unseen_share" in by_name:
        share = by_name["unseen_share"].value or 0.0
        return [_suspect("unseen_items", "data", ALL_ARMS, moved, f"{share:.1%} of purchases", items=unseen)]
    if "top_gain" in by_name:
        gain = by_name["top_gain"].value or 0.0
        text = f"ten items gained {gain:.1%} of purchases"
        return [_suspect("popularity_shock", "data", ALL_ARMS, moved, text, items=gained)]
    words = by_name[ITEMS_BOUGHT].sentence if ITEMS_BOUGHT in by_name else ""
    return [_suspect("shifted", "data", ALL_ARMS, moved, words, items=(*unseen[:5], *gained[:5]))]


def _arm_suspects(own: list[Finding], arm: str, pair: tuple[str, str] | None, flat: str) -> list[Suspect]:
    """Return an arm's suspects; what no fault tells goes to the first that lies before it on the way to an answer."""
    suspects: list[Suspect] = []
    left = list(own)
    if pair is not None and any(finding.name in pair for finding in left):
        # Whatever else moved among the inputs was computed from these columns.
        taken = [finding for finding in left if finding.area == "features"]
        left = [finding for finding in left if finding not in taken]
        suspects.append(_suspect("swapped_columns", "features", arm, taken, flat, items=pair))
    for cause, area, tells in _TELLS:
        taken = [finding for finding in left if finding.name.endswith(tells)]
        if taken and cause == "degraded_answers" and any(one.cause == "null_histories" for one in suspects):
            continue  # a cold answer is what an empty history gets
        if taken:
            left = [finding for finding in left if finding not in taken]
            suspects.append(_suspect(cause, area, arm, taken, flat))
    if not left:
        return suspects
    if not suspects:
        area = min((finding.area for finding in left), key=AREAS.index)
        return [_suspect("shifted", area, arm, left, flat)]
    suspects[0] = suspects[0].model_copy(
        update={
            "findings": (*suspects[0].findings, *(finding.key for finding in left)),
            "level": worst([suspects[0].level, *(finding.level for finding in left)]),
        }
    )
    return suspects


def _suspect(
    cause: Cause, area: Area, arm: str, findings: Sequence[Finding], words: str, *, items: Iterable[str] = ()
) -> Suspect:
    since = [finding.since for finding in findings if finding.since is not None]
    largest = max(findings, key=lambda finding: (finding.effect or 0.0) / (finding.threshold or 1.0))
    whose = "" if arm == ALL_ARMS else f" in arm {arm}"
    detail = "; ".join(text for text in (words, largest.sentence) if text)
    return Suspect(
        cause=cause,
        area=area,
        arm=arm,
        level=worst([finding.level for finding in findings]),
        since=min(since, default=None),
        sentence=f"{_WORDS[cause]}{whose}: {detail}",
        findings=tuple(finding.key for finding in findings),
        items=tuple(items),
    )


def _flat_arms(findings: Sequence[Finding], arm: str) -> str:
    """Return in words which other arms did not move, which speaks for a fault of this one."""
    others = sorted({finding.arm for finding in findings} - {arm, ALL_ARMS})
    flat = [
        other
        for other in others
        if not any(finding.arm == other and finding.level in ("warn", "alarm") for finding in findings)
    ]
    return f"{', '.join(flat)} flat, so suspect this arm's bundle, not users" if flat else ""
