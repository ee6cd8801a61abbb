"""Plots of a study hold the numbers of its finished cells, and equal numbers are equal bytes."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from sidrec.cli.main import main
from sidrec.errors import UsageError
from sidrec.study.config import StudyConfig
from sidrec.study.lines import Line, Panel, svg
from sidrec.study.plots import draw
from tests.test_house import ROOT

SVG = "{http://www.w3.org/2000/svg}"
VITALS = {"kl": 0.1, "diversity": 0.9, "valid": 0.4, "hits": 0.2, "category_hits": 0.3, "consistency": 0.5}
STUDY = ROOT / "pipelines/studies/reg4rec_ablations.yaml"


def cell(variant: str, slots: int, value: float, *, seed: int = 0, rounds: int = 2) -> dict[str, Any]:
    told = [{**VITALS, "value": value + step, "refused": ["KL"] if step else []} for step in range(rounds)]
    alignment = {"supervised": VITALS, "supervised_value": value, "rounds": told, "kept": "aligned"}
    return {
        "variant": variant,
        "seed": seed,
        "recipe": {"codebook": {"num_levels": slots}},
        "metrics": {"all": {"ndcg@10": value, "recall@10": 2 * value}},
        "alignment": alignment if rounds else {"skipped": "alignment.enabled is false"},
    }


def study(*variants: str, seeds: tuple[int, ...] = (0,)) -> StudyConfig:
    recipe = ROOT / "pipelines/recipes/reg4rec_scientific.yaml"
    values = {"name": "s", "recipe": recipe, "seeds": seeds, "variants": {name: {} for name in variants}}
    return StudyConfig.model_validate(values)


def written(folder: Path, *cells: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for one in cells:
        (folder / f"{one['variant']}-s{one['seed']}.json").write_text(json.dumps(one))
    return folder


def told(path: Path) -> list[str]:
    return [str(title.text) for title in ET.parse(path).iter(f"{SVG}title")]


def test_alignment_is_drawn_by_round(tmp_path: Path) -> None:
    """The supervised model is round 0; a refused round is hollow; a cell without alignment has no plot."""
    out = written(tmp_path / "out", cell("a", 4, 0.25), cell("b", 4, 0.5, rounds=0))
    drawn = draw(study("a", "b"), out, tmp_path / "plots")
    values = [said for said in told(drawn[0]) if said.startswith("value")]
    hollow = [c for c in ET.parse(drawn[0]).iter(f"{SVG}circle") if c.get("fill") == "#ffffff"]

    assert [path.name for path in drawn] == ["a-s0-alignment.svg"]
    assert values == ["value: 0, 0.25", "value: 1, 0.25", "value: 2, 1.25"]
    assert {said.split(":")[0] for said in told(drawn[0])} == {"value", *VITALS}
    assert len(hollow) == 1 + len(VITALS)


def test_a_language_models_rounds_have_the_length_of_rationales(tmp_path: Path) -> None:
    """Its own rewards and no others' beside it."""
    one = cell("a", 3, 0.25)
    said = {name: value for name, value in VITALS.items() if name not in ("category_hits", "consistency")}
    said |= {"rationale_tokens": 40.0, "ended": 1.0}
    one["alignment"] |= {"supervised": said, "rounds": [said | {"value": 0.5, "refused": []}]}
    [drawn] = draw(study("a"), written(tmp_path / "out", one), tmp_path / "plots")

    assert {text.split(":")[0] for text in told(drawn)} == {
        "value",
        "hits",
        "kl",
        "diversity",
        "valid",
        "rationale_tokens",
    }
    assert "rationale_tokens: 1, 40" in told(drawn)


def test_quality_by_slots_is_the_mean_over_seeds(tmp_path: Path) -> None:
    """Of the variants named, cell by cell; those not named are not in it."""
    cells = [cell("two", 2, 0.1), cell("two", 2, 0.3, seed=1), cell("six", 6, 0.5), cell("other", 4, 9.0)]
    out = written(tmp_path / "out", *cells)
    drawn = draw(study("two", "six", "other", seeds=(0, 1)), out, tmp_path / "plots", only=("two", "six"))

    assert drawn[-1].name == "slots.svg"
    assert told(drawn[-1]) == ["ndcg@10: 2, 0.2", "ndcg@10: 6, 0.5", "recall@10: 2, 0.4", "recall@10: 6, 1"]
    assert "slots.svg" not in [path.name for path in draw(study("two", "six"), out, tmp_path / "all")]


def test_equal_cells_are_equal_bytes_and_text_is_text(tmp_path: Path) -> None:
    out = written(tmp_path / "out", cell("a", 4, 0.25))
    first, second = (draw(study("a"), out, tmp_path / name)[0].read_bytes() for name in ("x", "y"))
    evil = svg([Panel("<b>", "&", (Line("</svg>", (1.0,), (2.0,)),))], title="<script>")

    assert first == second
    assert len(first) < 20_000
    assert ET.fromstring(evil) is not None
    assert "<script>" not in evil


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished cell was aligned"):
        draw(study("a"), written(tmp_path / "out", cell("a", 4, 0.25, rounds=0)), tmp_path / "plots")


def test_the_command_draws_and_fits_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = written(tmp_path / "out", cell("two_slots", 2, 0.1), cell("six_slots", 6, 0.2))
    only = ("--only", "two_slots", "--only", "six_slots")
    assert main(["ablate", str(STUDY), "--out", str(out), "--plots", str(tmp_path / "p"), *only, "--json"]) == 0
    names = [Path(path).name for path in json.loads(capsys.readouterr().out)["drawn"]]

    assert sorted(names) == ["six_slots-s0-alignment.svg", "slots.svg", "two_slots-s0-alignment.svg"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == sorted(names)
