"""What a codebook must show before a bundle with it may be promoted."""

from collections.abc import Mapping
from typing import Any

from sidrec.evaluation.config import GateConfig
from sidrec.evaluation.gates import GateResult


def codebook_gates(quantized: Mapping[str, Any], gates: GateConfig) -> list[GateResult]:
    """Return the gates on the codes as quantized, before any collision was resolved."""
    return [_utilisation(quantized, gates.min_utilisation), _collision_rate(quantized, gates.max_collision_rate)]


def identity_gate(served: Mapping[str, Any]) -> GateResult:
    """Return the gate on the catalogue as served: every item has a semantic ID of its own."""
    share, num_items = float(served["uniquely_identified"]), int(served["items"])
    return GateResult(
        gate="codebook",
        name="uniquely_identified",
        result="pass" if share == 1 else "fail",
        threshold=1.0,
        observed=share,
        interval=None,
        n=num_items,
        sentence=f"{share:.2%} of {num_items:,} items have a semantic ID that no other item has; all must.",
    )


def churn_gate(churn: Mapping[str, Any], budget: float) -> GateResult:
    """Return the gate on what published items lose: the share of traffic whose semantic ID moved.

    A model that is trained from scratch on the new semantic IDs loses nothing by them, whatever moved.

    Args:
        churn: `moved`, `published`, `share` of traffic, `training`, and `changed` shares of items by level.
    """
    observed, published = float(churn["share"]), int(churn["published"])
    scratch = churn["training"] == "scratch"
    changed = {f"level_{level}": float(share) for level, share in enumerate(churn["changed"])}
    worst = max(changed, key=lambda name: changed[name]) if changed else "level_0"
    follows = (
        "the model is trained from scratch on them" if scratch else f"at most {budget:.1%} may, or the model loses"
    )
    return GateResult(
        gate="codebook",
        name="churn",
        result="pass" if scratch or observed <= budget else "fail",
        threshold=budget,
        observed=observed,
        interval=None,
        n=published,
        slices=changed,
        sentence=(
            f"{observed:.1%} of the traffic has another semantic ID than in the live bundle "
            f"({churn['moved']:,} of {published:,} items; most at level {worst.removeprefix('level_')}, "
            f"{changed.get(worst, 0.0):.1%} of them): {follows}."
        ),
    )


def _utilisation(quantized: Mapping[str, Any], threshold: float) -> GateResult:
    shares = {f"level_{level['level']}": float(level["utilisation"]) for level in quantized["levels"]}
    weakest = min(shares, key=lambda name: shares[name])
    observed = shares[weakest]
    return GateResult(
        gate="codebook",
        name="utilisation",
        result="pass" if observed >= threshold else "fail",
        threshold=threshold,
        observed=observed,
        interval=None,
        n=int(quantized["items"]),
        slices=shares,
        sentence=(
            f"the least used level, {weakest.removeprefix('level_')}, uses {observed:.1%} of its codes; "
            f"at least {threshold:.0%} is asked of every level."
        ),
    )


def _collision_rate(quantized: Mapping[str, Any], threshold: float) -> GateResult:
    observed, num_items = float(quantized["collision_rate"]), int(quantized["items"])
    return GateResult(
        gate="codebook",
        name="collision_rate",
        result="pass" if observed <= threshold else "fail",
        threshold=threshold,
        observed=observed,
        interval=None,
        n=num_items,
        sentence=(
            f"{quantized['distinct']:,} distinct semantic IDs for {num_items:,} items before collisions were resolved: "
            f"a rate of {observed:.3f}, at most {threshold:.3f} is allowed."
        ),
    )
