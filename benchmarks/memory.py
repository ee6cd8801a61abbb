"""How much memory a streamed fit takes: `python -m benchmarks.memory fit|nothing FILE COUNT WIDTH` in its own process.

Prints the process's peak in bytes; `nothing` imports the same and fits nothing, so the difference is the fit's.
"""

import resource
import subprocess
import sys
from pathlib import Path

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


def peak_bytes() -> int:
    """Return the most memory this process had; `ru_maxrss` would start at what the parent had when it forked."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
