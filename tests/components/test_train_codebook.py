"""`train_codebook` gives every item a semantic ID of its own and reports the codebook's health."""

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from components.embed_items.run import run as embed
from components.train_codebook.run import run
from sidrec import files
from sidrec.bundle import write_bundle
from sidrec.codebook.artefact import Artefact
from sidrec.codebook.gates import churn_gate, codebook_gates, identity_gate
from sidrec.data.catalog import Catalog
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.errors import CheckFailedError
from sidrec.evaluation.config import GateConfig
from sidrec.evaluation.gates import GateResult
from sidrec.quantization.health import codebook_health, sid_health
from sidrec.recipe import Recipe, load_recipe

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
    for section in ("gates", "lifecycle"):
        values[section] |= codebook.pop(section, {})  # type: ignore[arg-type]
    values["codebook"] |= codebook
    return type(loaded).model_validate(values)


def small(root: Path, **more: object) -> Recipe:
    sizes = {"codebook_size": 8, "num_clusters": 4, "hidden_dims": [32], "code_dim": 8, "epochs": 30, "batch_size": 32}
    gates = {"gates": {"max_collision_rate": 0.95, "min_utilisation": 0.6}}
    return recipe(root, "s2gr_retail", **(sizes | gates | more))


def live(folder: Path) -> Path:
    """Return a bundle of the codebook that a step wrote, as the champion's folder."""
    made = folder / "codebook"
    contents = {f"codebook/{name}": made / name for name in ("codebook.json", "codebook.safetensors", "health.json")}
    contents |= {name: made / name for name in ("catalogue.parquet", "embedder")}
    return write_bundle(folder / "bundle", contents, {}).folder


