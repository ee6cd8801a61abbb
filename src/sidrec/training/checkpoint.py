"""A training run on disk: whole or absent, and enough of it to go on bit for bit.

Tensors are safetensors, everything else is JSON; nothing is pickled.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from sidrec import files
from sidrec.errors import UsageError
from sidrec.quantization.sharding import Shards
from sidrec.training.device import device_of, random_states, set_random_states
from sidrec.training.fully_sharded import split_as, split_like, whole

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
        save_file(_apart(tensors), partial / TENSORS)
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


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, none in another's memory: tied weights are written once a name."""
    taken: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        apart[name] = own.clone() if own.data_ptr() in taken else own
        taken.add(own.data_ptr())
    return apart


def training_tensors(
    module: nn.Module, average: dict[str, Tensor], optimizer: optim.Optimizer, shards: Shards | None = None
) -> dict[str, Tensor]:
    """Return everything a step changes, in one piece, torch's random state of every rank included.

    Every rank calls it.
    """
    shards, device = shards or Shards(), device_of(module)
    tensors = {f"module.{name}": whole(value) for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": whole(value) for name, value in average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": whole(value) for name, value in values.items()}
    return tensors | {name: shards.gather(state.to(device)[None]) for name, state in random_states(device).items()}


def restore_training(
    tensors: dict[str, Tensor],
    module: nn.Module,
    average: dict[str, Tensor],
    optimizer: optim.Optimizer,
    shards: Shards | None = None,
) -> None:
    """Put module, average, optimiser and torch's random state back as `training_tensors` saw them.

    Raises:
        UsageError: the checkpoint is of another number of ranks.
    """
    shards = shards or Shards()
    # One row a rank; of a rank alone the file may hold the row itself.
    states = {name: rows.reshape(-1, rows.shape[-1]) for name, rows in tensors.items() if name in ("rng", "rng_cuda")}
    if len(states["rng"]) != shards.count:
        raise UsageError(
            f"the checkpoint is of {len(states['rng'])} ranks, and this run has {shards.count}",
            next_step="go on with as many ranks, or remove the checkpoint to start afresh",
        )
    module.load_state_dict(split_like(module.state_dict(), under("module.", tensors)))
    for name, value in split_like(average, under("average.", tensors)).items():
        average[name].copy_(value)
    learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer.", tensors).items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = split_as(learnt[int(index)], value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    set_random_states({name: rows[shards.rank] for name, rows in states.items()}, device_of(module))


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
