"""A run validates without noticing, ends when it should, and where it was killed cannot be seen in it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sidrec.training.checkpoint import Checkpoints
from sidrec.training.loop import LoopConfig, train
from tests.sidrec.training.toy import Killed, Rows, config, killed_at, model, never, terms_of, weights

CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def without_seconds(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in log]


def script(values: list[float], module: nn.Module) -> tuple[Callable[[], float], list[torch.Tensor]]:
    """Return a validation that says these values in turn, and the weights that it has seen."""
    seen: list[torch.Tensor] = []

    def validate() -> float:
        seen.append(weights(module))
        return values[len(seen) - 1]

    return validate, seen


def trained(
    settings: LoopConfig, folder: Path, validate: Callable[[], float] | None = None
) -> tuple[nn.Module, list[dict[str, Any]]]:
    module = model(dropout=0.5)
    return module, train(module, Rows(), terms_of(module), settings, never(folder), "toy", validate=validate)


def test_a_validation_does_not_change_the_training(tmp_path: Path) -> None:
    """With dropout, draws of its own and the last validation the best, a validated run has the other's weights."""
    draws: list[float] = []

    def validate() -> float:
        draws.append(float(torch.rand(())))
        return float(len(draws))

    plain, plain_log = trained(config(), tmp_path)
    validated, log = trained(config(validate_every=1), tmp_path, validate)

    assert len(draws) == 6
    assert torch.equal(weights(validated), weights(plain))
    assert [(row["epoch"], row["total"]) for row in log] == [(row["epoch"], row["total"]) for row in plain_log]


def test_what_is_validated_is_the_average_without_dropout_or_gradients(tmp_path: Path) -> None:
    """The weights seen after each epoch are those that a run of that many epochs of the same schedule ends with."""
    module = model(dropout=0.5)
    state: list[tuple[bool, bool]] = []
    seen: list[torch.Tensor] = []

    def validate() -> float:
        state.append((any(part.training for part in module.modules()), torch.is_grad_enabled()))
        seen.append(weights(module))
        return 0.0

    settings = {"schedule": "constant", "warmup_share": 0.0}
    train(
        module, Rows(), terms_of(module), config(validate_every=2, **settings), never(tmp_path), "", validate=validate
    )
    ends = [weights(trained(config(epochs=epochs, **settings), tmp_path)[0]) for epochs in (2, 4, 6)]

    assert state == [(False, False)] * 3
    assert all(torch.equal(one, other) for one, other in zip(seen, ends, strict=True))


def test_the_best_average_is_what_remains(tmp_path: Path) -> None:
    """Of equal values the first counts; the last row names its epoch."""
    module = model()
    validate, seen = script([0.1, 0.3, 0.3, 0.2, math.nan, 0.0], module)
    log = train(module, Rows(), terms_of(module), config(validate_every=1), never(tmp_path), "", validate=validate)

    assert torch.equal(weights(module), seen[1])
    assert [row["validation"] for row in log[:4]] == [0.1, 0.3, 0.3, 0.2]
    assert [row.get("best_epoch") for row in log] == [None, None, None, None, None, 2]
    assert not module.training


def test_patience_ends_a_run(tmp_path: Path) -> None:
    """Two validations in a row below the best one, here of epochs 6 and 8: epochs 9 to 20 do not take place."""
    module = model()
    validate, seen = script([0.2, 0.4, 0.3, 0.3], module)
    settings = config(epochs=20, validate_every=2, patience=2)
    log = train(module, Rows(), terms_of(module), settings, never(tmp_path), "", validate=validate)

    assert [row["epoch"] for row in log] == list(range(1, 9))
    assert log[-1]["best_epoch"] == 4
    assert torch.equal(weights(module), seen[1])


def test_a_better_validation_renews_the_patience(tmp_path: Path) -> None:
    """Bad validations count from the best one on, not from the start."""
    module = model()
    validate, _ = script([0.2, 0.1, 0.3, 0.2, 0.4, 0.3], module)
    settings = config(validate_every=1, patience=2)
    log = train(module, Rows(), terms_of(module), settings, never(tmp_path), "", validate=validate)

    assert (len(log), log[-1]["best_epoch"]) == (6, 5)


def test_the_last_epoch_is_always_validated(tmp_path: Path) -> None:
    """Six epochs with a validation every four have one after the fourth and one at the end."""
    module = model()
    validate, _ = script([0.1, 0.2], module)
    log = train(module, Rows(), terms_of(module), config(validate_every=4), never(tmp_path), "", validate=validate)

    assert [row["epoch"] for row in log if "validation" in row] == [4, 6]


def test_without_validations_the_last_average_remains(tmp_path: Path) -> None:
    """A run that is given none, and one that is told never to, end alike."""
    module = model(dropout=0.5)
    validate, seen = script([], module)
    log = train(module, Rows(), terms_of(module), config(), never(tmp_path), "", validate=validate)
    other, other_log = trained(config(validate_every=1, patience=1), tmp_path)

    assert seen == []
    assert torch.equal(weights(module), weights(other))
    assert without_seconds(log) == without_seconds(other_log)
    assert set(log[-1]) == {"epoch", "seconds", "error", "size", "total"}


class EveryFew(Checkpoints):
    """Checkpoints that are due every few steps."""

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(folder, minutes=0)
        self.every, self.calls = every, 0

    def due(self) -> bool:
        self.calls += 1
        return self.calls % self.every == 0


