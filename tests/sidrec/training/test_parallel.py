"""Two ranks train as one process does."""

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization.sharding import Shards
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.loop import train
from sidrec.training.parallel import Reduction, shards_from_environment, sum_gradients
from tests.sidrec.quantization.shard_world import on_ranks
from tests.sidrec.training.toy import Batch, Killed, Rows, config, killed_at, model, never, terms_of, weights

# Names the folder that both ranks see.
FOLDER = "SIDREC_TEST_FOLDER"

# What is wrong with the second rank, and what every rank says to it.
SPOILT = {
    "start": "CheckFailedError: the model at the start differs between ranks",
    "end": "CheckFailedError: the trained model differs between ranks",
    "names": "UsageError: a part's loss terms are ['error', 'other', 'size', 'total']",
    "steps": "UsageError: ranks have [3, 2] steps an epoch",
    "resume": "CheckFailedError: ranks go on from steps [17, 0]",
}


def terms_or_none(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """An empty part has no terms at all."""
    return terms_of(module)(batch) if len(batch[0]) else {}


def run(shards: Shards, folder: Path, *, or_none: bool = False, accumulate: int = 1) -> dict[str, Any]:
    """Train the toy without dropout; rank 1 says that the first epoch was best, and rank 0 that the fourth was."""
    module = model()
    values = iter([0.1, 0.2, 0.3, 0.4, 0.3, 0.2] if shards.rank == 0 else [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    log = train(
        module,
        Rows(shards.rank, shards.count),
        partial(terms_or_none, module) if or_none else terms_of(module),
        config(validate_every=1, patience=2, accumulate=accumulate),
        never(folder),
        "toy",
        validate=lambda: next(values),
        shards=shards,
    )
    return {"log": log, "weights": weights(module)}


def resumed_run(shards: Shards, folder: Path) -> dict[str, Any]:
    """Train with dropout, once without a break and once killed during step 8; return both runs' weights."""

    def dropping(name: str, killed: int | None = None) -> Tensor:
        module = model(dropout=0.5)
        terms = terms_of(module) if killed is None else killed_at(killed, terms_of(module))
        checkpoints = Checkpoints(folder / name, minutes=0)
        train(module, Rows(shards.rank, shards.count), terms, config(), checkpoints, "toy", shards=shards)
        return weights(module)

    whole = dropping("whole")
    with pytest.raises(Killed):
        dropping("killed", 8)
    # Both are dead before either starts again: rank 0 may still have been writing.
    shards.sizes(0)
    return {"whole": whole, "resumed": dropping("killed")}


class Fewer(Rows):
    """Epochs of two steps."""

    def __len__(self) -> int:
        return 2


def refusal(shards: Shards, folder: Path, spoil: str) -> str:
    """Return why a run is refused whose second rank is spoilt, or whose terms change under way."""
    module, calls, second = model(), iter(range(1, 100)), shards.rank == 1
    terms = terms_of(module)

    def spoilt(batch: Batch) -> dict[str, Tensor]:
        call = next(calls)
        if spoil == "end" and call == 18 and second:
            shift(module)
        other = {"other": torch.zeros(())} if spoil == "names" and call == 2 else {}
        return {**terms(batch), **other}

    if spoil == "start" and second:
        shift(module)
    rows = (Fewer if spoil == "steps" and second else Rows)(shards.rank, shards.count)
    # `whole` has the checkpoint of another run; the second rank does not see it.
    checkpoints = Checkpoints(folder / "whole", minutes=1e9) if spoil == "resume" and not second else never(folder)
    try:
        train(module, rows, spoilt, config(), checkpoints, "toy", shards=shards)
    except (CheckFailedError, UsageError) as error:
        return f"{type(error).__name__}: {error.message}"
    return ""


@torch.no_grad()
def shift(module: nn.Module) -> None:
    """Make the weights differ a little from what they were."""
    for parameter in module.parameters():
        parameter.add_(0.01)


def gradients(shards: Shards) -> list[list[float] | None]:
    """Return the summed gradients of three parameters: both ranks have the first, rank 1 the second, none the third."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (1 + shards.rank)
    if shards.rank == 1:
        parameters[1].grad = torch.tensor([5.0, 6.0])
    sum_gradients(parameters, shards)
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def first_part_empty(shards: Shards) -> dict[str, float]:
    """Return the terms of a first step whose part is empty on rank 0."""
    parameter = nn.Parameter(torch.ones(1))
    terms = {} if shards.rank == 0 else {"total": 3 * parameter.sum(), "more": torch.tensor(2.0)}
    return {name: float(value) for name, value in Reduction([parameter], shards).backward([(1.0, terms)]).items()}


def everything(group: dist.ProcessGroup) -> dict[str, Any]:
    """What one of two ranks has to say to all tests below: starting processes is what takes time."""
    shards, folder = Shards(group), Path(os.environ[FOLDER])
    return {
        "run": run(shards, folder),
        "or_none": run(shards, folder, or_none=True),
        "accumulated": run(shards, folder, or_none=True, accumulate=3),
        "resumed": resumed_run(shards, folder),
        "refused": {spoil: refusal(shards, folder, spoil) for spoil in SPOILT},
        "gradients": gradients(shards),
        "first_empty": first_part_empty(shards),
        "checkpoints": sorted(path.name for path in (folder / "whole").iterdir()),
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        return on_ranks(__file__, "everything", folder)


def test_two_ranks_have_the_losses_of_one_process(answers: list[Any], tmp_path: Path) -> None:
    """Every term of every epoch is the same to 1e-5, validations and early stop are rank 0's, weights are equal."""
    one, three = run(Shards(), tmp_path), run(Shards(), tmp_path, accumulate=3)

    assert not torch.allclose(one["weights"], three["weights"], atol=1e-3)
    for kind, alone in (("run", one), ("or_none", one), ("accumulated", three)):
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in alone["log"]]
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
        for answer in answers:
            for row, expected in zip(answer[kind]["log"], rows, strict=True):
                assert {name: value for name, value in row.items() if name != "seconds"} == pytest.approx(
                    expected, abs=1e-5
                )
            torch.testing.assert_close(answer[kind]["weights"], alone["weights"], atol=1e-5, rtol=0)
        assert torch.equal(answers[0][kind]["weights"], answers[1][kind]["weights"])


def test_killed_ranks_resume_bit_for_bit(answers: list[Any]) -> None:
    """Each rank's draws go on where they were, though rank 0 alone writes."""
    for answer in answers:
        assert torch.equal(answer["resumed"]["resumed"], answer["resumed"]["whole"])
        assert answer["checkpoints"] == ["step-00000017"]


@pytest.mark.parametrize(("spoil", "message"), SPOILT.items())
def test_ranks_that_differ_are_refused(answers: list[Any], spoil: str, message: str) -> None:
    """On every rank, and before they wait for one another for ever."""
    for answer in answers:
        assert answer["refused"][spoil].startswith(message)


def test_a_gradient_is_the_sum_of_those_that_ranks_have(answers: list[Any]) -> None:
    """A parameter that no rank uses has none, as in one process."""
    for answer in answers:
        assert answer["gradients"] == [[3.0, 6.0], [5.0, 6.0], None]


def test_a_first_part_may_be_empty(answers: list[Any]) -> None:
    """The other rank's terms tell what there is to sum."""
    assert [answer["first_empty"] for answer in answers] == [{"total": 3.0, "more": 2.0}] * 2


def test_a_process_that_runs_alone_has_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without torchrun's variables nor with a world of one."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert shards_from_environment() is None

    monkeypatch.setenv("WORLD_SIZE", "1")

    assert shards_from_environment() is None


def test_torchruns_processes_find_one_another(tmp_path: Path) -> None:
    """Two calls in a process are one group; ending right after a sum is no failure."""
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, pathlib, torch\n"
        "from sidrec.training.parallel import shards_from_environment\n"
        "shards, again = shards_from_environment(), shards_from_environment()\n"
        "total = int(again.sum(torch.tensor(shards.rank + 1)))\n"
        "pathlib.Path(sys.argv[1], f'{shards.rank}.txt').write_text(f'{shards.count} {total}')\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *address, str(script), str(tmp_path)],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )

    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["2 3", "2 3"]
