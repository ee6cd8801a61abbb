"""The steps from events to a bundle on a small catalogue, one after the other and without a pipeline."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from components.align_model.run import run as align
from components.embed_items.run import run as embed
from components.package_bundle.run import run as package
from components.train_codebook.run import run as codebook
from components.train_model.run import run as train
from components.write_corpus.run import run as prepare
from sidrec.recipe import Recipe, parse_recipe
from sidrec.recommender import Answer, Recommender, Request
from tests.codebook_world import titled_items

ROOT = Path(__file__).parents[1]
DAY = 86_400


def smaller(name: str, changes: dict[str, dict[str, Any]]) -> Recipe:
    """Return a shipped recipe whose sections are changed."""
    values = yaml.safe_load((ROOT / "pipelines/recipes" / f"{name}.yaml").read_text())
    for section, change in changes.items():
        values[section] |= change
    return parse_recipe(yaml.safe_dump(values))


def write_inputs(recipe: Recipe, folder: Path) -> dict[str, Path]:
    """Write 72 items, baskets of 24 users and the training rows of the last days before the gate window."""
    items = titled_items()
    items.write_parquet(folder / "items")
    baskets, training = baskets_of(recipe, items["item_id"].to_list())
    baskets.write_parquet(folder / "baskets")
    training.write_parquet(folder / "training_set")
    return {name: folder / name for name in ("items", "baskets", "training_set")}


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


def steps(recipe: Recipe, folder: Path, inputs: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return every step's outputs by name, and every step's summary."""
    outputs = dict(inputs)
    said: dict[str, Any] = {}
    for name, step, written in [
        ("embed", embed, ("vectors", "embedder")),
        ("codebook", codebook, ("codebook", "decision")),
        ("prepare", prepare, ("prepared",)),
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


def with_new_items(outputs: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Return the inputs of a second run, which finds the first one's bundle live and two items more."""
    items = pl.read_parquet(outputs["items"])
    more = items[:2].with_columns(
        item_id=pl.Series(["new0", "new1"]), title=pl.Series(["RED CANDLE NO 3", "BLUE TEA TOWEL NO 9"])
    )
    pl.concat([items, more]).write_parquet(folder / "items")
    bundle = outputs["bundle"]
    live = {"champion": bundle, "carry_from": bundle, "frozen": bundle / "embedder"}
    return {name: outputs[name] for name in ("baskets", "training_set")} | live | {"items": folder / "items"}


def checked_answers(recommender: Recommender, recipe: Recipe) -> list[Answer]:
    """Ask for a known history, one that is half known and none, and return the answers, each as it must be."""
    now = recipe.as_of_time
    answers = recommender.recommend(
        [
            Request(("i001", "i002"), (now - 9 * DAY, now - 2 * DAY), k=5, exclude_seen=True),
            Request(("i003", "unheard-of"), (), k=7),
            Request((), (), k=3),
        ]
    )

    assert [answer.source for answer in answers] == ["model", "model", "cold"]
    assert [len(set(answer.item_ids)) for answer in answers] == [5, 7, 3]
    assert not {"i001", "i002"} & set(answers[0].item_ids)
    for answer in answers:
        expected = [list(recommender.catalog.encode(item)) for item in answer.item_ids]
        assert answer.semantic_ids.tolist() == expected
    return answers
