"""Two gloo processes on loopback that run one function of the tests, each on its own rank."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

_LAUNCH = """
import importlib.util, sys, torch, torch.distributed as dist
torch.set_num_threads(1)
path, name, out = sys.argv[1:4]
dist.init_process_group("gloo")
spec = importlib.util.spec_from_file_location("of_rank", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.save(getattr(module, name)(dist.group.WORLD), f"{out}/{dist.get_rank()}.pt")
dist.destroy_process_group()
"""


def on_ranks(path: str, function: str, folder: Path, ranks: int = 2) -> list[Any]:
    """Return what `function(group)` of the file at `path` returned on each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, path, function, str(folder)],
            env={**os.environ, **world, "RANK": str(rank), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            cwd=Path(__file__).parents[3],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(said)[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(ranks)]
