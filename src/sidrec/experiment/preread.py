"""What another bundle's answers would have earned, estimated from drawn answers before any user sees them.

Exploring users were shown items drawn with a known chance each (`sidrec.decoding.exploration`). Where a drawn item is
also in the other bundle's answer to the same request, what it earned counts 1 / chance times; the sums are divided by
those of the weights alone (SNIPS). An item's worth is taken not to hang on its place or on the other items shown.

Source: Swaminathan & Joachims, "The Self-Normalized Estimator for Counterfactual Learning" (NIPS 2015); by items, as in
Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, "Offline Evaluation of Ranking Policies with Click Models" (KDD
2018), item-position model without positions.
"""

from math import sqrt
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import norm

from sidrec.errors import UsageError

MIN_EFFECTIVE = 200
MIN_REACHED = 0.8


class Worth(BaseModel):
    """What one bundle's answers earn, and how much of them the draws saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(description="Items taken per answer.")
    interval: tuple[float, float]
    reached: float = Field(description="Share of its items that could be drawn, about 1 where all could.")
    effective_users: float = Field(description="Users of equal weight that would know as much.")


class Preread(BaseModel):
    """Champion and other bundle on the same requests of exploring users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    requests: int
    users: int
    champion: Worth
    challenger: Worth
    difference: float = Field(description="Items taken per answer, challenger less champion.")
    interval: tuple[float, float] = Field(description="Of the difference, for one look.")
    verdict: Literal["better", "worse", "undecided", "cannot tell"]
    sentence: str


def preread(
    drawn: pl.DataFrame,
    answers: pl.DataFrame,
    *,
    alpha: float = 0.05,
    min_effective: float = MIN_EFFECTIVE,
    min_reached: float = MIN_REACHED,
) -> Preread:
    """Return the worth of the champion's best answers and of another bundle's, both from the same drawn items.

    Args:
        drawn: a row an item shown: `request_id`, `user_id`, `item_id`, `rank` among the candidates (0 is best),
            `propensity`, `taken` (0 or 1).
        answers: the other bundle's answers: `request_id`, `item_ids`. Requests in only one of the tables are left out.
        min_effective: below so many users of equal weight it cannot tell.
        min_reached: nor below such a share of the other bundle's items that could be drawn.

    Raises:
        UsageError: no request is in both tables, or a propensity is no chance.
    """
    shown = drawn.join(answers.select("request_id"), on="request_id", how="semi")
    if shown.is_empty():
        raise UsageError(
            f"none of {drawn['request_id'].n_unique()} requests with a drawn answer has an answer of the other bundle"
        )
    if shown.filter(~pl.col("propensity").is_between(0, 1, closed="right")).height:
        raise UsageError("a propensity lies in (0, 1]; this log has others")
    people = shown.select("request_id", "user_id", size=pl.len().over("request_id")).unique("request_id")
    own = shown.select("request_id", "item_id").filter(shown["rank"] < pl.len().over("request_id"))
    # Of the champion's best answer only the items that were drawn have a row; it has as many items as were shown.
    champion = _by_user(shown, own, people)
    wanted = answers.join(people.select("request_id"), on="request_id", how="semi")
    sizes = people.drop("size").join(wanted.select("request_id", size=pl.col("item_ids").list.len()), on="request_id")
    other = wanted.select("request_id", item_id="item_ids").explode("item_id").drop_nulls()
    challenger = _by_user(shown, other, sizes)
    requests = people.height
    first, first_parts = _worth(champion, requests, alpha)
    second, second_parts = _worth(challenger, requests, alpha)
    difference, error = second.value - first.value, _error(second_parts - first_parts)
    reach = float(norm.ppf(1 - alpha / 2)) * error
    interval = (difference - reach, difference + reach)
    verdict, sentence = _verdict(first, second, difference, interval, min_effective, min_reached)
    return Preread(
        requests=requests,
        users=champion.height,
        champion=first,
        challenger=second,
        difference=difference,
        interval=interval,
        verdict=verdict,
        sentence=sentence,
    )


def _by_user(shown: pl.DataFrame, wanted: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Return, by user, the weights of the wanted items that were shown, what they earned, and how many are wanted."""
    hit = wanted.unique().join(
        shown.select("request_id", "item_id", "propensity", "taken"), on=["request_id", "item_id"]
    )
    weighed = hit.group_by("request_id").agg(
        weight=(1 / pl.col("propensity")).sum(), earned=(pl.col("taken") / pl.col("propensity")).sum()
    )
    return (
        people.join(weighed, on="request_id", how="left")
        .group_by("user_id")
        .agg(pl.col("weight", "earned", "size").fill_null(0).sum())
        .sort("user_id")
    )


def _worth(users: pl.DataFrame, requests: int, alpha: float) -> tuple[Worth, NDArray[np.float64]]:
    """Return a bundle's worth, and each user's part in its error (delta method of a ratio of sums)."""
    weight, earned, size = (users[name].to_numpy().astype(np.float64) for name in ("weight", "earned", "size"))
    total, slots = weight.sum(), size.sum() / requests
    rate = earned.sum() / total if total else 0.0
    parts = slots * (earned - rate * weight) / total if total else np.zeros_like(weight)
    reach = float(norm.ppf(1 - alpha / 2)) * _error(parts)
    value = float(rate * slots)
    found = Worth(
        value=value,
        interval=(value - reach, value + reach),
        reached=float(total / size.sum()) if size.sum() else 0.0,
        effective_users=float(total**2 / (weight**2).sum()) if total else 0.0,
    )
    return found, parts


def _error(parts: NDArray[np.float64]) -> float:
    users = len(parts)
    return sqrt(float((parts**2).sum()) * users / (users - 1)) if users > 1 else float("inf")


def _verdict(
    champion: Worth,
    challenger: Worth,
    difference: float,
    interval: tuple[float, float],
    min_effective: float,
    min_reached: float,
) -> tuple[Literal["better", "worse", "undecided", "cannot tell"], str]:
    effective = min(champion.effective_users, challenger.effective_users)
    if effective < min_effective:
        return "cannot tell", (
            f"Cannot tell: the draws know as much as {effective:,.0f} users of equal weight, {min_effective:,.0f} are "
            "needed; explore longer, with more users, or at a lower temperature."
        )
    if challenger.reached < min_reached:
        return "cannot tell", (
            f"Cannot tell: about {challenger.reached:.0%} of the other bundle's items could be drawn at all, "
            f"{min_reached:.0%} are needed; what the rest is worth was never seen. Draw from more candidates, or run "
            "the experiment."
        )
    seen = f"{difference:+.4f} items taken per answer [{interval[0]:+.4f}, {interval[1]:+.4f}]"
    if interval[0] > 0:
        return "better", f"The other bundle's answers look better than the champion's: {seen}. An experiment decides."
    if interval[1] < 0:
        return "worse", f"The other bundle's answers look worse than the champion's: {seen}."
    return "undecided", f"No difference is shown: {seen} holds zero."
