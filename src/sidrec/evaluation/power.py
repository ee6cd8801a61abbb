"""How small a difference a number of rows can show, known before anything is trained."""

from collections.abc import Iterable, Mapping
from math import ceil, sqrt
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict, Field

from sidrec.evaluation.bootstrap import CONFIDENCE
from sidrec.evaluation.gates import GateResult

POWER = 0.80
# Per-row standard deviation of the NDCG@10 difference of two models on Online Retail: .07 to .18 (protocol §2.3).
TYPICAL_ROW_SD = 0.10


class Outlook(BaseModel):
    """Whether the rows at hand can decide a non-inferiority gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    row_sd: float = Field(description="Standard deviation of the per-row difference.")
    minimum_detectable: float = Field(description="Smallest difference that is shown with 80 % power, absolute.")
    tolerated: float = Field(description="δ times the champion's mean, absolute.")
    rows_needed: int = Field(description="Rows at which δ itself would be detectable.")
    decidable: bool
    sentence: str


def minimum_detectable_difference(n: int, row_sd: float) -> float:
    """Return the difference of means that a 95 % paired interval on n rows tells from zero 4 times in 5."""
    if n < 1:
        return float("inf")
    return _distance() * row_sd / sqrt(n)


def rows_needed(difference: float, row_sd: float) -> int:
    """Return the rows from which `difference` is detectable."""
    return max(1, ceil((_distance() * row_sd / difference) ** 2))


def outlook(
    *, n: int, champion_mean: float, non_inferiority: float, row_sd: float = TYPICAL_ROW_SD, metric: str = "NDCG@10"
) -> Outlook:
    """Return whether n rows can show that an equally good bundle loses less than δ.

    Args:
        champion_mean: the champion's metric on these or earlier rows.
        row_sd: of the difference; a champion's own report has the measured one.
    """
    tolerated = non_inferiority * champion_mean
    detectable = minimum_detectable_difference(n, row_sd)
    needed = rows_needed(tolerated, row_sd) if tolerated > 0 else 0
    decidable = detectable <= tolerated
    reading = (
        "enough to decide"
        if decidable
        else f"too few to decide: expect an inconclusive verdict, {needed:,} rows would do, or a larger δ"
    )
    return Outlook(
        n=n,
        row_sd=row_sd,
        minimum_detectable=detectable if n else 0.0,
        tolerated=tolerated,
        rows_needed=needed,
        decidable=decidable and n > 0,
        sentence=(
            f"{metric}: {n:,} rows show differences from {detectable:.4f}; the tolerated loss is "
            f"{non_inferiority:.1%} of {champion_mean:.4f} = {tolerated:.4f}; {reading}."
        ),
    )


def before_training(
    gates: Iterable[GateResult], metrics: Mapping[str, Mapping[str, float]], non_inferiority: float
) -> list[Outlook]:
    """Return what the next non-inferiority test can decide, from the champion's own verdict, one outlook a row set.

    The champion's rows stand for the next window's; a spread measured against an earlier champion replaces the
    typical one where its interval is known.
    """
    rows: dict[str, int] = {}
    spread: dict[str, float] = {}
    for gate in gates:
        if gate.gate != "quality":
            continue
        kind = gate.name.removeprefix("non_inferior_")
        if gate.name.startswith("beats_"):
            rows.setdefault("novel", gate.n)
        elif kind in metrics:
            rows[kind] = gate.n
            if gate.interval is not None and gate.interval[1] > gate.interval[0]:
                half = (gate.interval[1] - gate.interval[0]) / 2 * metrics[kind]["ndcg@10"]
                spread[kind] = half / NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * sqrt(gate.n)
    return [
        outlook(
            n=n,
            champion_mean=metrics[kind]["ndcg@10"],
            non_inferiority=non_inferiority,
            row_sd=spread.get(kind, TYPICAL_ROW_SD),
            metric=f"NDCG@10 {kind}",
        )
        for kind, n in sorted(rows.items())
        if kind in metrics
    ]


def _distance() -> float:
    """Return the standard errors between zero and a difference that is found with the wanted power."""
    normal = NormalDist()
    return normal.inv_cdf(0.5 + CONFIDENCE / 2) + normal.inv_cdf(POWER)
