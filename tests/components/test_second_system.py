"""The second system goes through the same steps: events to a bundle that answers, and new items without a new fit."""

from pathlib import Path
from typing import Any

import pytest

from sidrec import files
from sidrec.recipe import Recipe
from sidrec.recommender import Recommender, Request
from tests.step_world import checked_answers, smaller, steps, with_new_items, write_inputs

SMALL: dict[str, dict[str, Any]] = {
    "codebook": {"num_levels": 3, "codebook_size": 8, "code_dim": 4, "hidden_dims": [8], "batch_size": 32},
    "training": {"epochs": 2, "batch_users": 8},
    "alignment": {"rounds": 1, "users_per_round": 16, "batch_users": 8, "group_size": 4},
    "model": {"num_categories": 6},
    "embedding": {"dim": 12, "min_document_count": 1},
    "gates": {"max_collision_rate": 1.0, "min_utilisation": 0.0},
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The debug recipe, made smaller still."""
    return smaller("reg4rec_debug", SMALL)


@pytest.fixture(scope="module")
def made(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Any]]:
    """Every step's outputs by name, and every step's summary."""
    folder = tmp_path_factory.mktemp("steps")
    return steps(recipe, folder, write_inputs(recipe, folder))


def test_the_bundle_answers_with_slots_as_semantic_ids(
    recipe: Recipe, made: tuple[dict[str, Path], dict[str, Any]]
) -> None:
    """The recommender that serves opens it; codes are the slots of the catalogue, none of them missing."""
    outputs, said = made
    recommender = Recommender.open(outputs["bundle"])
    answers = checked_answers(recommender, recipe)

    assert recommender.kind == "reg4rec"
    for answer in answers:
        assert answer.semantic_ids.shape == (len(answer.item_ids), 3)
        assert (answer.semantic_ids >= 0).all()
    assert said["codebook"]["codes"] == 3


def test_the_alignment_says_what_it_kept(made: tuple[dict[str, Path], dict[str, Any]]) -> None:
    outputs, said = made
    summary = said["align"]
    aligned = files.read_json(outputs["model_aligned"] / "model.json")["aligned"]

    assert summary["kept"] in ("aligned", "supervised")
    assert aligned is (summary["kept"] == "aligned")
    assert len(summary["rounds"]) == 1


def test_fewer_beams_make_a_degraded_answer(made: tuple[dict[str, Path], dict[str, Any]]) -> None:
    recommender = Recommender.open(made[0]["bundle"])
    [answer] = recommender.recommend([Request(("i003",), (), k=5)], beam_width=2)

    assert answer.source == "degraded"
    assert answer.beam_width == 2


def test_new_items_are_appended_and_every_weight_stays(
    recipe: Recipe, made: tuple[dict[str, Path], dict[str, Any]], tmp_path: Path
) -> None:
    """The second run finds the first one's bundle live: codes for the new items, weights carried, not aligned again."""
    outputs, _ = made
    again, said = steps(recipe, tmp_path, with_new_items(outputs, tmp_path))
    recommender = Recommender.open(again["bundle"])
    [answer] = recommender.recommend([Request(("new0",), (), k=100)])

    assert said["codebook"]["verb"] == "append"
    assert (said["train"]["training"], said["train"]["new_items"]) == ("carry", 2)
    assert ("aligned already" in said["align"].get("skipped", "")) is (
        files.read_json(outputs["model_aligned"] / "model.json")["aligned"]
    )
    assert {"new0", "new1"} <= set(recommender.catalog.item_ids)
    assert answer.known_items == 1
