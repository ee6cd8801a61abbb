"""A training run on disk: whole or absent, and enough of it to go on bit for bit.

Tensors are safetensors, everything else is JSON; nothing is pickled.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from sidrec import files

STATE = "state.json"
TENSORS = "tensors.safetensors"


class Checkpoints:
    """The newest checkpoint of one run, in `folder/step-<n>/`.

    Args:
        folder: this run's alone.
        minutes: least time between two checkpoints.
    """

    def __init__(self, folder: Path, *, minutes: float) -> None:
        self.folder = folder
        self.minutes = minutes
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether the last checkpoint is old enough for a new one."""
        return time.monotonic() - self._last >= 60 * self.minutes

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint and drop older ones; a crash leaves the older one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".tmp-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
        files.write_json_atomic(partial / STATE, state)
        final = self.folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for other in self.folder.glob("step-*"):
            if other != final:
                shutil.rmtree(other)
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest checkpoint's tensors and state, or None where there is none."""
        found = sorted(path for path in self.folder.glob("step-*") if (path / STATE).exists())
        if not found:
            return None
        return load_file(found[-1] / TENSORS), files.read_json(found[-1] / STATE)

    def clear(self) -> None:
        """Remove the run's checkpoints: it is finished and its result lies elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def training_tensors(module: nn.Module, average: dict[str, Tensor], optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Return everything a step changes, torch's random state included."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    return tensors | {"rng": torch.get_rng_state()}


def restore_training(
    tensors: dict[str, Tensor], module: nn.Module, average: dict[str, Tensor], optimizer: optim.Optimizer
) -> None:
    """Put module, average, optimiser and torch's random state back as `training_tensors` saw them."""
    module.load_state_dict(_under("module.", tensors))
    for name, value in _under("average.", tensors).items():
        average[name].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
