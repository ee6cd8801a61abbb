"""The second system goes through the same steps: events to a bundle that answers, and new items without a new fit."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from components.align_model.run import run as align
from components.embed_items.run import run as embed
from components.package_bundle.run import run as package
from components.train_codebook.run import run as codebook
from components.train_model.run import run as train
from sidrec import files
from sidrec.recipe import Recipe, parse_recipe
from sidrec.recommender import Recommender, Request
from tests.codebook_world import titled_items

DAY = 86_400
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
    root = Path(__file__).parents[2]
    values = yaml.safe_load((root / "pipelines/recipes/reg4rec_debug.yaml").read_text())
    for section, change in SMALL.items():
        values[section] |= change
    return parse_recipe(yaml.safe_dump(values))


def baskets_of(recipe: Recipe, items: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return baskets of neighbours, some in the gate window, and the training rows of the last days before it."""
    rng = np.random.default_rng(0)
    rows, training = [], []
    for user in range(24):
        history: list[tuple[date, list[str]]] = []
        for offset in (-80, -50, -20, -9, 5):
            day = recipe.gate_start + timedelta(days=offset)
            first = int(rng.integers(len(items) - 3))
            bought = items[first : first + 3]
            rows.append({"user_id": f"u{user:02d}", "day": day, "time": 0, "item_ids": bought})
            if offset in (-20, -9):
                training.append(
                    {
                        "user_id": f"u{user:02d}",
                        "day": day,
                        "history_item_ids": [item for _, basket in history for item in basket],
                        "history_times": [(past - date(1970, 1, 1)).days * DAY for past, b in history for _ in b],
                        "target_item_ids": bought,
                    }
                )
            history.append((day, bought))
    return pl.DataFrame(rows).sort("user_id", "day"), pl.DataFrame(training)


@pytest.fixture(scope="module")
def made(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Any]]:
    """Every step's outputs by name, and every step's summary."""
    folder = tmp_path_factory.mktemp("steps")
    items = titled_items()
    items.write_parquet(folder / "items")
    baskets, training = baskets_of(recipe, items["item_id"].to_list())
    baskets.write_parquet(folder / "baskets")
    training.write_parquet(folder / "training_set")
    return steps(recipe, folder, {name: folder / name for name in ("items", "baskets", "training_set")})


def steps(recipe: Recipe, folder: Path, inputs: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Any]]:
    outputs = dict(inputs)
    said: dict[str, Any] = {}
    for name, step, written in [
        ("embed", embed, ("vectors", "embedder")),
        ("codebook", codebook, ("codebook", "decision")),
        ("train", train, ("model",)),
        ("align", align, ("model_aligned",)),
        ("package", package, ("bundle",)),
    ]:
        work = folder / name
        work.mkdir(parents=True, exist_ok=True)
        given = outputs | ({"model": outputs["model_aligned"]} if name == "package" else {})
        said[name] = step(recipe, given, work)
        outputs |= {output: work / output for output in written}
    return outputs, said


def test_the_bundle_answers_with_slots_as_semantic_ids(
    recipe: Recipe, made: tuple[dict[str, Path], dict[str, Any]]
) -> None:
    """The recommender that serves opens it; codes are the slots of the catalogue, none of them missing."""
    outputs, said = made
    recommender = Recommender.open(outputs["bundle"])
    now = recipe.as_of_time
    answers = recommender.recommend(
        [
            Request(("i001", "i002"), (now - 9 * DAY, now - 2 * DAY), k=5, exclude_seen=True),
            Request(("i003", "unheard-of"), (), k=7),
            Request((), (), k=3),
        ]
    )

    assert recommender.kind == "reg4rec"
    assert [answer.source for answer in answers] == ["model", "model", "cold"]
    assert [len(set(answer.item_ids)) for answer in answers] == [5, 7, 3]
    assert not {"i001", "i002"} & set(answers[0].item_ids)
    for answer in answers:
        assert answer.semantic_ids.shape == (len(answer.item_ids), 3)
        assert (answer.semantic_ids >= 0).all()
        expected = [list(recommender.catalog.encode(item)) for item in answer.item_ids]
        assert answer.semantic_ids.tolist() == expected
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
    items = pl.read_parquet(outputs["items"])
    more = items[:2].with_columns(
        item_id=pl.Series(["new0", "new1"]), title=pl.Series(["RED CANDLE NO 3", "BLUE TEA TOWEL NO 9"])
    )
    pl.concat([items, more]).write_parquet(tmp_path / "items")
    bundle = outputs["bundle"]
    live = {"champion": bundle, "carry_from": bundle, "frozen": bundle / "embedder"}
    inputs = {name: outputs[name] for name in ("baskets", "training_set")} | live | {"items": tmp_path / "items"}
    again, said = steps(recipe, tmp_path, inputs)
    recommender = Recommender.open(again["bundle"])
    [answer] = recommender.recommend([Request(("new0",), (), k=100)])

    assert said["codebook"]["verb"] == "append"
    assert (said["train"]["training"], said["train"]["new_items"]) == ("carry", 2)
    assert ("aligned already" in said["align"].get("skipped", "")) is (
        files.read_json(outputs["model_aligned"] / "model.json")["aligned"]
    )
    assert {"new0", "new1"} <= set(recommender.catalog.item_ids)
    assert answer.known_items == 1
