"""The evaluation step judges a packaged bundle through the serving code path."""

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from components.evaluate.run import bundle_lists, run
from components.package_bundle import run as package
from sidrec import files, home
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.evaluation.gates import GateResult
from sidrec.recipe import Recipe
from sidrec.systems.popularity import popularity_log_probs
from tests.basket_world import AS_OF, GATE_START, World, random_world
from tests.release_world import recipe as retail_recipe

FLOORS = ("global_popularity", "recent_popularity", "personal_frequency", "markov", "item_knn", "ease")


def recipe(**evaluation: Any) -> Recipe:
    base = retail_recipe()
    return base.model_copy(
        update={
            "evaluation": base.evaluation.model_copy(update={"floors": FLOORS, "resamples": 200} | evaluation),
            "gates": base.gates.model_copy(update={"floor": "global_popularity"}),
        }
    )


def write_data(folder: Path, world: World) -> dict[str, Path]:
    """Write what `build_sequences` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    world.baskets.write_parquet(folder / "baskets")
    world.items.write_parquet(folder / "items")
    return {"baskets": folder / "baskets", "items": folder / "items"}


def write_bundle(folder: Path, world: World, packaged_by: Recipe | None = None, *, reverse: bool = False) -> Path:
    """Package a popularity bundle of the world's catalogue; `reverse` makes it rank the wrong way round."""
    codebook, model = folder / "codebook", folder / "model"
    (codebook / "embedder").mkdir(parents=True)
    model.mkdir()
    data = world.data()
    items = world.items.with_columns(
        title=pl.lit("t"), popularity=pl.Series(data.popularity), recent_popularity=pl.Series(data.recent_popularity)
    )
    catalog = Catalog.build(items, np.arange(items.height, dtype=np.int32)[:, None])
    catalog.write(codebook / "catalogue.parquet")
    files.write_json_atomic(codebook / "health.json", {"gates": []})
    files.write_json_atomic(codebook / "embedder" / "embedder.json", {})
    log_probs = popularity_log_probs(catalog)
    save_file({"log_probs": -log_probs if reverse else log_probs}, model / "weights.safetensors")
    files.write_json_atomic(model / "model.json", {"kind": "popularity"})
    package.run(packaged_by or recipe(), {"codebook": codebook, "model": model}, folder)
    return folder / "bundle"