# Validations follow steps 3, 6, 9 and 12: killed before the first, between two, right after one, and with one bad one.
@pytest.mark.parametrize("step", [2, 5, 7, 10, 11])
@pytest.mark.parametrize("save_every", [1, 2, 4])
@pytest.mark.parametrize("device", DEVICES)
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, step: int, save_every: int, device: str) -> None:
    """Weights, log, best average and patience are those of a run that nobody killed, wherever the checkpoint was."""

    def run(folder: Path, killed: int | None = None) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        module, rows = model(dropout=0.5).to(device), Rows()
        terms = terms_of(module) if killed is None else killed_at(killed, terms_of(module))

        def validate() -> float:
            return [0.2, 0.4, 0.3, 0.1][rows.epoch] + 1e-3 * float(torch.rand((), device=device))

        settings = config(validate_every=1, patience=2, epochs=9)
        log = train(module, rows, terms, settings, EveryFew(folder, save_every), "toy", validate=validate)
        return weights(module), without_seconds(log)

    whole, log = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", step)
    resumed, resumed_log = run(tmp_path / "killed")

    assert (len(log), log[-1]["best_epoch"]) == (4, 2)
    assert torch.equal(resumed, whole)
    assert resumed_log == log


@pytest.mark.parametrize("device", DEVICES)
def test_a_bfloat16_run_stays_near_a_float32_one(tmp_path: Path, device: str) -> None:
    """Its losses differ by rounding, and its weights are float32."""
    modules = [model().to(device), model().to(device)]
    full, half = (
        [row["total"] for row in train(module, Rows(), terms_of(module), config(precision=kind), never(tmp_path), "")]
        for module, kind in zip(modules, ("float32", "bfloat16"), strict=True)
    )

    assert half == pytest.approx(full, abs=0.02)
    assert half != pytest.approx(full, abs=1e-5)
    assert {value.dtype for value in modules[1].state_dict().values()} == {torch.float32}


class Means:
    """Sums of four numbers to be learnt by a linear model, in batches of uneven sizes; each epoch has the same ones."""

    def __init__(self, sizes: list[int]) -> None:
        rows = torch.rand(sum(sizes), 4, generator=torch.Generator().manual_seed(1))
        self.parts = list(torch.split(rows, sizes))

    def __len__(self) -> int:
        return len(self.parts)

    def batches(self, epoch: int, first: int = 0) -> Iterator[torch.Tensor]:
        yield from self.parts[first:]


def fitted(
    sizes: list[int], folder: Path, size_of: Callable[[torch.Tensor], float] | None = None, **settings: object
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Return the weights of a linear model whose loss is the mean over a batch's rows, and its log."""
    module = nn.Linear(4, 1)
    with torch.no_grad():
        module.weight.copy_(torch.arange(4.0)[None])
        module.bias.zero_()

    def terms(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": (module(rows) - rows.sum(dim=1, keepdim=True)).square().mean()}

    log = train(module, Means(sizes), terms, config(**settings), never(folder), "means", size_of=size_of)
    return weights(module), without_seconds(log)


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    """Each step of three uneven batches, weighed by their rows, is the step of all of these rows; so is the log."""
    whole, log = fitted([12, 12, 5], tmp_path)
    parts, parts_log = fitted([2, 3, 7, 4, 1, 7, 5], tmp_path, size_of=len, accumulate=3)
    unweighed, _ = fitted([2, 3, 7, 4, 1, 7, 5], tmp_path, accumulate=3)

    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert [row["total"] for row in parts_log] == pytest.approx([row["total"] for row in log], abs=1e-5)
    assert not torch.allclose(unweighed, whole, atol=1e-3)


def test_batches_of_one_size_need_not_be_weighed(tmp_path: Path) -> None:
    whole, _ = fitted([8, 8], tmp_path)
    parts, _ = fitted([4, 4, 4, 4], tmp_path, accumulate=2)

    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("call", [2, 4, 5, 9])
@pytest.mark.parametrize("save_every", [1, 2])
def test_a_run_killed_between_the_batches_of_a_step_resumes_bit_for_bit(
    tmp_path: Path, call: int, save_every: int
) -> None:
    """Epochs of three batches have two steps; the kill is in the second batch of one, or in an epoch's last."""

    def run(folder: Path, killed: int | None = None) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        module = model(dropout=0.5)
        terms = terms_of(module) if killed is None else killed_at(killed, terms_of(module))
        log = train(module, Rows(), terms, config(accumulate=2), EveryFew(folder, save_every), "toy")
        return weights(module), without_seconds(log)

    whole, log = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", call)
    resumed, resumed_log = run(tmp_path / "killed")

    assert torch.equal(resumed, whole)
    assert resumed_log == log


def test_the_schedule_is_the_configured_one(tmp_path: Path) -> None:
    """Half a cosine and a constant rate lead to different weights."""
    ends = [weights(trained(config(schedule=kind), tmp_path)[0]) for kind in ("cosine", "constant", "inverse_sqrt")]

    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])


def test_compilation_is_left_out_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says so, and the weights are those of a run that did not ask for it."""
    plain, _ = trained(config(), tmp_path)
    capsys.readouterr()
    asked, _ = trained(config(compile=True), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "compile" in line]

    assert said == ["compile is ignored: the module lies on cpu, not on cuda"]
    assert torch.equal(weights(asked), weights(plain))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_losses_are_near_plain_ones(tmp_path: Path) -> None:
    """Fused operations round otherwise, and that is all."""
    modules = [model().to("cuda"), model().to("cuda")]
    plain, compiled = (
        [row["total"] for row in train(module, Rows(), terms_of(module), config(compile=asked), never(tmp_path), "")]
        for module, asked in zip(modules, (False, True), strict=True)
    )

    assert compiled == pytest.approx(plain, abs=1e-4)
