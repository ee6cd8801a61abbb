"""`sidrec plan`, `evaluate` and `ablate`, in a process of their own that has the library alone."""

from pathlib import Path

import pytest
import yaml

from tests.sidrec.cli.test_bare_wheel import ROOT, bare
from tests.sidrec.study.study_world import write_recipe, write_world


def test_a_recipe_is_evaluated_over_seeds_beside_its_floors(tmp_path: Path) -> None:
    """The recipe names other data than are here; --data wins."""
    recipe = write_recipe(tmp_path / "tiny.yaml", tmp_path / "nowhere", epochs=1)
    world = write_world(tmp_path / "world")
    out = ("--seeds", "2", "--out", str(tmp_path / "o"))
    status, table = bare(tmp_path / "home", "evaluate", "--recipe", str(recipe), "--data", str(world), *out)

    assert status == 0
    assert {name: entry["seeds"] for name, entry in table["variants"].items()} == {  # type: ignore[attr-defined]
        "floor_popularity": [0],
        "floor_markov": [0],
        "tiny": [0, 1],
    }
    assert (tmp_path / "o" / "tiny-s1.parquet").is_file()


def test_absent_data_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIDREC_BENCH_DATA", raising=False)
    recipe = write_recipe(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    status, error = bare(tmp_path / "home", "evaluate", "--recipe", str(recipe))

    assert status == 2
    assert "nowhere is neither here nor under SIDREC_BENCH_DATA" in str(error)


def test_a_plan_fits_nothing_and_fails_where_something_is_missing(tmp_path: Path) -> None:
    """The published recipe's backbone is not on a test's machine; its rows are counted all the same."""
    world = write_world(tmp_path / "world")
    recipe = yaml.safe_load((ROOT / "pipelines/recipes/sidreasoner_qwen3_1p7b.yaml").read_text())
    recipe["model"]["backbone"] = str(tmp_path / "qwen3")
    recipe["evaluation"] = {"protocol": "leave_one_out"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    status, said = bare(tmp_path / "home", "plan", "--recipe", str(tmp_path / "recipe.yaml"), "--data", str(world))

    assert status == 1
    assert "the backbone" in str(said["missing"])
    assert said["vocabulary"]["new_tokens"] == 768  # type: ignore[index]
    assert said["rows"]["stage_1"]["code_of_title"] == 24  # type: ignore[index]


def test_a_study_is_tabulated_without_a_fit(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_world(tmp_path / "world"))
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"name": "tiny", "recipe": str(recipe), "seeds": [0], "variants": {"a": {}}}))
    out = ("--out", str(tmp_path / "o"))
    empty, error = bare(tmp_path / "home", "ablate", str(study), "--table", *out)
    only, _ = bare(tmp_path / "home", "ablate", str(study), "--only", "floor_markov", *out)
    done, table = bare(tmp_path / "home", "ablate", str(study), "--table", *out)

    assert (empty, only, done) == (2, 0, 0)
    assert "no finished cell" in str(error)
    assert set(table["variants"]) == {"floor_markov"}  # type: ignore[call-overload]