@pytest.fixture
def champion(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Inputs of a second run, with the first run's bundle live and its embedder frozen."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    run(chosen, inputs, tmp_path)
    bundle = live(tmp_path)
    return {**inputs, "champion": bundle, "carry_from": bundle}


def with_new_items(inputs: dict[str, Path], tmp_path: Path, count: int) -> dict[str, Path]:
    """Add items with titles of words that the frozen embedder knows."""
    items = pl.read_parquet(inputs["items"])
    more = pl.DataFrame(
        {
            "item_id": [f"new{row}" for row in range(count)],
            "title": [f"{COLOURS[row % 8]} {THINGS[(row + 3) % 9]} {THINGS[row % 9]}" for row in range(count)],
            "popularity": [1] * count,
            "recent_popularity": [1] * count,
        },
        schema=items.schema,
    )
    pl.concat([items, more]).write_parquet(tmp_path / "more")
    frozen = {"items": tmp_path / "more", "frozen": inputs["champion"] / "embedder"}
    (tmp_path / "again").mkdir()
    vectors = TextEmbedder.load(frozen["frozen"]).embed(item_texts(pl.read_parquet(tmp_path / "more")))
    safetensors.numpy.save_file({"vectors": vectors}, tmp_path / "again" / "vectors")
    return {
        **inputs, "items": tmp_path / "more", "vectors": tmp_path / "again" / "vectors", "embedder": frozen["frozen"],
    }  # fmt: skip


def test_the_folder_holds_all_that_a_bundle_needs(project_root: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Catalogue in items' row order, a codebook that loads, the embedder's copy, health with passing gates."""
    chosen = small(project_root)
    embed(chosen, inputs, tmp_path)
    summary = run(chosen, inputs, tmp_path)
    folder = tmp_path / "codebook"
    catalog, book, health = (
        Catalog.read(folder / "catalogue.parquet"),
        Artefact.open(folder).codebook,
        files.read_json(folder / "health.json"),
    )

    assert sorted(os.listdir(folder)) == [
        "artefact.json", "catalogue.parquet", "codebook.json", "codebook.safetensors", "embedder", "health.json",
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
    """72 items on 2 x 2 codes cannot all differ: a third code tells them apart."""
    chosen = small(project_root, codebook_size=2, num_levels=2, num_clusters=1)
    embed(chosen, inputs, tmp_path)
    summary = run(chosen, inputs, tmp_path)
    catalog = Catalog.read(tmp_path / "codebook" / "catalogue.parquet")

    assert catalog.num_codes == 3
    assert [catalog.decode(catalog.encode(item)) for item in catalog.item_ids] == catalog.item_ids
    assert summary["gates"]["uniquely_identified"] == "pass"


def test_a_failing_gate_stops_before_anything_is_trained(
    project_root: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """The step fails with the gate's number, and leaves its report and its page as evidence."""
    chosen = small(project_root, codebook_size=2, num_levels=2, num_clusters=1, gates={"max_collision_rate": 0.5})
    embed(chosen, inputs, tmp_path)

    with pytest.raises(CheckFailedError, match="4 distinct semantic IDs for 72 items") as caught:
        run(chosen, inputs, tmp_path)
    assert caught.value.evidence == str(tmp_path / "codebook" / "health.json")
    assert "Plotly" in (tmp_path / "page").read_text()


def test_the_same_items_keep_the_live_codebook_bit_for_bit(
    project_root: Path, champion: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is new: codewords and catalogue are the champion's to the byte, and nothing moved."""
    summary = run(small(project_root), champion, tmp_path)
    bundle = champion["champion"]

    assert (summary["verb"], summary["training"], summary["churn"]) == ("none", "carry", 0.0)
    for name in ("codebook/codebook.safetensors", "codebook/codebook.json"):
        assert (tmp_path / name).read_bytes() == (bundle / name).read_bytes()
    assert (tmp_path / "codebook/catalogue.parquet").read_bytes() == (bundle / "catalogue.parquet").read_bytes()


def test_new_items_are_appended_to_the_live_codebook(
    project_root: Path, champion: dict[str, Path], tmp_path: Path
) -> None:
    """The decision, its reason and the report say so; published rows are equal; nothing of the codebook changes."""
    before = Catalog.read(champion["champion"] / "catalogue.parquet")
    summary = run(small(project_root), with_new_items(champion, tmp_path, 5), tmp_path)
    opened = Artefact.open(tmp_path / "codebook")
    decision = files.read_json(tmp_path / "decision")

    assert (summary["verb"], summary["rows"], summary["churn"]) == ("append", 77, 0.0)
    assert "5 new items" in decision["reason"]
    np.testing.assert_array_equal(opened.catalog.codes[:72], before.codes)
    assert opened.health["verb"] == "append"
    assert opened.health["report"]["residual"]["new"]["n"] == 5


def test_a_refresh_is_a_generation_within_its_budget(
    project_root: Path, champion: dict[str, Path], tmp_path: Path
) -> None:
    """A forced refresh raises the generation, names its parent and passes the churn gate."""
    chosen = small(project_root, lifecycle={"verb": "refresh", "churn_budget": 0.2})
    summary = run(chosen, with_new_items(champion, tmp_path, 8), tmp_path)
    opened = Artefact.open(tmp_path / "codebook")

    assert (summary["verb"], summary["training"], summary["generation"]) == ("refresh", "fine_tune", 2)
    assert summary["churn"] <= 0.2
    assert summary["gates"]["churn"] == "pass"
    assert opened.codebook.parent is not None
    assert "published items moved" in opened.health["sentence"]


def test_another_codebook_setting_is_fitted_anew(project_root: Path, champion: dict[str, Path], tmp_path: Path) -> None:
    """A researcher's change of the recipe is not lost to the live codebook; the reason names it."""
    summary = run(small(project_root, uniformity_weight=0.3), champion, tmp_path)

    assert (summary["verb"], summary["training"]) == ("fit", "scratch")
    assert "uniformity_weight 0.1 -> 0.3" in summary["reason"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("codebook-collapse", r"least used level, 1, uses 50.0% of its codes"),
        (
            "collisions",
            r"for 72 items before collisions were resolved: a rate of 0\.[7-9]\d+",
        ),
        ("churn", r"% of the traffic has another semantic ID"),
    ],
)
def test_each_fault_is_refused_by_its_gate(
    project_root: Path, champion: dict[str, Path], tmp_path: Path, fault: str, said: str
) -> None:
    """A broken codebook does not leave the step; the message has the level and the number."""
    files.write_json_atomic(tmp_path / "broken.json", {"break": fault})
    gates = {"max_collision_rate": 0.6 if fault == "collisions" else 1.0, "min_utilisation": 0.6}

    with pytest.raises(CheckFailedError, match=said):
        run(small(project_root, gates=gates), {**champion, "broken": tmp_path / "broken.json"}, tmp_path)


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


def test_the_churn_gate_holds_a_carried_model_to_its_budget() -> None:
    """6 % of the traffic moved: above a budget of 5 %, within one of 10 %, and no matter for a model from scratch."""
    churn = {"moved": 3, "published": 40, "share": 0.06, "training": "fine_tune", "changed": [0.01, 0.05]}
    over = churn_gate(churn, 0.05)

    assert (over.result, over.observed, over.n) == ("fail", 0.06, 40)
    assert "6.0% of the traffic" in over.sentence
    assert "level 1, 5.0%" in over.sentence
    assert churn_gate(churn, 0.10).result == "pass"
    assert churn_gate({**churn, "training": "scratch"}, 0.05).result == "pass"


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
