"""The pre-read finds what other answers are worth in a world where that is known, and says when it cannot."""

from itertools import pairwise, permutations
from math import factorial
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom, norm

from sidrec.decoding.exploration import draw, inclusion_probs
from sidrec.errors import UsageError
from sidrec.experiment.preread import Preread, preread
from tests.sidrec.decoding.test_exploration import Dealt

K, ITEMS, CONTEXTS = 2, 6, 3
WORLD = np.random.default_rng(7)
# Of each context: what the champion thinks of the items, what another model thinks, and the truth.
SCORES = -np.sort(-WORLD.normal(-2, 0.7, (CONTEXTS, ITEMS)), axis=1).astype(np.float32)
OTHER = WORLD.normal(0, 1, (CONTEXTS, ITEMS))
TAKEN = WORLD.uniform(0.05, 0.5, (CONTEXTS, ITEMS))
BEST = np.argsort(-OTHER, axis=1)[:, :K]
PROBS = [inclusion_probs(scores, K, 1.0) for scores in SCORES]
CHAMPION = float(TAKEN[:, :K].sum(axis=1).mean())
CHALLENGER = float(np.take_along_axis(TAKEN, BEST, axis=1).sum(axis=1).mean())


def logged(requests: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drawn answers with what was taken from them, and the other model's answers; two requests a user."""
    generator = np.random.default_rng(seed)
    contexts = generator.integers(0, CONTEXTS, requests)
    rows = np.array([draw(PROBS[context], generator) for context in contexts])
    chances = np.array([PROBS[context][row] for context, row in zip(contexts, rows, strict=True)])
    taken = generator.random(rows.shape) < TAKEN[contexts[:, None], rows]
    request = np.repeat(np.arange(requests), K)
    drawn = pl.DataFrame(
        {
            "request_id": request,
            "user_id": request // 2,
            "item_id": rows.ravel(),
            "rank": rows.ravel(),
            "propensity": chances.ravel(),
            "taken": taken.ravel().astype(np.int64),
        }
    )
    return drawn, pl.DataFrame({"request_id": np.arange(requests), "item_ids": BEST[contexts].tolist()})


def found(requests: int = 3000, seed: int = 0, **changes: Any) -> Preread:
    return preread(*logged(requests, seed), **changes)


@pytest.fixture(scope="module")
def looks() -> list[Preread]:
    return [found(600, seed) for seed in range(120)]


def test_the_known_worth_is_in_the_interval_as_often_as_it_says(looks: list[Preread]) -> None:
    """Of 120 logs, at most the 99 % binomial bound of 5 % miss the champion's worth, the other's, the difference."""
    truths = {
        "champion": [(one.champion.interval, CHAMPION) for one in looks],
        "challenger": [(one.challenger.interval, CHALLENGER) for one in looks],
        "difference": [(one.interval, CHALLENGER - CHAMPION) for one in looks],
    }
    missed = {name: sum(not low <= truth <= high for (low, high), truth in rows) for name, rows in truths.items()}

    assert max(missed.values()) <= binom.ppf(0.99, len(looks), 0.05), missed


def test_the_intervals_are_as_wide_as_the_estimates_scatter(looks: list[Preread]) -> None:
    """Neither too narrow nor needlessly wide: three standard errors of a standard deviation of 120 values."""
    scatter = np.std([[one.champion.value, one.challenger.value, one.difference] for one in looks], axis=0, ddof=1)
    widths = [(one.champion.interval, one.challenger.interval, one.interval) for one in looks]
    said = np.diff(np.array(widths), axis=2).squeeze(2).mean(axis=0) / 2 / norm.ppf(0.975)

    assert said == pytest.approx(scatter, rel=3 / np.sqrt(2 * len(looks)))


def test_more_requests_lead_to_the_truth() -> None:
    """At 30,000 requests all three are within four standard errors, and those are small; weights are needed for it."""
    drawn, answers = logged(30_000, 1)
    look = preread(drawn, answers)
    overlap = drawn.join(
        answers.explode("item_ids"), left_on=["request_id", "item_id"], right_on=["request_id", "item_ids"]
    )
    unweighted = K * float(overlap["taken"].to_numpy().mean())

    assert look.champion.value == pytest.approx(CHAMPION, abs=2 * (look.champion.interval[1] - look.champion.value))
    assert look.challenger.value == pytest.approx(CHALLENGER, abs=0.03)
    assert abs(unweighted - CHALLENGER) > 3 * abs(look.challenger.value - CHALLENGER)
    assert look.challenger.reached == pytest.approx(1, abs=0.05)


def test_a_world_with_a_difference_is_told() -> None:
    """The truth's sign is the verdict, and turned round when the two change places."""
    sign = "better" if CHALLENGER > CHAMPION else "worse"
    look = found(30_000, 1)

    assert abs(CHALLENGER - CHAMPION) > 0.1
    assert look.verdict == sign
    assert f"look {sign}" in look.sentence


def test_equal_answers_differ_by_nothing() -> None:
    """A bundle that answers as the champion has its very worth: a paired difference of zero, without width."""
    drawn, answers = logged(2000, 2)
    same = answers.with_columns(item_ids=pl.lit([0, 1]))
    look = preread(drawn, same)

    assert look.champion == look.challenger
    assert look.interval == pytest.approx((0.0, 0.0), abs=1e-12)
    assert look.verdict == "undecided"


def test_few_draws_cannot_tell() -> None:
    """Below the floor of effective users no number is called a result."""
    look = found(300)

    assert look.challenger.effective_users < 200
    assert look.verdict == "cannot tell"
    assert "200 are needed" in look.sentence


def test_items_that_were_never_drawn_cannot_be_judged() -> None:
    """Half of the other bundle's items are no candidates: the share is seen, and nothing is claimed."""
    drawn, answers = logged(20_000, 3)
    half = answers.with_columns(item_ids=pl.lit([0, 99]))
    look = preread(drawn, half)

    assert look.challenger.reached == pytest.approx(0.5, abs=0.03)
    assert look.verdict == "cannot tell"
    assert "could be drawn at all" in look.sentence


def test_effective_users_are_kish_s() -> None:
    """Two users of weights 1 and 3: (1 + 3)² / (1 + 9) = 1.6."""
    drawn = pl.DataFrame(
        {
            "request_id": ["a", "b"],
            "user_id": ["u", "v"],
            "item_id": ["x", "x"],
            "rank": [0, 0],
            "propensity": [1.0, 1 / 3],
            "taken": [1, 0],
        }
    )
    look = preread(drawn, pl.DataFrame({"request_id": ["a", "b"], "item_ids": [["x"], ["x"]]}))

    assert look.challenger.effective_users == pytest.approx(1.6)
    assert look.challenger.value == pytest.approx(1 / 4)
    assert look.challenger.reached == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "message"), [({"request_id": "z"}, "none of 1 requests"), ({"propensity": 0.0}, r"lies in \(0, 1\]")]
)
def test_logs_that_say_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    """No request in common, or a chance that is none."""
    row = {"request_id": "a", "user_id": "u", "item_id": "x", "rank": 0, "propensity": 0.5, "taken": 1}
    with pytest.raises(UsageError, match=message):
        preread(pl.DataFrame([row | change]), pl.DataFrame({"request_id": ["a"], "item_ids": [["x"]]}))


def test_over_all_draws_the_weighted_sum_is_the_worth_itself() -> None:
    """By enumeration of every order and every place of the comb: no draw is left out, none counts twice."""
    worth = 0.0
    for probs, taken, best in zip(PROBS, TAKEN, BEST, strict=True):
        for order in permutations(range(ITEMS)):
            edges = np.unique(np.r_[0.0, np.cumsum(probs[list(order)]) % 1, 1.0])
            for low, high in pairwise(edges):
                rows = draw(probs, Dealt(order, (low + high) / 2))  # type: ignore[arg-type]
                both = np.intersect1d(rows, best)
                worth += (high - low) / (factorial(ITEMS) * CONTEXTS) * (taken[both] / probs[both]).sum()

    assert worth == pytest.approx(CHALLENGER, abs=1e-12)
