"""A run's losses, learning rate and validations as TensorBoard event files; the step is the one axis of all of them."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor


class TrainingLogs:
    """The event files of one run, in a folder of its own; without TensorBoard installed there are none.

    Tags: `step/total` and `step/learning_rate` every few steps; at the end of an epoch `epoch/<term>` is a term's mean
    and `validation` what was measured, where something was.

    Args:
        every_steps: steps between two values of the `step/` tags; reading a loss waits for the device.
    """

    def __init__(self, folder: Path, *, every_steps: int = 50) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self._writer: Any = None

    def open(self, step: int) -> None:
        """Write what comes after `step`; what a killed run has already written of it is dropped by its readers."""
        writer = _summary_writer()
        if writer is not None:
            self._writer = writer(str(self.folder), purge_step=step + 1)

    def step(self, step: int, total: float | Float[Tensor, ""], learning_rate: float) -> None:
        """Write one step, if it is one of those written."""
        if self._writer is not None and step % self.every_steps == 0:
            self._writer.add_scalar("step/total", float(total), step)
            self._writer.add_scalar("step/learning_rate", learning_rate, step)

    def epoch(self, step: int, means: dict[str, float], validation: float | None) -> None:
        """Write the epoch that ended with `step`."""
        if self._writer is None:
            return
        for name, value in means.items():
            self._writer.add_scalar(f"epoch/{name}", value, step)
        if validation is not None:
            self._writer.add_scalar("validation", validation, step)

    def flush(self) -> None:
        """Put on disk what has been written: a checkpoint's run does not write it again."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@cache
def _summary_writer() -> Any:
    """Return TensorBoard's writer, or None; the first time a line on stderr says that it is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("tensorboard is not installed: no event files; pip install 'sidrec[training]'", file=sys.stderr)
        return None
    return SummaryWriter
