"""A 2×2 tells the codebook's part from the model's, and their sum is the whole change."""

import numpy as np
import polars as pl
import pytest

from sidrec.experiment.attribution import attribute
from sidrec.experiment.plan import Cells, Metric
from tests.experiment_world import PURCHASES, simulated_users

CELLS = Cells(neither="control", codebook="new_codes", model="new_model", both="treatment")
QUARTERS = dict.fromkeys(CELLS.arms, 0.25)
X = Metric(name="x", numerator="x")


def test_parts_are_the_hand_worked_contrasts() -> None:
    """Means 10, 13, 12 and 19: codebook 5, model 4, interaction 4; 5 + 4 is the whole 9."""
    values = {"control": (9, 11), "new_codes": (12, 14), "new_model": (11, 13), "treatment": (17, 21)}
    users = pl.DataFrame([{"arm": arm, "x": x} for arm, pair in values.items() for x in pair])
    result = attribute(users, X, CELLS, alpha=0.05, tuned_for=8)

    assert (result.codebook.change, result.model.change, result.interaction.change) == (5.0, 4.0, 4.0)
    # Variances of the means: 1, 1, 1, 4; a quarter of their sum for a main effect, all of it for the interaction.
    assert (result.codebook.error**2, result.interaction.error**2) == pytest.approx((7 / 4, 7.0))


def test_main_effects_are_those_of_a_regression() -> None:
    """Least squares on the centred factors gives the same three numbers in an even design."""
    generator = np.random.default_rng(0)
    code, model = np.repeat([-0.5, -0.5, 0.5, 0.5], 100), np.tile([-0.5, 0.5], 200)
    x = 3 + 0.7 * code + 0.2 * model + 0.4 * code * model + generator.normal(size=400)
    arms = np.where(
        code > 0, np.where(model > 0, "treatment", "new_codes"), np.where(model > 0, "new_model", "control")
    )
    fitted = np.linalg.lstsq(np.stack([np.ones(400), code, model, code * model], axis=1), x, rcond=None)[0]
    result = attribute(pl.DataFrame({"arm": arms, "x": x}), X, CELLS, alpha=0.05, tuned_for=400)

    assert [result.codebook.change, result.model.change, result.interaction.change] == pytest.approx(list(fitted[1:]))


def test_the_codebook_alone_is_named_when_it_alone_works() -> None:
    """A codebook worth 30 % under both models is shown; the model and the interaction are not."""
    users = simulated_users(40_000, seed=1, shares=QUARTERS, new_codes=0.3, lift=0.3)
    result = attribute(users, PURCHASES, CELLS, alpha=0.05, tuned_for=40_000)

    assert (result.codebook.shown, result.model.shown, result.interaction.shown) == (True, False, False)
    assert result.sentence.endswith("only the codebook's is shown.")


def test_parts_that_need_each_other_are_said_so() -> None:
    """A gain that only the pair has is half the codebook's, half the model's, and an interaction."""
    users = simulated_users(40_000, seed=2, shares=QUARTERS, lift=0.5)
    result = attribute(users, PURCHASES, CELLS, alpha=0.05, tuned_for=40_000)
    low, high = result.codebook.always_valid

    assert low < 0.25 * result.means["control"] < high
    assert result.interaction.shown
    assert "they change each other's effect" in result.sentence
