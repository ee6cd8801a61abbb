"""A rank that dies is started again with the others, and the run ends as if it had not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sidrec.training import elastic_fit

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_killed_rank_is_restarted_by_torchrun_and_the_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Two gloo ranks with dropout, SIGKILL in step 8 of 18: both go on from step 7's checkpoint, not from nothing."""
    elastic = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *elastic, str(Path(elastic_fit.__file__)), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr[-3000:]
    assert f"killed: resumed at step {elastic_fit.KILLED_AT - 1} of 18" in done.stderr
    results = {path.name: path.read_bytes() for path in tmp_path.glob("*.bytes")}
    assert len(results) == 4
    assert len(set(results.values())) == 1
