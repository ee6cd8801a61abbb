"""A study fits what is not finished, keeps what is, and its table is what the rows say."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sidrec import files
from sidrec.errors import UsageError
from sidrec.study.cell import finished_model
from sidrec.study.config import StudyConfig, variant_recipe
from sidrec.study.run import run_study, tabulate
from sidrec.systems.s2gr.train import S2GRSystem
from tests.sidrec.study.study_world import write_recipe, write_world


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyConfig, Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("study")
    patch = pytest.MonkeyPatch()
    patch.setenv("SIDREC_HOME", str(root / "home"))
    recipe = write_recipe(root / "recipe.yaml", write_world(root / "world"))
    study = StudyConfig.model_validate(
        {
            "name": "tiny",
            "recipe": recipe,
            "seeds": (0, 1),
            "variants": {"s2gr": {}, "tiger": {"model": {"thinking": "none"}}},
            "compare": (("s2gr", "tiger"), ("s2gr", "floor_markov")),
        }
    )
    table = run_study(study, root / "out")
    patch.undo()
    return study, root / "out", table


@pytest.fixture(autouse=True)
def _home(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_HOME", str(finished[1].parent / "home"))


def test_every_cell_leaves_its_rows_and_its_means_agree(finished: Any) -> None:
    _, out, _ = finished
    for variant, seed in (("s2gr", 0), ("s2gr", 1), ("tiger", 0), ("tiger", 1), ("floor_markov", 0)):
        result = files.read_json(out / f"{variant}-s{seed}.json")
        rows = pl.read_parquet(out / f"{variant}-s{seed}.parquet")
        assert rows.height == result["rows"]["all"] == 60
        assert rows["ndcg@10"].mean() == pytest.approx(result["metrics"]["all"]["ndcg@10"], abs=1e-6)


def test_the_same_rows_give_the_same_numbers_by_hand(finished: Any) -> None:
    """Means over seeds, and the paired difference with its seeds."""
    _, out, table = finished
    rows = {(v, s): pl.read_parquet(out / f"{v}-s{s}.parquet")["ndcg@10"].to_numpy() for v in ("s2gr", "tiger")
            for s in (0, 1)}  # fmt: skip
    mean = {v: (rows[v, 0].mean() + rows[v, 1].mean()) / 2 for v in ("s2gr", "tiger")}
    by_seed = [float(rows["s2gr", s].mean() - rows["tiger", s].mean()) for s in (0, 1)]
    difference = table["differences"][0]

    metrics = table["variants"]["s2gr"]["metrics"]["all"]["ndcg@10"]
    assert metrics["mean"] == pytest.approx(mean["s2gr"], abs=1e-6)
    assert metrics["sd_over_seeds"] == pytest.approx(np.std([rows["s2gr", s].mean() for s in (0, 1)], ddof=1), abs=1e-6)
    assert difference["mean"] == pytest.approx(mean["s2gr"] - mean["tiger"], abs=1e-6)
    assert difference["by_seed"] == pytest.approx(by_seed, abs=2e-6)
    low, high = difference["interval"]
    assert low <= difference["mean"] <= high


def test_finished_cells_are_not_fitted_again(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study, out, table = finished

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(S2GRSystem, "fit", refuse)
    assert run_study(study, out) == table


def test_a_changed_recipe_is_fitted_again(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, out, _ = finished
    recipe = write_recipe(tmp_path / "recipe.yaml", out.parent / "world", epochs=1)
    fitted = []
    fit = S2GRSystem.fit
    monkeypatch.setattr(S2GRSystem, "fit", lambda self, inputs, folder: fitted.append(1) or fit(self, inputs, folder))
    copied = tmp_path / "out"
    copied.mkdir()
    for path in out.glob("s2gr-s0.*"):
        (copied / path.name).write_bytes(path.read_bytes())
    changed = study.model_copy(update={"recipe": recipe, "seeds": (0,)})
    run_study(changed, copied, only=["s2gr"])

    assert fitted == [1]
    assert files.read_json(copied / "s2gr-s0.json")["epochs"] == 1


def test_the_probe_says_how_often_codes_and_clusters_are_right(finished: Any) -> None:
    _, out, _ = finished
    thinking, plain = (files.read_json(out / f"{name}-s0.json")["probe"] for name in ("s2gr", "tiger"))

    assert set(thinking) == {"code_accuracy", "prefix_accuracy", "cluster_accuracy"}
    assert "cluster_accuracy" not in plain
    assert thinking["prefix_accuracy"][0] == thinking["code_accuracy"][0]
    assert thinking["prefix_accuracy"][1] <= thinking["prefix_accuracy"][0]


def test_a_study_without_a_finished_cell_has_no_table(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished cell"):
        tabulate(finished[0], tmp_path)


def test_an_unknown_variant_is_refused_before_anything_is_fitted(finished: Any) -> None:
    with pytest.raises(UsageError, match="odd not in study tiny"):
        run_study(finished[0], finished[1], only=["odd"])


def test_a_setting_that_is_new_counts_as_its_default(finished: Any, tmp_path: Path) -> None:
    """A cell fitted before a setting existed is still finished, unless the recipe sets it otherwise."""
    study, out, _ = finished
    recipe = variant_recipe(study, "s2gr", 0)
    result = files.read_json(out / "s2gr-s0.json")
    del result["recipe"]["training"]["prior_smoothing"]
    files.write_json_atomic(tmp_path / "s2gr-s0.json", result)
    training = recipe.training.model_copy(update={"prior_smoothing": 1.0})
    other = recipe.model_copy(update={"training": training})

    assert finished_model(tmp_path, "s2gr", recipe, "test", result["data"]) is not None
    assert finished_model(tmp_path, "s2gr", other, "test", result["data"]) is None
    assert finished_model(tmp_path, "s2gr", recipe, "test", "other data") is None
