"""A study fits the second system by the same cells."""

from pathlib import Path

import pytest
import yaml

from sidrec import files
from sidrec.study.config import StudyConfig
from sidrec.study.run import run_study
from sidrec.systems.reg4rec.train import Reg4RecSystem
from tests.sidrec.study.study_world import SECTIONS, write_world

CHANGES = {
    "kind": "reg4rec",
    "codebook": {
        "windows": "events", "quantizer": "mpq", "num_levels": 3, "codebook_size": 4, "code_dim": 4,
        "hidden_dims": [8], "warmup_epochs": 1, "epochs": 4, "batch_size": 32, "collision_policy": "nearest_free",
    },
    "model": {
        "dim": 16, "ff_dim": 16, "encoder_layers": 1, "decoder_layers": 1, "max_positions": 8, "num_categories": 4,
    },
    "alignment": {"rounds": 1, "users_per_round": 16, "batch_users": 8, "group_size": 4},
    "search": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyConfig, Path, list[Path]]:
    root = tmp_path_factory.mktemp("reg4rec_study")
    patch = pytest.MonkeyPatch()
    patch.setenv("SIDREC_HOME", str(root / "home"))
    values = {**SECTIONS, **CHANGES, "data": {**SECTIONS["data"], "events": str(write_world(root / "world"))}}
    values["training"] = {**SECTIONS["training"], "validate_every": 1}
    (root / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    study = StudyConfig.model_validate(
        {
            "name": "second",
            "recipe": root / "recipe.yaml",
            "seeds": (0,),
            "variants": {
                "reg4rec": {},
                "supervised": {"alignment": {"enabled": False}},
                "pruned": {"alignment": {"enabled": False}, "search": {"consistency": 0.9}},
                "random": {"alignment": {"enabled": False}, "model": {"order": "random"}},
            },
            "compare": (("reg4rec", "supervised"),),
        }
    )
    fitted, fit = [], Reg4RecSystem.fit
    patch.setattr(Reg4RecSystem, "fit", lambda self, inputs, folder: fitted.append(folder) or fit(self, inputs, folder))
    run_study(study, root / "out")
    patch.undo()
    return study, root / "out", fitted


def test_every_cell_is_judged_on_the_same_rows(finished: tuple[StudyConfig, Path, list[Path]]) -> None:
    _, out, _ = finished
    for variant in ("reg4rec", "supervised", "pruned", "random"):
        result = files.read_json(out / f"{variant}-s0.json")
        assert result["rows"]["all"] == 60
        assert 0 <= result["metrics"]["all"]["ndcg@10"] <= 1
    assert files.read_json(out / "table.json")["differences"][0]["candidate"] == "reg4rec"


def test_a_cell_says_what_alignment_did_and_what_paths_look_like(
    finished: tuple[StudyConfig, Path, list[Path]],
) -> None:
    """The validation rows judge both stages: the curve is of the fit, the supervised value of its best weights."""
    _, out, _ = finished
    aligned, supervised = (files.read_json(out / f"{name}-s0.json") for name in ("reg4rec", "supervised"))

    assert aligned["alignment"]["kept"] in ("aligned", "supervised")
    assert "enabled is false" in supervised["alignment"]["skipped"]
    assert aligned["alignment"]["supervised_value"] == pytest.approx(max(aligned["curve"]), abs=1e-6)
    assert set(aligned["probe"]) == {"code_accuracy", "confidence", "agreement", "slot_entropy"}
    assert len(aligned["probe"]["code_accuracy"]) == 3


def test_cells_that_differ_after_the_fit_share_it(finished: tuple[StudyConfig, Path, list[Path]]) -> None:
    """Alignment and search come after: three of the four variants are one supervised model."""
    _, out, fitted = finished
    losses = {name: files.read_json(out / f"{name}-s0.json")["loss"] for name in ("reg4rec", "supervised", "pruned")}

    assert len(fitted) == 2
    assert losses["reg4rec"] == losses["supervised"] == losses["pruned"]
