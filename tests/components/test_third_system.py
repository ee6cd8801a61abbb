"""The third system goes through the same steps, its model a folder: events to a bundle that answers, and new items."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidrec import files
from sidrec.bundle import open_bundle
from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.recipe import Recipe
from sidrec.recommender import Recommender, Request
from sidrec.systems.sidreasoner.vocab import SidVocab
from tests.step_world import checked_answers, smaller, steps, with_new_items, write_inputs

SMALL: dict[str, dict[str, Any]] = {
    "codebook": {"codebook_size": 8, "code_dim": 4, "hidden_dims": [8], "batch_size": 32},
    "corpus": {"items": 6, "histories": 6},
    "training": {"rows_per_task": 8, "tokens_per_batch": 2048},
    "search": {"max_rationale_tokens": 4},
    "embedding": {"dim": 12, "min_document_count": 1},
    "gates": {"max_collision_rate": 1.0, "min_utilisation": 0.0},
}
Made = tuple[dict[str, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The debug recipe, made smaller still."""
    return smaller("sidreasoner_debug", SMALL)


@pytest.fixture(scope="module")
def made(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every step's outputs by name, and every step's summary."""
    folder = tmp_path_factory.mktemp("steps")
    return steps(recipe, folder, write_inputs(recipe, folder))


def test_the_bundle_answers_with_words_of_the_catalogue(recipe: Recipe, made: Made) -> None:
    """The recommender that serves opens it, thinks where it is not sure, and names items by the catalogue's codes."""
    outputs, said = made
    recommender = Recommender.open(outputs["bundle"])
    checked_answers(recommender, recipe)

    assert recommender.kind == "sidreasoner"
    assert set(said["train"]) >= {"parameters", "epochs", "loss", "corpus", "stage_1", "stage_2a"}


def test_a_bundle_holds_the_language_models_files_and_no_log(made: Made) -> None:
    """Each by its path; the log stays with the model, where people and studies read it."""
    outputs, _ = made
    names = set(open_bundle(outputs["bundle"]).manifest["files"])

    assert {name for name in names if name.startswith("language_model/")} == {
        f"language_model/{path.name}" for path in (outputs["model"] / "language_model").iterdir()
    }
    assert {"model.json", "language_model/model.safetensors", "language_model/tokenizer.json"} <= names
    assert "training_log.jsonl" not in names
    stages = [json.loads(line)["stage"] for line in (outputs["model"] / "training_log.jsonl").read_text().splitlines()]
    assert stages == ["stage_1", "stage_2a"]


def test_a_changed_file_of_the_language_model_is_refused_by_name(made: Made, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(made[0]["bundle"], copy)
    (copy / "language_model" / "tokenizer.json").write_text("{}")

    with pytest.raises(BundleError, match=r"language_model/tokenizer\.json .* was altered"):
        Recommender.open(copy)


def test_equal_fits_make_equal_bundle_ids(recipe: Recipe, made: Made, tmp_path: Path) -> None:
    """All steps again elsewhere, and not a byte of the bundle differs."""
    again, _ = steps(recipe, tmp_path, write_inputs(recipe, tmp_path))

    assert open_bundle(again["bundle"]).sha256 == open_bundle(made[0]["bundle"]).sha256


def test_new_items_are_appended_and_every_weight_stays(recipe: Recipe, made: Made, tmp_path: Path) -> None:
    """The second run finds the first one's bundle live: the new items' words are known, the names are the new ones."""
    outputs, _ = made
    again, said = steps(recipe, tmp_path, with_new_items(outputs, tmp_path))
    recommender = Recommender.open(again["bundle"])
    [answer] = recommender.recommend([Request(("new0",), (), k=100)], beam_width=100)
    weights = "language_model/model.safetensors"
    header = files.read_json(again["bundle"] / "model.json")
    catalog = Catalog.read(again["bundle"] / "catalogue.parquet")

    assert said["codebook"]["verb"] == "append"
    assert "carried" in said["prepare"]["skipped"]
    assert (said["train"]["training"], said["train"]["new_items"]) == ("carry", 2)
    assert {"new0", "new1"} <= set(recommender.catalog.item_ids)
    assert answer.known_items == 1
    assert files.sha256_file(again["bundle"] / weights) == files.sha256_file(outputs["bundle"] / weights)
    assert header["fingerprint"] == SidVocab(tuple(catalog.item_ids), catalog.codes, tuple(header["sizes"])).fingerprint


def test_a_refresh_within_its_budget_is_fine_tuned_from_the_live_model(
    recipe: Recipe, made: Made, tmp_path: Path
) -> None:
    """The corpus is written again, since it names items by semantic IDs, and the bundle answers by the new ones."""
    refresh = {"lifecycle": {"verb": "refresh", "churn_budget": 0.5}}
    again, said = steps(smaller("sidreasoner_debug", SMALL | refresh), tmp_path, with_new_items(made[0], tmp_path))
    recommender = Recommender.open(again["bundle"])
    [answer] = recommender.recommend([Request(("new0",), (), k=5)])
    header = files.read_json(again["model"] / "model.json")
    catalog = Catalog.read(again["bundle"] / "catalogue.parquet")

    assert (said["codebook"]["verb"], said["train"]["training"]) == ("refresh", "fine_tune")
    assert said["train"]["from"] == open_bundle(made[0]["bundle"]).bundle_id
    assert said["prepare"]["texts"]["weave_item"]["requests"] == 6
    assert header["fingerprint"] == SidVocab(tuple(catalog.item_ids), catalog.codes, tuple(header["sizes"])).fingerprint
    assert answer.known_items == 1
    assert len(answer.item_ids) == 5
