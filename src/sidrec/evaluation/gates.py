"""Gates say pass, fail or inconclusive, with the numbers that decided and a sentence a release owner can read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sidrec.evaluation.bootstrap import Difference

Result = Literal["pass", "fail", "inconclusive"]


class GateResult(BaseModel):
    """One question put to a bundle and its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: Literal["codebook", "quality", "serving"]
    name: str = Field(description="Unique within its gate.")
    result: Result
    threshold: float = Field(description="Value that `observed`, or the interval's bound, was held against.")
    observed: float
    interval: tuple[float, float] | None = Field(None, description="95 % interval of `observed`.")
    n: int = Field(ge=0, description="Rows, items or requests that `observed` was measured on.")
    slices: dict[str, float] = Field(default_factory=dict, description="`observed` on parts of the n.")
    sentence: str = Field(min_length=1)


def floor_gate(
    difference: Difference,
    *,
    metric: str,
    floor: str,
    slices: dict[str, float] | None = None,
) -> GateResult:
    """Pass when the whole interval of (candidate - floor) lies above zero, else fail.

    A bundle that is not shown to beat its floor is refused: an interval around zero is a fail here, because a floor
    costs nothing to serve.
    """
    low, high = difference.interval
    passed = low > 0
    if passed:
        reading = "the bundle beats the floor"
    elif high < 0:
        reading = "the bundle is worse than the floor"
    else:
        reading = "the interval holds zero, so the bundle is not shown to beat the floor"
    return GateResult(
        gate="quality",
        name=f"beats_{floor}",
        result="pass" if passed else "fail",
        threshold=0.0,
        observed=difference.mean,
        interval=difference.interval,
        n=difference.n,
        slices=slices or {},
        sentence=(
            f"{metric} is {difference.candidate:.4f} against {difference.reference:.4f} of {floor}: "
            f"{difference.mean:+.4f} [{low:+.4f}, {high:+.4f}] on {difference.n:,} rows; {reading}."
        ),
    )


def champion_gate(
    difference: Difference,
    *,
    metric: str,
    name: str,
    non_inferiority: float,
    slices: dict[str, float] | None = None,
) -> GateResult:
    """Pass when the relative loss against the champion is surely below δ, fail when it is surely above, else undecided.

    Args:
        difference: candidate against champion on the same rows.
        non_inferiority: δ, the largest tolerated loss as a share of the champion's mean.
        name: the gate's name, e.g. `non_inferior_novel`.
    """
    low, high = difference.relative_interval
    result: Result
    if low > -non_inferiority:
        result, reading = "pass", f"the loss is surely below the tolerated {non_inferiority:.1%}"
    elif high < -non_inferiority:
        result, reading = "fail", f"the loss is surely above the tolerated {non_inferiority:.1%}"
    else:
        result = "inconclusive"
        reading = (
            f"these rows cannot tell a loss below the tolerated {non_inferiority:.1%} from one above it "
            f"(half the interval is {(high - low) / 2:.1%})"
        )
    return GateResult(
        gate="quality",
        name=name,
        result=result,
        threshold=-non_inferiority,
        observed=difference.relative,
        interval=difference.relative_interval,
        n=difference.n,
        slices=slices or {},
        sentence=(
            f"{metric} is {difference.candidate:.4f} against {difference.reference:.4f} of the champion: "
            f"{difference.relative:+.1%} [{low:+.1%}, {high:+.1%}] on {difference.n:,} rows; {reading}."
        ),
    )


def overall(results: list[GateResult]) -> Result:
    """Return fail if any gate failed, else inconclusive if any was, else pass; no gate at all is a fail."""
    if not results or any(gate.result == "fail" for gate in results):
        return "fail"
    return "inconclusive" if any(gate.result == "inconclusive" for gate in results) else "pass"
