"""Print the private bytes of a process that draws batches from mapped histories, for each number of users."""

import ctypes
import gc
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from sidrec.systems.batches import TrainingSet
from sidrec.systems.history import Histories
from sidrec.systems.stored_histories import COLUMNS, open_histories
from tests.sidrec.systems.test_batches import SAMPLING

BASKETS, ITEMS = 5, 2


def write(users: int, folder: Path) -> None:
    """Write users of five baskets of two items."""
    count = users * BASKETS
    histories = Histories(
        np.arange(count * ITEMS) % 1000,
        np.arange(count + 1) * ITEMS,
        np.arange(count) % BASKETS,
        np.arange(users + 1) * BASKETS,
    )
    folder.mkdir()
    for name, kind in COLUMNS.items():
        getattr(histories, name).astype(kind).tofile(folder / name)


def private_bytes(folder: Path) -> int:
    """Return what is the process's own while an epoch is under way."""
    steps = TrainingSet(open_histories(folder), replace(SAMPLING, batch_users=64), fit_day=9, seed=0).batches(0)
    for _ in range(20):
        next(steps)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


if __name__ == "__main__":
    scratch, *counts = sys.argv[1:]
    for users in counts:
        write(int(users), Path(scratch) / users)
    private_bytes(Path(scratch) / counts[0])
    print(*(private_bytes(Path(scratch) / users) for users in counts))