def report_of(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    value: dict[str, Any] = json.loads((folder / "evaluation" / "report.json").read_text(), parse_constant=refuse)
    return value


@pytest.fixture
def world() -> World:
    return random_world(11, users=80, items=40, skew=1.0)


@pytest.fixture
def inputs(tmp_path: Path, world: World) -> dict[str, Path]:
    return {**write_data(tmp_path / "data", world), "bundle": write_bundle(tmp_path / "packaged", world)}


def test_a_popularity_bundle_scores_what_the_popularity_floor_scores(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """The same ranking through Recommender and through the floor gives the same metrics, all items and novel-only."""
    run(recipe(), inputs, tmp_path)
    report = report_of(tmp_path)

    assert report["metrics"] == report["floors"]["recent_popularity"]
    assert report["metrics"]["all"]["ndcg@10"] > 0


def test_every_floor_stands_beside_the_bundle_with_its_interval(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """Each mean lies inside its interval, and the difference to the bundle is the difference of the means."""
    run(recipe(), inputs, tmp_path)
    report = report_of(tmp_path)

    assert tuple(report["floors"]) == tuple(sorted(FLOORS))
    for name in FLOORS:
        for kind in ("all", "novel"):
            low, high = report["floor_intervals"][name][kind]["ndcg@10"]
            own, other = report["metrics"][kind]["ndcg@10"], report["floors"][name][kind]["ndcg@10"]
            assert low <= other <= high
            assert report["differences"][name][kind]["mean"] == pytest.approx(own - other)


def test_the_report_says_rows_targets_cold_users_and_beam_width(
    tmp_path: Path, inputs: dict[str, Path], world: World
) -> None:
    """A reader can tell what was judged without the code."""
    summary = run(recipe(), inputs, tmp_path)
    report = report_of(tmp_path)

    assert summary["rows"] == report["rows"]["all"] == len(world.rows())
    assert report["cold_users"] == world.data().cold_users
    assert report["beam_width"] == recipe().decoding.beam_width
    assert report["window"] == [str(GATE_START), str(AS_OF)]
    assert report["catalogue_date"] == "2010-10-31"


def test_per_row_arrays_average_to_the_report(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """rows.parquet holds one row a user, model and kind, and nothing is averaged twice."""
    run(recipe(), inputs, tmp_path)
    report = report_of(tmp_path)
    rows = pl.read_parquet(tmp_path / "evaluation" / "rows.parquet")
    means = rows.group_by("model", "kind").agg(pl.col("ndcg@10").cast(pl.Float64).mean(), pl.len())

    assert means.height == 2 * (len(FLOORS) + 1)
    for model, kind, value, length in means.iter_rows():
        expected = (report["metrics"] if model == "bundle" else report["floors"][model])[kind]["ndcg@10"]
        assert value == pytest.approx(expected, abs=1e-6)
        assert length == report["rows"][kind]


def test_the_floor_gate_is_the_first_gate_and_agrees_with_its_interval(
    tmp_path: Path, inputs: dict[str, Path], world: World
) -> None:
    """A bundle that ranks backwards fails it."""
    backwards = write_bundle(tmp_path / "backwards", world, reverse=True)
    summary = run(recipe(), {**inputs, "bundle": backwards}, tmp_path)
    (gate,) = [GateResult.model_validate(value) for value in report_of(tmp_path)["gates"]]

    assert (gate.gate, gate.name, gate.result) == ("quality", "beats_global_popularity", "fail")
    assert gate.interval is not None
    assert gate.interval[1] < 0
    assert gate.n == report_of(tmp_path)["rows"]["novel"]
    assert summary["result"] == "fail"


def test_a_champion_is_judged_on_the_same_rows(tmp_path: Path, inputs: dict[str, Path], world: World) -> None:
    """Against itself a bundle loses nothing; a backwards candidate loses surely."""
    run(recipe(), {**inputs, "champion": inputs["bundle"]}, tmp_path)
    same = report_of(tmp_path)
    backwards = write_bundle(tmp_path / "backwards", world, reverse=True)
    run(recipe(), {**inputs, "bundle": backwards, "champion": inputs["bundle"]}, tmp_path)
    worse = report_of(tmp_path)

    assert same["champion"] == same["bundle_id"]
    assert {gate["name"]: gate["result"] for gate in same["gates"][1:]} == {
        "non_inferior_novel": "pass",
        "non_inferior_all": "pass",
    }
    assert [gate["interval"] for gate in same["gates"][1:]] == [[0.0, 0.0], [0.0, 0.0]]
    assert {gate["result"] for gate in worse["gates"]} == {"fail"}
    assert worse["champion_metrics"] == same["metrics"]


def test_novel_lists_hold_nothing_that_the_user_has_bought(inputs: dict[str, Path], world: World) -> None:
    """The whole history is left out, also what lies beyond the cap of a served history."""
    short = recipe()
    short = short.model_copy(update={"features": short.features.model_copy(update={"history_cap": 2})})
    data = world.data()
    targets = {kind: data.targets(kind) for kind in ("all", "novel")}
    lists, facts = bundle_lists(inputs["bundle"], short, data, targets, label="t")  # type: ignore[arg-type]
    seen = data.history().toarray()[targets["novel"].rows]

    for row, listed in zip(seen, lists["novel"], strict=True):
        assert not row[listed[listed >= 0]].any()
    assert facts["sources"] == {"model": len(targets["all"].rows) + len(targets["novel"].rows)}


def test_lists_do_not_depend_on_the_batches(
    inputs: dict[str, Path], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come back in their own order whatever the batch size."""
    data = world.data()
    targets = {kind: data.targets(kind) for kind in ("all", "novel")}
    lists, _ = bundle_lists(inputs["bundle"], recipe(), data, targets, label="t")  # type: ignore[arg-type]
    monkeypatch.setattr("sidrec.study.lists.BATCH", 3)
    again, _ = bundle_lists(inputs["bundle"], recipe(), data, targets, label="t")  # type: ignore[arg-type]

    for kind in ("all", "novel"):
        np.testing.assert_array_equal(lists[kind], again[kind])  # type: ignore[index]


def test_a_second_evaluation_of_the_same_data_does_not_fit_the_floors_again(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    """Floors come from their stored lists: a changed store shows in the second report."""
    run(recipe(), inputs, tmp_path)
    (stored,) = (home.steps_dir() / "_floors").glob("*/ease.safetensors")
    save_file({kind: values[:, ::-1].copy() for kind, values in load_file(stored).items()}, stored)
    first = report_of(tmp_path)["floors"]
    run(recipe(), inputs, tmp_path)
    second = report_of(tmp_path)["floors"]

    assert second["ease"] != first["ease"]
    assert second["markov"] == first["markov"]


def test_other_data_never_read_the_stored_floors(tmp_path: Path, inputs: dict[str, Path], world: World) -> None:
    """One user fewer is another data set: every floor is fitted anew."""
    run(recipe(), inputs, tmp_path)
    before = set((home.steps_dir() / "_floors").glob("*/*.safetensors"))
    fewer = World({user: world.users[user] for user in list(world.users)[1:]}, world.item_ids)
    run(recipe(), {**inputs, **write_data(tmp_path / "fewer", fewer)}, tmp_path)
    after = set((home.steps_dir() / "_floors").glob("*/*.safetensors"))

    assert len(before) == len(FLOORS)
    assert len(after - before) == len(FLOORS)


def test_the_gates_floor_is_computed_even_where_the_recipe_does_not_list_it(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    """A gate cannot be left without its reference."""
    run(recipe(floors=("markov",)), inputs, tmp_path)

    assert set(report_of(tmp_path)["floors"]) == {"markov", "global_popularity"}


def test_max_rows_judges_a_seeded_part(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """A debug recipe reads fewer rows, the same ones each time."""
    first = run(recipe(max_rows=9), inputs, tmp_path)
    metrics = report_of(tmp_path)["metrics"]
    run(recipe(max_rows=9), inputs, tmp_path)

    assert first["rows"] == 9
    assert report_of(tmp_path)["metrics"] == metrics


def test_baskets_from_as_of_on_stop_the_step(tmp_path: Path, inputs: dict[str, Path], world: World) -> None:
    """December baskets never reach a metric."""
    late = World({**world.users, "late": {AS_OF: ["i00"]}}, world.item_ids)

    with pytest.raises(CheckFailedError, match="lie on or after as_of 2010-12-01"):
        run(recipe(), {**inputs, **write_data(tmp_path / "late", late)}, tmp_path)


def test_a_bundle_that_learnt_from_the_window_is_refused(tmp_path: Path, inputs: dict[str, Path], world: World) -> None:
    """A bundle whose watermark lies in the gate window has seen its own exam."""
    later = recipe().model_copy(update={"as_of": date(2010, 12, 31)})
    bundle = write_bundle(tmp_path / "later", world, later)

    with pytest.raises(CheckFailedError, match="learnt from days up to 2010-11-30, the gate window starts 2010-11-01"):
        run(recipe(), {**inputs, "bundle": bundle}, tmp_path)


def test_a_window_of_nothing_but_repeats_is_refused(tmp_path: Path) -> None:
    """Without a novel target the quality gate has nothing to measure, and says so."""
    before = GATE_START - timedelta(days=3)
    repeats = World({user: {before: ["a", "b"], GATE_START: ["a"]} for user in "uvw"}, ["a", "b"])
    inputs: Mapping[str, Path] = {
        **write_data(tmp_path / "data", repeats),
        "bundle": write_bundle(tmp_path / "b", repeats),
    }

    with pytest.raises(CheckFailedError, match=r"none of the 3 rows .* new to its user"):
        run(recipe(), inputs, tmp_path)


def test_the_page_shows_gates_floors_distances_and_beam_width(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """What a release owner reads has every floor in both tables and the two distances."""
    run(recipe(), {**inputs, "champion": inputs["bundle"]}, tmp_path)
    page = (tmp_path / "evaluation" / "report.md").read_text()
    lines = page.splitlines()

    for name in (*FLOORS, "champion"):
        assert sum(line.startswith(f"| {name} | 0.") for line in lines) == 2
    assert "Distance to personal_frequency on all items" in page
    assert "Distance to ease on novel items only" in page
    assert "Beam width 50" in page
    assert "**pass** `non_inferior_novel`" in page
