"""Checkpoints are whole or absent and bring everything back."""

from pathlib import Path

import pytest
import torch

from sidrec.errors import UsageError
from sidrec.training.checkpoint import Checkpoints, restore_training, training_tensors
from sidrec.training.optim import adamw


def stepped(seed: int) -> tuple[torch.nn.Linear, dict[str, torch.Tensor], torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = torch.nn.Linear(3, 2)
    optimizer = adamw(module.named_parameters(), learning_rate=0.1, weight_decay=0.01)
    average = {name: value.detach().clone() for name, value in module.state_dict().items()}
    step(module, optimizer)
    return module, average, optimizer


def step(module: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.rand(5, 3)).square().sum().backward()
    optimizer.step()


def test_a_restored_run_takes_the_same_next_step(tmp_path: Path) -> None:
    """Weights, moments and the random draw of the next batch all come back."""
    module, average, optimizer = stepped(0)
    Checkpoints(tmp_path, minutes=0).save(1, training_tensors(module, average, optimizer), {"step": 1})
    step(module, optimizer)
    other, other_average, other_optimizer = stepped(1)
    tensors, state = Checkpoints(tmp_path, minutes=0).load() or ({}, {})
    restore_training(tensors, other, other_average, other_optimizer)
    step(other, other_optimizer)

    assert state == {"step": 1}
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, module.bias)


def test_only_the_newest_checkpoint_stays(tmp_path: Path) -> None:
    """An interrupted write beside it is not taken for one."""
    checkpoints = Checkpoints(tmp_path, minutes=0)
    for number in (1, 2, 30):
        checkpoints.save(number, {"x": torch.tensor([number])}, {"step": number})
    (tmp_path / "step-00000099").mkdir()
    tensors, state = checkpoints.load() or ({}, {})

    assert state["step"] == 30
    assert tensors["x"].tolist() == [30]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000030", "step-00000099"]


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    """A first run starts at the beginning."""
    assert Checkpoints(tmp_path / "none", minutes=0).load() is None


def test_tied_weights_come_back_tied(tmp_path: Path) -> None:
    """They have two names and one memory; the file has them twice."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    optimizer = adamw(module.named_parameters(), learning_rate=0.1, weight_decay=0.01)
    average = {name: value.detach().clone() for name, value in module.state_dict().items()}
    expected = module[0].weight.detach().clone()
    Checkpoints(tmp_path, minutes=0).save(1, training_tensors(module, average, optimizer), {})
    torch.nn.init.zeros_(module[0].weight)
    tensors, _ = Checkpoints(tmp_path, minutes=0).load() or ({}, {})
    restore_training(tensors, module, average, optimizer)

    assert torch.equal(module[1].weight, expected)
    assert module[1].weight is module[0].weight


def test_nothing_on_disk_is_a_pickle(tmp_path: Path) -> None:
    """Reading a checkpoint runs no code."""
    module, average, optimizer = stepped(0)
    Checkpoints(tmp_path, minutes=0).save(1, training_tensors(module, average, optimizer), {})

    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_a_checkpoint_of_other_ranks_is_refused(tmp_path: Path) -> None:
    """The random state of a rank that is gone, or of one that is new, is no one's."""
    module, average, optimizer = stepped(0)
    tensors = training_tensors(module, average, optimizer)
    tensors["rng"] = tensors["rng"].repeat(2, 1)

    with pytest.raises(UsageError, match="of 2 ranks, and this run has 1"):
        restore_training(tensors, module, average, optimizer)
