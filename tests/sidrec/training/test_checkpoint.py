"""Checkpoints are whole or absent and bring everything back."""

from pathlib import Path

import pytest
import torch

from sidrec.training.checkpoint import Checkpoints, restore_training, training_tensors
from sidrec.training.optim import adamw, schedule


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


def test_nothing_on_disk_is_a_pickle(tmp_path: Path) -> None:
    """Reading a checkpoint runs no code."""
    module, average, optimizer = stepped(0)
    Checkpoints(tmp_path, minutes=0).save(1, training_tensors(module, average, optimizer), {})

    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


@pytest.mark.parametrize(("step_number", "share"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)])
def test_the_rate_rises_then_falls_as_half_a_cosine(step_number: int, share: float) -> None:
    """Ten of a hundred steps warm up."""
    assert schedule(step_number, total=100, warmup_share=0.1) == pytest.approx(share, abs=1e-9)


def test_vectors_do_not_decay() -> None:
    """With zero gradients a step shrinks matrices only."""
    module = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(module.weight)
    torch.nn.init.ones_(module.bias)
    optimizer = adamw(module.named_parameters(), learning_rate=0.1, weight_decay=0.5)
    (0 * module(torch.ones(1, 2))).sum().backward()
    optimizer.step()

    assert (module.weight < 1).all()
    assert torch.equal(module.bias, torch.ones(2))
