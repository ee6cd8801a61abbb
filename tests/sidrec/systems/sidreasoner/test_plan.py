"""A plan counts what a fit then learns from, and names what is not here without asking a network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidrec.quantization.config import CodebookConfig
from sidrec.systems.base import Plans
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import SIDReasonerModelConfig, TeacherConfig
from sidrec.systems.sidreasoner.plan import missing
from tests.sidrec.systems.sidreasoner.test_train import inputs_of, system_of
from tests.sidrec.systems.sidreasoner.world import titled

CODEBOOK = CodebookConfig(num_levels=3, codebook_size=8)


def test_a_plan_says_what_the_fit_then_does(world: Any, tmp_path: Path) -> None:
    """Rows of every task, requests to the teacher, points; under caps, and with semantic IDs that stand in."""
    system = system_of(training={"epochs": 1, "rows_per_task": 9}, activation={"direct_share": 0.5})
    catalog = titled(world)
    planned = system.plan(CODEBOOK, replace(catalog, codes=catalog.codes[::-1].copy()), world.baskets, seed=0)
    fitted = system.fit(inputs_of(world), tmp_path)

    assert isinstance(system, Plans)
    assert planned["rows"] == {stage: fitted[stage]["rows"] for stage in ("stage_1", "stage_2a")}
    assert planned["requests"] == {task: said["requests"] for task, said in fitted["corpus"]["texts"].items()}
    assert planned["points"]["learnt_from"] == fitted["points"]
    assert planned["vocabulary"] == {"codes_a_level": [8, 8, 8], "new_tokens": 24}
    assert planned["missing"] == []


def test_what_a_fit_lacks_is_named_each_by_its_setting(world: Any, tmp_path: Path) -> None:
    """And the rest is counted all the same."""
    system = system_of(
        model={"backbone": str(tmp_path / "absent")},
        corpus={"teacher": {"kind": "openai", "api_key_env": "NO_SUCH_KEY"}},
        training={"general": tmp_path / "chats.jsonl"},
    )
    planned = system.plan(CODEBOOK, titled(world), world.baskets, seed=0)

    assert [sentence.split(":")[0] for sentence in planned["missing"]] == [
        f"the backbone {tmp_path / 'absent'}",
        "the teacher's key",
        "the general chats",
    ]
    assert planned["rows"]["stage_1"]["code_to_code"] == 8


@pytest.mark.parametrize("absent", [None, "config.json", "tokenizer.json", "model.safetensors"])
def test_a_backbone_is_here_when_all_of_it_is(backbone: Backbone, tmp_path: Path, absent: str | None) -> None:
    """A folder of it; one that may be downloaded is not missed."""
    backbone.save(tmp_path)
    if absent:
        (tmp_path / absent).unlink()
    config = SIDReasonerModelConfig(backbone=str(tmp_path))
    own_server = TeacherConfig(kind="openai", base_url="http://127.0.0.1:8000/v1", api_key_env="NO_SUCH_KEY")

    assert bool(list(missing(config, own_server, None))) == (absent is not None)
    assert not list(missing(config.model_copy(update={"download": True}), own_server, None))
