"""The serving gate, with the real server."""

import json
from pathlib import Path

import pytest

from components.check_serving.run import Trial, judge, run
from sidrec.bundle import write_bundle
from sidrec.evaluation.gates import GateResult
from sidrec.recipe import Recipe, load_recipe
from tests.serving.world import ROOT, make_bundle


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(ROOT / "pipelines/recipes/popularity_retail.yaml")[1]


def gates(folder: Path) -> dict[str, GateResult]:
    rows = json.loads((folder / "serving_check").read_text())["gates"]
    return {row["name"]: GateResult.model_validate(row) for row in rows}


def test_a_sound_bundle_passes_three_gates(recipe: Recipe, tmp_path: Path, own_state: Path) -> None:
    """It loads, answers as the recommender does, in time, and nothing of the trial stays behind or is deployed."""
    bundle = make_bundle(tmp_path / "made")
    folder = tmp_path / "step"
    folder.mkdir()

    summary = run(recipe, {"bundle": bundle.folder}, folder)

    results = gates(folder)
    assert {name: gate.result for name, gate in results.items()} == dict.fromkeys(
        ["loads_and_answers", "answers_as_offline", "p99_latency_ms"], "pass"
    )
    assert all(gate.gate == "serving" for gate in results.values())
    assert results["loads_and_answers"].n == 6
    assert 0 < results["p99_latency_ms"].slices["p50"] <= results["p99_latency_ms"].observed
    assert summary["rows"] >= 30
    assert not (folder / "scratch").exists()
    assert not own_state.exists()


def test_a_bundle_that_does_not_load_fails_the_gate(recipe: Recipe, tmp_path: Path) -> None:
    """Sound digests around a file that no model can read: a failed gate with the reason, not a crash."""
    sound = make_bundle(tmp_path / "made")
    files = {name: sound.folder / name for name in sound.manifest["files"]}
    files["weights.safetensors"] = tmp_path / "broken"
    files["weights.safetensors"].write_bytes(b"not weights")
    broken = write_bundle(tmp_path / "broken-bundle", files, {})
    folder = tmp_path / "step"
    folder.mkdir()

    run(recipe, {"bundle": broken.folder}, folder)

    [gate] = gates(folder).values()
    assert (gate.name, gate.result) == ("loads_and_answers", "fail")
    assert "does not serve" in gate.sentence


@pytest.mark.parametrize(("allowed", "result"), [(10.0, "fail"), (100.0, "pass")])
def test_the_latency_gate_holds_the_recipes_limit(allowed: float, result: str) -> None:
    """One slow answer in fifty is above p99's place, so it counts."""
    trial = Trial(loaded_s=1.0, golden=6, latencies_ms=[1.0] * 49 + [50.0], different=[])

    gate = next(gate for gate in judge(trial, allowed) if gate.name == "p99_latency_ms")

    assert (gate.result, gate.threshold, gate.n, gate.slices["max"]) == (result, allowed, 50, 50.0)


def test_an_answer_that_differs_from_offline_fails_its_gate() -> None:
    """One of twenty is one too many."""
    trial = Trial(loaded_s=1.0, golden=6, latencies_ms=[1.0] * 30, different=["request 3"])

    gate = next(gate for gate in judge(trial, 100.0) if gate.name == "answers_as_offline")

    assert (gate.result, gate.observed) == ("fail", 0.95)
    assert "request 3" in gate.sentence
