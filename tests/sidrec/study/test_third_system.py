"""A study fits the third system by the same cells, its model a folder."""

from pathlib import Path

import pytest
import yaml

from sidrec import files
from sidrec.study.config import StudyConfig
from sidrec.study.run import run_study
from sidrec.systems.sidreasoner.train import SIDReasonerSystem
from tests.sidrec.study.study_world import SECTIONS, write_world

CHANGES = {
    "kind": "sidreasoner",
    "codebook": {"windows": "events", "quantizer": "residual_kmeans", "num_levels": 2, "codebook_size": 8},
    "model": {
        "max_history": 3, "max_tokens": 128,
        "tiny": {
            "num_layers": 1, "dim": 16, "ff_dim": 16, "num_heads": 1, "num_key_heads": 1, "head_dim": 16,
            "vocabulary": 400,
        },
    },
    "corpus": {"items": 4, "histories": 4},
    "training": {
        "epochs": 1, "tokens_per_batch": 2048, "learning_rate": 0.003, "rows_per_task": 16, "validate_every": 1,
    },
    "activation": {"tokens_per_batch": 2048},
    "alignment": {"enabled": False},
    "search": {"max_rationale_tokens": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The cells of three variants, and the folders that a fit was made in."""
    root = tmp_path_factory.mktemp("sidreasoner_study")
    patch = pytest.MonkeyPatch()
    patch.setenv("SIDREC_HOME", str(root / "home"))
    values = {name: value for name, value in {**SECTIONS, **CHANGES}.items() if name != "repeat"}
    values["data"] = {**SECTIONS["data"], "events": str(write_world(root / "world"))}
    (root / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    study = StudyConfig.model_validate(
        {
            "name": "third",
            "recipe": root / "recipe.yaml",
            "seeds": (0,),
            "variants": {"direct": {}, "think": {"search": {"mode": "think"}}, "no_text": {"corpus": {"items": 1}}},
            "compare": (("think", "direct"),),
        }
    )
    fitted, fit = [], SIDReasonerSystem.fit
    patch.setattr(
        SIDReasonerSystem, "fit", lambda self, inputs, folder: fitted.append(folder) or fit(self, inputs, folder)
    )
    run_study(study, root / "out")
    patch.undo()
    return root / "out", fitted


def test_every_cell_is_judged_and_probed(finished: tuple[Path, list[Path]]) -> None:
    """On the same rows; the curve has a value of every stage's look at the validation rows."""
    out, _ = finished
    for variant in ("direct", "think", "no_text"):
        result = files.read_json(out / f"{variant}-s0.json")
        assert result["rows"]["all"] == 60
        assert 0 <= result["metrics"]["all"]["ndcg@10"] <= 1
        assert set(result["probe"]) == {"code_accuracy", "prefix_accuracy", "true_prob"}
        assert len(result["probe"]["code_accuracy"]) >= 2
        assert len(result["curve"]) == 2
        assert "skipped" in result["alignment"]


def test_the_mode_comes_after_the_fit_and_the_corpus_before_it(finished: tuple[Path, list[Path]]) -> None:
    """Direct and think are one supervised model; another corpus makes another one."""
    out, fitted = finished
    losses = {name: files.read_json(out / f"{name}-s0.json")["loss"] for name in ("direct", "think", "no_text")}

    assert len(fitted) == 2
    assert losses["direct"] == losses["think"] != losses["no_text"]
