"""What a fit needs before it is a step of its own: made once, cheap where nothing is needed, and killed for no loss."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.write_corpus import run as step
from sidrec import home
from sidrec.recipe import build, load_recipe, parse_recipe
from sidrec.steps import execute
from sidrec.systems.base import Prepares
from sidrec.systems.sidreasoner.config import SIDReasonerCorpusConfig, TeacherConfig
from sidrec.systems.sidreasoner.teacher import Request
from sidrec.systems.sidreasoner.template_teacher import TemplateTeacher
from tests.components.test_third_system import SMALL
from tests.step_world import ROOT, smaller, write_inputs

RECIPES = sorted((ROOT / "pipelines" / "recipes").glob("*.yaml"))
# How a teacher is asked, and what it costs; the texts are the same.
ASKING = {"concurrency", "timeout_s", "retries", "api_key_env", "prompt_price", "completion_price"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Baskets and a codebook of the small catalogue."""
    from components.embed_items.run import run as embed
    from components.train_codebook.run import run as codebook

    recipe, folder = smaller("sidreasoner_debug", SMALL), tmp_path_factory.mktemp("world")
    inputs = write_inputs(recipe, folder)
    for name, run, written in (("e", embed, ("vectors", "embedder")), ("c", codebook, ("codebook", "decision"))):
        (folder / name).mkdir()
        run(recipe, inputs, folder / name)
        inputs |= {output: folder / name / output for output in written}
    return inputs


def text_of(changes: dict[str, dict[str, Any]]) -> str:
    recipe = smaller("sidreasoner_debug", {name: {**SMALL.get(name, {}), **own} for name, own in changes.items()})
    return yaml.safe_dump(json.loads(recipe.model_dump_json()))


def executed(world: dict[str, Path], out: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    inputs = {name: world[name] for name in ("baskets", "codebook")}
    text = text_of({"corpus": {}, "training": {}} | changes)
    outputs = {"prepared": out}
    return execute("write_corpus", step.run, recipe=text, sections=step.SECTIONS, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_whether_its_system_prepares(path: Path) -> None:
    """Torch-free, and as the system itself says."""
    recipe = load_recipe(path)[1]

    assert isinstance(build(recipe), Prepares) is recipe.prepares


def test_a_system_without_a_corpus_skips_the_step_and_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from components.write_corpus.run import run\n"
        "from sidrec.recipe import load_recipe\n"
        "recipe = load_recipe(pathlib.Path('pipelines/recipes/s2gr_debug.yaml'))[1]\n"
        f"said = run(recipe, {{}}, pathlib.Path({str(tmp_path)!r}))\n"
        "print(said['skipped'], '|', sorted({'torch', 'polars', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "s2gr needs nothing before its fit | []"
    assert list((tmp_path / "prepared").iterdir()) == []


def test_nothing_is_written_for_a_model_that_is_carried(tmp_path: Path) -> None:
    (tmp_path / "decision").write_text('{"verb": "append", "reason": "two new", "training": "carry"}')
    said = step.run(parse_recipe(text_of({})), {"decision": tmp_path / "decision"}, tmp_path)

    assert said == {"skipped": "the live model is carried, and nothing is fitted"}
    assert list((tmp_path / "prepared").iterdir()) == []


def test_another_learning_rate_asks_no_teacher_again(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor do other epochs or another way of asking; another share of users held out and shorter histories do."""
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "home"))
    first = executed(world, tmp_path / "first")
    capsys.readouterr()
    executed(
        world,
        tmp_path / "same",
        training={"learning_rate": 0.01, "epochs": 2},
        corpus={"teacher": {"timeout_s": 5.0}},
        model={"max_tokens": 128},
    )
    reused = capsys.readouterr().out
    executed(world, tmp_path / "held_out", training={"held_out_share": 0.4})
    executed(world, tmp_path / "history", model={"max_history": 2})
    made = {name: (tmp_path / name).resolve() for name in ("first", "same", "held_out", "history")}

    assert first["texts"]["read_history"]["requests"] == 6
    assert "write_corpus: already done for the same inputs, config and code" in reused
    assert made["same"] == made["first"]
    assert len(set(made.values())) == 3


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


def test_a_killed_step_keeps_the_replies_that_it_has(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "home"))
    asked: list[Request] = []
    plain = TemplateTeacher.answer

    def dying(self: TemplateTeacher, requests: Sequence[Request]) -> Iterator[tuple[int, str | None]]:
        for number, reply in plain(self, requests):
            asked.append(requests[number])
            if len(asked) == 9:
                raise Killed
            yield number, reply

    monkeypatch.setattr(TemplateTeacher, "answer", dying)
    with pytest.raises(Killed):
        executed(world, tmp_path / "out")
    [folder] = (home.steps_dir() / "write_corpus").iterdir()
    kept = len((folder / "replies.jsonl").read_text().splitlines())
    executed(world, tmp_path / "out")

    assert kept == 8
    # The one that was being written, and no other, is asked for again.
    assert len(asked) == 2 * 6 + 2 * 6 + 1


def test_every_setting_of_a_corpus_is_in_the_key_or_does_not_decide_a_text() -> None:
    """A new setting has to be sorted into one of the two."""

    def names(model: type[BaseModel], prefix: str) -> set[str]:
        return {f"{prefix}.{name}" for name in model.model_fields}

    teacher = names(TeacherConfig, "corpus.teacher")
    every = (names(SIDReasonerCorpusConfig, "corpus") - {"corpus.teacher"}) | teacher

    assert {name for name in step.SECTIONS if name.startswith("corpus")} == every - {
        f"corpus.teacher.{name}" for name in ASKING
    }
    recipe = parse_recipe(text_of({}))
    assert all(recipe.section(name) is not None for name in step.SECTIONS)
