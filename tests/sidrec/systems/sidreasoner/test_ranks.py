"""Two ranks fit SIDReasoner as one process does, whether each holds the weights or a half of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sidrec.systems.sidreasoner.batches import TokenBatches
from sidrec.systems.sidreasoner.encoding import Sample
from tests.sidrec.systems.sidreasoner import rank_fit
from tests.sidrec.systems.sidreasoner.test_train import digests, inputs_of, system_of

ROOT = Path(__file__).parents[4]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def fits(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fits by one process and by two gloo processes under torchrun, side by side."""
    folder = tmp_path_factory.mktemp("ranks")
    source = folder / "world"
    source.mkdir()
    inputs = inputs_of(world)
    inputs.baskets.sink_parquet(source / "baskets.parquet")
    inputs.catalog.write(source / "catalogue.parquet")
    shutil.copytree(inputs.codebook, source / "codebook")
    system_of().prepare(inputs, source)
    rank_fit.fit(source, folder / "alone")
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "-m", rank_fit.__name__, str(source), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-30000:]
    return folder


def said(fits: Path) -> list[Any]:
    return [json.loads((fits / f"said-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", ["together", "split"])
def test_two_ranks_have_the_loss_curve_and_the_weights_of_one(fits: Path, name: str) -> None:
    """Over both stages, validation by held-out rows among them."""
    ours, theirs = (
        [json.loads(line) for line in (fits / run / "model" / "training_log.jsonl").read_text().splitlines()]
        for run in ("alone", name)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert other.pop("stage") == one.pop("stage")
        assert {**other, "seconds": 0} == pytest.approx({**one, "seconds": 0}, abs=1e-4)
    alone, together = (
        load_file(fits / run / "model" / "language_model" / "model.safetensors") for run in ("alone", name)
    )
    for weight, value in alone.items():
        torch.testing.assert_close(together[weight], value, atol=1e-3, rtol=1e-3)


def test_of_split_weights_a_rank_holds_a_half(fits: Path) -> None:
    """In both stages; a vector of odd length goes to one of them."""
    for rank in said(fits):
        assert rank["held"][:2] == pytest.approx([0.5, 0.5], abs=0.02)


def test_a_killed_fit_of_split_weights_ends_with_the_same_bytes(fits: Path) -> None:
    """Its checkpoint holds the whole of everything, the optimiser's state too."""
    assert [len(rank["left"]) for rank in said(fits)] == [1, 1]
    assert digests(fits / "killed" / "model") == digests(fits / "split" / "model")


def test_ranks_do_not_write_the_corpus_nor_split_adapters(fits: Path) -> None:
    for rank in said(fits):
        assert [message[:36] for message in rank["refused"]] == [
            "2 ranks would each ask the teacher f",
            "training.shard_weights splits what l",
        ]


def test_parts_of_a_batch_have_each_row_once_and_know_the_whole() -> None:
    """Of three ranks the last has no row of two: one with nothing to learn stands in."""
    samples = [Sample(np.arange(4, dtype=np.int32) + 10 * row, np.array([False, True, True, True])) for row in range(2)]
    batch = next(TokenBatches(samples, tokens_per_batch=64, padding=0, seed=0).batches(0))
    parts = [batch.part(rank, 3) for rank in range(3)]

    assert [part.count for part in parts] == [6, 6, 6]
    assert [part.tokens.tolist() for part in parts[:2]] == [[row] for row in batch.tokens.tolist()]
    assert [int(part.learnt.sum()) for part in parts] == [3, 3, 0]
