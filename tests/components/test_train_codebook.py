"""`train_codebook` gives every item a semantic ID of its own and reports the codebook's health."""

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.embed_items.run import run as embed
from components.train_codebook.gates import codebook_gates, identity_gate
from components.train_codebook.run import run
from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.evaluation.config import GateConfig
from sidrec.evaluation.gates import GateResult
from sidrec.quantization.health import codebook_health, sid_health
from sidrec.recipe import Recipe, load_recipe
from sidrec.systems.s2gr.codebook import S2GRCodebook

COLOURS = ("RED", "PINK", "BLUE", "GREEN", "IVORY", "GOLD", "SILVER", "BLACK")
THINGS = ("MUG", "TEA TOWEL", "LUNCH BOX", "GARDEN TROWEL", "PAPER CHAIN", "CANDLE", "BAUBLE", "NAPKINS", "CUSHION")
GATES = GateConfig(floor="global_popularity")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """72 items, two of them with equal titles, and baskets of one kind of thing, some in the gate window."""
    titles = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    titles[1] = titles[0]
    item_ids = [f"i{row:02d}" for row in range(len(titles))]
    random = np.random.default_rng(0)
    baskets = []
    for row in range(200):
        kind = int(random.integers(len(THINGS)))
        chosen = random.choice(len(COLOURS), size=3, replace=False) * len(THINGS) + kind
        day = date(2010, 6, 1) + timedelta(days=int(random.integers(0, 180)))
        baskets.append({"user_id": f"u{row % 40}", "day": day, "item_ids": [item_ids[item] for item in chosen]})
    pl.DataFrame(
        {"item_id": item_ids, "title": titles, "popularity": range(72), "recent_popularity": [1] * 72}
    ).write_parquet(tmp_path / "items")
    pl.DataFrame(baskets).sort("user_id", "day").write_parquet(tmp_path / "baskets")
    return {name: tmp_path / name for name in ("items", "baskets", "vectors", "embedder")}


def recipe(root: Path, name: str, **codebook: object) -> Recipe:
    loaded = load_recipe(root / "pipelines" / "recipes" / f"{name}.yaml")[1]
    if not codebook:
        return loaded
    values = loaded.model_dump()
    values["codebook"] |= codebook
    return type(loaded).model_validate(values)


def small(root: Path, **more: object) -> Recipe:
    sizes = {"codebook_size": 8, "num_clusters": 4, "hidden_dims": [32], "code_dim": 8, "epochs": 30, "batch_size": 32}
    return recipe(root, "s2gr_retail", **(sizes | more))


