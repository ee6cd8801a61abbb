"""A step with the same inputs, config and code is done once."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidrec import steps
from sidrec.errors import CheckFailedError, ValidationFailedError
from sidrec.recipe import Recipe

RECIPE = (Path(__file__).parents[2] / "pipelines" / "recipes" / "s2gr_retail.yaml").read_text()


class Counter:
    """A step that counts how often it really ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
        self.runs += 1
        (folder / "out").write_text(inputs["data"].read_text().upper())
        return {"rows": 3}


def call(step: Counter, data: Path, link: Path, *, recipe: str = RECIPE, **options: Any) -> dict[str, Any]:
    return steps.execute(
        "count", step, recipe=recipe, sections=["data"], inputs={"data": data}, outputs={"out": link}, **options
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_text("abc")
    return path


def test_output_is_a_link_to_the_step_folder(data: Path, tmp_path: Path) -> None:
    """The artefact that the pipeline passes on is a link to what the step wrote."""
    call(Counter(), data, tmp_path / "kfp" / "out")

    assert (tmp_path / "kfp" / "out").is_symlink()
    assert (tmp_path / "kfp" / "out").read_text() == "ABC"


def test_same_step_runs_once(data: Path, tmp_path: Path) -> None:
    """A second identical call reuses the first one's result."""
    step = Counter()

    first, second = call(step, data, tmp_path / "a"), call(step, data, tmp_path / "b")

    assert (step.runs, first, (tmp_path / "b").read_text()) == (1, second, "ABC")


def test_changed_input_runs_again(data: Path, tmp_path: Path) -> None:
    """Another input is another step."""
    step = Counter()
    call(step, data, tmp_path / "a")
    data.write_text("xyz")
    call(step, data, tmp_path / "b")

    assert (step.runs, (tmp_path / "b").read_text()) == (2, "XYZ")


def test_only_the_named_sections_count(data: Path, tmp_path: Path) -> None:
    """A section that the step does not read leaves its key alone; one that it reads does not."""
    step = Counter()
    call(step, data, tmp_path / "a")
    call(step, data, tmp_path / "b", recipe=RECIPE.replace("beam_width: 50", "beam_width: 10"))
    runs_after_foreign_change = step.runs
    call(step, data, tmp_path / "c", recipe=RECIPE.replace("adapter: online_retail", "adapter: table"))

    assert (runs_after_foreign_change, step.runs) == (1, 2)


def test_killed_step_finds_its_own_folder(data: Path, tmp_path: Path) -> None:
    """A step that died before `done.json` runs again in the same folder, checkpoints in place."""
    seen: list[bool] = []

    def dies_once(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
        seen.append((folder / "checkpoint").exists())
        (folder / "checkpoint").write_text("half")
        if len(seen) == 1:
            raise KeyboardInterrupt
        (folder / "out").write_text("whole")
        return {}

    with pytest.raises(KeyboardInterrupt):
        call(dies_once, data, tmp_path / "a")  # type: ignore[arg-type]
    call(dies_once, data, tmp_path / "a")  # type: ignore[arg-type]

    assert seen == [False, True]


def test_effect_that_no_longer_stands_runs_again(data: Path, tmp_path: Path) -> None:
    """A finished step whose outside effect is gone is not reused."""
    step = Counter()
    call(step, data, tmp_path / "a")
    call(step, data, tmp_path / "b", still_holds=lambda folder: False)

    assert step.runs == 2


def test_missing_output_is_refused(data: Path, tmp_path: Path) -> None:
    """A step that writes nothing under a promised name has failed."""
    with pytest.raises(CheckFailedError, match="wrote no out"):
        call(lambda recipe, inputs, folder: {}, data, tmp_path / "a")  # type: ignore[arg-type]


def test_failure_reaches_the_run_log(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and the evidence of a failed step stand in the run's step log."""

    def refuses(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
        raise ValidationFailedError("rule R1 broke", evidence=folder / "bad.json", next_step="look")

    monkeypatch.setenv(steps.RUN_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(ValidationFailedError):
        call(refuses, data, tmp_path / "a")  # type: ignore[arg-type]
    [row] = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]

    assert (row["result"], row["message"], row["next"]) == ("failed", "rule R1 broke", "look")


def test_step_dies_with_its_run(tmp_path: Path) -> None:
    """When the process that started a step is killed, the step is gone within seconds."""
    child = "import time; from sidrec.process import die_with_parent; die_with_parent('x'); time.sleep(60)"
    parent = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    time.sleep(1.0)  # the watch must have begun
    process.kill()
    process.wait()

    for _ in range(100):
        if not _alive(orphan):
            break
        time.sleep(0.1)

    assert not _alive(orphan)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
