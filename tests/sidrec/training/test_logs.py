"""The event files say what the log says, each step once, and can be done without."""

import sys
from pathlib import Path

import pytest

from sidrec.training import logs
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import train
from sidrec.training.optim import schedule
from tests.sidrec.training.toy import Killed, Rows, config, killed_at, model, never, terms_of

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows of a folder: (step, value) of every tag."""
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_files_hold_the_log(tmp_path: Path) -> None:
    """Terms and validations stand at their epochs' last steps, the rate and the total at every fourth step."""
    module, values = model(), iter([0.1, 0.2, 0.3])
    log = train(
        module,
        Rows(),
        terms_of(module),
        config(validate_every=2),
        never(tmp_path),
        "toy",
        validate=lambda: next(values),
        logs=TrainingLogs(tmp_path / "logs", every_steps=4),
    )
    shown = curves(tmp_path / "logs")

    assert set(shown) == {
        "epoch/error",
        "epoch/size",
        "epoch/total",
        "validation",
        "step/total",
        "step/learning_rate",
    }
    for term in ("error", "size", "total"):
        assert [step for step, _ in shown[f"epoch/{term}"]] == [3, 6, 9, 12, 15, 18]
        assert [value for _, value in shown[f"epoch/{term}"]] == pytest.approx([row[term] for row in log])
    assert shown["validation"] == [(6, pytest.approx(0.1)), (12, pytest.approx(0.2)), (18, pytest.approx(0.3))]
    assert shown["step/learning_rate"] == [
        (step, pytest.approx(0.03 * schedule(step - 1, total=18, warmup_share=0.1))) for step in (4, 8, 12, 16)
    ]


def test_the_total_is_that_of_its_step(tmp_path: Path) -> None:
    """The mean of an epoch's steps is the epoch's value."""
    module = model()
    log = train(
        module,
        Rows(),
        terms_of(module),
        config(),
        never(tmp_path),
        "toy",
        logs=TrainingLogs(tmp_path / "logs", every_steps=1),
    )
    totals = [value for _, value in curves(tmp_path / "logs")["step/total"]]

    assert [sum(totals[first : first + 3]) / 3 for first in range(0, 18, 3)] == pytest.approx(
        [row["total"] for row in log]
    )


def test_a_killed_run_leaves_each_step_once(tmp_path: Path) -> None:
    """Killed at step 11 and resumed from step 8, its curves are those of a run that nobody killed."""

    class AtEight(Checkpoints):
        def due(self) -> bool:
            return next(steps) == 8

    for name in ("whole", "killed"):
        steps = iter(range(1, 100))
        module = model()
        arguments = (config(), AtEight(tmp_path / name, minutes=0), "toy")
        if name == "killed":
            with pytest.raises(Killed):
                train(
                    module,
                    Rows(),
                    killed_at(12, terms_of(module)),
                    *arguments,
                    logs=TrainingLogs(tmp_path / "killed-logs", every_steps=1),
                )
            module = model()
        train(
            module,
            Rows(),
            terms_of(module),
            *arguments,
            logs=TrainingLogs(tmp_path / f"{name}-logs", every_steps=1),
        )

    assert len(list((tmp_path / "killed-logs").iterdir())) == 2
    assert curves(tmp_path / "killed-logs") == curves(tmp_path / "whole-logs")


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs of a process train as ever, say it once and write nothing."""
    logs._summary_writer.cache_clear()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for name in ("a", "b"):
        module = model()
        train(
            module,
            Rows(),
            terms_of(module),
            config(epochs=1),
            never(tmp_path),
            "toy",
            logs=TrainingLogs(tmp_path / name, every_steps=1),
        )
    logs._summary_writer.cache_clear()

    assert capsys.readouterr().err.count("tensorboard is not installed") == 1
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