def test_the_folder_holds_all_that_a_bundle_needs(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Catalogue in items' row order, a codebook that loads, the embedder's copy, health with passing gates."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    summary = run(chosen, inputs, tmp_path)
    folder = tmp_path / "codebook"
    catalog, book, health = (
        Catalog.read(folder / "catalogue.parquet"),
        S2GRCodebook.load(folder),
        files.read_json(folder / "health.json"),
    )

    assert sorted(os.listdir(folder)) == [
        "catalogue.parquet", "codebook.json", "codebook.safetensors", "embedder", "health.json",
    ]  # fmt: skip
    assert catalog.item_ids == pl.read_parquet(inputs["items"])["item_id"].to_list()
    assert catalog.popularity.tolist() == list(range(72))
    assert catalog.num_codes == summary["codes"] == 3
    assert book.lineage == files.sha256_tree(inputs["embedder"]) == files.sha256_tree(folder / "embedder")
    gates = [GateResult.model_validate(entry) for entry in health["gates"]]
    assert [gate.name for gate in gates] == ["utilisation", "collision_rate", "uniquely_identified"]
    assert gates[2].result == "pass"
    assert health["collision_rate"] >= 1 / 72  # the two items of one title
    assert health["resolved"]["collision_rate"] == 0


def test_baskets_of_the_gate_window_change_nothing(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Dropping the baskets from gate_start on leaves each byte of the codebook; dropping earlier ones does not."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    run(chosen, inputs, tmp_path)
    whole = files.sha256_tree(tmp_path / "codebook")
    baskets = pl.read_parquet(inputs["baskets"])
    assert (baskets["day"] >= chosen.gate_start).sum() > 10

    baskets.filter(pl.col("day") < chosen.gate_start).write_parquet(inputs["baskets"])
    run(chosen, inputs, tmp_path)
    assert files.sha256_tree(tmp_path / "codebook") == whole

    baskets.filter(pl.col("day") < chosen.gate_start - timedelta(days=60)).write_parquet(inputs["baskets"])
    run(chosen, inputs, tmp_path)
    assert files.sha256_tree(tmp_path / "codebook") != whole


def test_what_a_killed_step_left_is_replaced(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """A stray file of an earlier attempt is gone, so equal inputs make an equal folder."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    run(chosen, inputs, tmp_path)
    whole = files.sha256_tree(tmp_path / "codebook")
    (tmp_path / "codebook" / "codebook.safetensors").write_bytes(b"half")
    (tmp_path / "codebook" / "stray.tmp").write_bytes(b"stray")
    run(chosen, inputs, tmp_path)

    assert files.sha256_tree(tmp_path / "codebook") == whole


def test_an_overfull_prefix_gets_a_disambiguation_code(
    project_root: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """72 items on 2 x 2 codes cannot all differ: a third code tells them apart, and the gates say fail."""
    chosen = small(project_root, codebook_size=2, num_levels=2, num_clusters=1)
    embed(chosen, inputs, tmp_path)
    summary = run(chosen, inputs, tmp_path)
    catalog = Catalog.read(tmp_path / "codebook" / "catalogue.parquet")

    assert catalog.num_codes == 3
    assert [catalog.decode(catalog.encode(item)) for item in catalog.item_ids] == catalog.item_ids
    assert summary["gates"] == {"utilisation": "pass", "collision_rate": "fail", "uniquely_identified": "pass"}


def test_vectors_of_another_catalogue_are_refused(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """A row count that differs is named before anything is trained."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    pl.read_parquet(inputs["items"]).head(70).write_parquet(inputs["items"])

    with pytest.raises(CheckFailedError, match="72 vectors for 70 items"):
        run(chosen, inputs, tmp_path)


def test_popularity_numbers_its_items(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """The only code is the item index; the summary says why, and the one gate that applies passes."""
    chosen = recipe(project_root, "popularity_retail")
    embed(chosen, inputs, tmp_path)
    summary = run(chosen, inputs, tmp_path)
    catalog = Catalog.read(tmp_path / "codebook" / "catalogue.parquet")
    health = files.read_json(tmp_path / "codebook" / "health.json")

    assert "popularity" in summary["skipped"]
    assert catalog.codes[:, 0].tolist() == list(range(72))
    assert [(gate["name"], gate["result"]) for gate in health["gates"]] == [("uniquely_identified", "pass")]


def test_gates_judge_the_weakest_level_and_the_raw_collisions() -> None:
    """Two of four codes used at level 1, six items on five semantic IDs: both fail with their numbers, then pass."""
    codes = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [0, 1]])
    quantized = codebook_health(codes, 4)
    utilisation, collisions = codebook_gates(quantized, GATES)

    assert (utilisation.result, utilisation.observed, utilisation.threshold) == ("fail", 0.5, 0.8)
    assert utilisation.slices == {"level_0": 1.0, "level_1": 0.5}
    assert "1, uses 50.0%" in utilisation.sentence
    assert (collisions.result, round(collisions.observed, 4), collisions.n) == ("fail", 0.1667, 6)
    lenient = GATES.model_copy(update={"min_utilisation": 0.5, "max_collision_rate": 0.17})
    assert [gate.result for gate in codebook_gates(quantized, lenient)] == ["pass", "pass"]
    assert identity_gate(sid_health(codes)).result == "fail"


@pytest.mark.slow
def test_retail_items_get_a_healthy_codebook(project_root: Path, tmp_path: Path) -> None:
    """The shipped data, from raw events on: every level uses 90 % of its codes, collisions stay below 10 %."""
    from components.build_sequences.run import run as build
    from components.validate_events.run import run as validate

    chosen = recipe(project_root, "s2gr_retail")
    chosen = chosen.model_copy(
        update={"data": chosen.data.model_copy(update={"events": project_root / chosen.data.events})}
    )
    validate(chosen, {}, tmp_path)
    build(chosen, {name: tmp_path / name for name in ("events", "sales", "items_raw")}, tmp_path)
    shutil.rmtree(tmp_path / "data_docs", ignore_errors=True)
    embed(chosen, {"items": tmp_path / "items"}, tmp_path)
    summary = run(chosen, {name: tmp_path / name for name in ("items", "baskets", "vectors", "embedder")}, tmp_path)

    assert summary["rows"] == 4015
    assert summary["min_utilisation"] >= 0.9
    assert summary["collision_rate"] <= 0.10
    assert summary["codes"] == 3
