"""The step fits on the fit period only, and what it writes answers."""

import hashlib
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from components.align_model.run import run as align
from components.train_model.run import run as train
from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import encoder_of
from sidrec.quantization.quantizer import Quantizer
from sidrec.recipe import Recipe, parse_recipe
from sidrec.recommender import Recommender, Request

DAY = 86_400


@pytest.fixture
def recipe(project_root: Path) -> Recipe:
    """The debug recipe, cut to two steps a training."""
    values = yaml.safe_load((project_root / "pipelines/recipes/s2gr_debug.yaml").read_text())
    values["training"] |= {"epochs": 1, "held_out_epochs": 1, "batch_users": 8}
    values["codebook"] |= {"codebook_size": 8, "code_dim": 4, "hidden_dims": [8], "num_clusters": 3}
    return parse_recipe(yaml.safe_dump(values))


@pytest.fixture
def inputs(tmp_path: Path, recipe: Recipe) -> dict[str, Path]:
    """16 users, 40 items; half of the baskets lie in the gate window, with items the fit period also has."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    items = [f"i{row:02d}" for row in range(40)]
    rows, training = [], []
    for user in range(16):
        history: list[tuple[date, list[str]]] = []
        for offset in (-80, -50, -20, 5, 12):
            day = recipe.gate_start + timedelta(days=offset)
            bought = sorted(rng.choice(items, size=4, replace=False).tolist())
            rows.append({"user_id": f"u{user:02d}", "day": day, "time": 0, "item_ids": bought})
            if offset == -20:
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
    pl.DataFrame(rows).write_parquet(folder / "baskets")
    pl.DataFrame(training).write_parquet(folder / "training_set")
    codebook = folder / "codebook"
    config = CodebookConfig(codebook_size=8, code_dim=4, hidden_dims=(8,))
    Codebook(config, Quantizer("rqvae", torch.randn(3, 8, 4), encoder_of(config, 6)), 6, "test").save(codebook)
    codes = np.stack([np.arange(40) // 8, np.arange(40) % 8, rng.integers(0, 8, 40)], axis=1).astype(np.int32)
    table = pl.DataFrame({"item_id": items, "title": items, "popularity": [5] * 40, "recent_popularity": [1] * 40})
    Catalog.build(table, codes).write(codebook / "catalogue.parquet")
    return {name: folder / name for name in ("baskets", "training_set", "codebook")}


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "weights.safetensors").read_bytes()).hexdigest()


def test_two_steps_give_a_model_that_answers(recipe: Recipe, inputs: dict[str, Path], tmp_path: Path) -> None:
    """The debug recipe trains, aligns by doing nothing, and recommends distinct real items."""
    summary = train(recipe, inputs, tmp_path / "step")
    skipped = align(recipe, inputs | {"model": tmp_path / "step" / "model"}, tmp_path / "aligned")
    recommender = Recommender.from_parts(
        bundle_id="b-000000000000",
        recipe=recipe,
        catalog=Catalog.read(inputs["codebook"] / "catalogue.parquet"),
        weights=tmp_path / "aligned" / "model_aligned",
        decode={"as_of_time": recipe.as_of_time, "beam_width": recipe.decoding.beam_width},
    )
    now = recipe.as_of_time
    answers = recommender.recommend(
        [
            Request(("i01", "i02"), (now - 9 * DAY, now - 2 * DAY), k=5, exclude_seen=True),
            Request(("i03", "unheard-of"), (), k=7),
            Request((), (), k=3),
        ]
    )

    assert summary["rows"] == 48
    assert summary["epochs"] == 1
    assert skipped == {"skipped": "s2gr has no alignment stage"}
    assert [answer.source for answer in answers] == ["model", "model", "cold"]
    assert [len(set(answer.item_ids)) for answer in answers] == [5, 7, 3]
    assert not {"i01", "i02"} & set(answers[0].item_ids)
    assert answers[1].known_items == 1


def test_the_gate_window_never_reaches_a_weight(recipe: Recipe, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Other baskets on and after the gate's first day give the same weights to the last bit."""
    train(recipe, inputs, tmp_path / "a")
    baskets = pl.read_parquet(inputs["baskets"])
    late = pl.col("day") >= recipe.gate_start
    changed = baskets.with_columns(pl.when(late).then(pl.lit(["i00"])).otherwise(pl.col("item_ids")).alias("item_ids"))
    changed.write_parquet(inputs["baskets"])
    train(recipe, inputs, tmp_path / "b")

    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_an_early_basket_does_reach_the_weights(recipe: Recipe, inputs: dict[str, Path], tmp_path: Path) -> None:
    """The control: the same change a day before the gate window gives other weights."""
    train(recipe, inputs, tmp_path / "a")
    baskets = pl.read_parquet(inputs["baskets"])
    early = pl.col("day") < recipe.gate_start - timedelta(days=10)
    changed = baskets.with_columns(pl.when(early).then(pl.lit(["i00"])).otherwise(pl.col("item_ids")).alias("item_ids"))
    changed.write_parquet(inputs["baskets"])
    train(recipe, inputs, tmp_path / "b")

    assert weights(tmp_path / "a") != weights(tmp_path / "b")
