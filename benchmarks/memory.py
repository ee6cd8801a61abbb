"""How much memory a streamed fit takes: `python -m benchmarks.memory fit|nothing FILE COUNT WIDTH` in its own process.

Prints the process's peak in bytes; `nothing` imports the same and fits nothing, so the difference is the fit's.
"""

import contextlib
import ctypes
import gc
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import torch

from benchmarks.mixture import file_blocks
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.residual_kmeans import fit_blocks

ROOT = Path(__file__).parents[1]


def streamed_peak(path: Path, count: int, width: int) -> int:
    """Return the bytes that a fit of the file's vectors, read block by block, adds to a process's peak."""
    fit, nothing = (_peak(what, path, count, width) for what in ("fit", "nothing"))
    return fit - nothing


def _peak(what: str, path: Path, count: int, width: int) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", what, str(path), str(count), str(width)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    """Fit, or not, and print the peak."""
    what, path, count, width = sys.argv[1:]
    torch.set_num_threads(1)
    config = CodebookConfig.model_validate({"quantizer": "residual_kmeans", "kmeans_iterations": 20})
    if what == "fit":
        fit_blocks(file_blocks(Path(path), int(count), int(width)), config, seed=0)
    print(peak_bytes())


def private_bytes() -> int:
    """Return the bytes that are this process's own now, once what it freed is the machine's again: no page of a file.

    Where the system does not say, the most that the process ever had.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _own()


class PrivatePeak:
    """Looks, a hundred times a second, how many more private bytes the process has than when the block began."""

    bytes = 0

    def __enter__(self) -> Self:
        self._before, self._done = private_bytes(), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, _own() - self._before)


def _own() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def peak_bytes() -> int:
    """Return the most memory this process had; `ru_maxrss` would start at what the parent had when it forked."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
