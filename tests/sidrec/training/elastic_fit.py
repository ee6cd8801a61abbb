"""Run by torchrun: train the toy twice; in its first life rank 1 dies by SIGKILL in the middle of the second run."""

import os
import signal
import sys
from pathlib import Path

import torch

from sidrec.training.checkpoint import Checkpoints
from sidrec.training.loop import train
from sidrec.training.parallel import shards_from_environment
from tests.sidrec.training.toy import Batch, Rows, config, model, terms_of, weights

KILLED_AT = 8


def main(folder: Path) -> None:
    """Write the weights of both runs of this rank."""
    shards = shards_from_environment()
    assert shards is not None
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    for name in ("whole", "killed"):
        module = model(dropout=0.5)
        terms, calls = terms_of(module), iter(range(1, 1000))

        def deadly(batch: Batch, name: str = name) -> dict[str, torch.Tensor]:
            if next(calls) == KILLED_AT and name == "killed" and first_life and shards.rank == 1:  # noqa: B023
                os.kill(os.getpid(), signal.SIGKILL)
            return terms(batch)  # noqa: B023

        # The whole run is done in the first life, and again, from nothing, in the second.
        checkpoints = Checkpoints(folder / f"{name}{'' if name == 'killed' else int(first_life)}", minutes=0)
        train(module, Rows(shards.rank, shards.count), deadly, config(), checkpoints, name, shards=shards)
        (folder / f"{name}-{shards.rank}.bytes").write_bytes(weights(module).numpy().tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
