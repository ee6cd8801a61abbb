"""Two ranks fit S²GR as one process does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sidrec.errors import UsageError
from sidrec.systems.batches import TrainingSet
from sidrec.systems.s2gr.losses import Tables
from sidrec.systems.stored_histories import histories_of
from tests.sidrec.systems.s2gr import rank_fit
from tests.sidrec.systems.s2gr.test_losses import FIT_DAY, SAMPLING, batch, model_of, tables, terms_of

__all__ = ["batch", "tables"]

ROOT = Path(__file__).parents[4]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_gloo_processes_have_the_loss_curve_and_the_weights_of_one(world: Any, tmp_path: Path) -> None:
    """Real processes under torchrun: every loss term of every epoch, InfoNCE over both ranks' targets among them."""
    source = tmp_path / "world"
    source.mkdir()
    world.baskets.write_parquet(source / "baskets.parquet")
    world.catalog.write(source / "catalogue.parquet")
    shutil.copytree(world.codebook, source / "codebook")
    rank_fit.fit(source, tmp_path / "one")
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, str(Path(rank_fit.__file__)), str(source), str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    one, two = (
        [json.loads(line) for line in (tmp_path / name / "model" / "training_log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [set(row) for row in one] == [set(row) for row in two]
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, abs=2e-4)
    ours, theirs = (load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("one", "two"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=2e-3, rtol=2e-3)


def test_the_parts_of_a_batch_add_up_to_it(batch: Any, tables: Tables) -> None:
    """Every term but the contrast, whose negatives are other users' targets."""
    model = model_of(tables).eval()
    whole = terms_of(model, batch, tables)
    parts = [terms_of(model, batch.part(rank, 3), tables) for rank in range(3)]

    for name, value in whole.items():
        if name not in ("contrast", "total"):
            torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_a_batch_of_fewer_users_than_ranks_is_refused(world: Any) -> None:
    data = TrainingSet(histories_of(world.baskets, world.catalog), SAMPLING, fit_day=FIT_DAY, seed=0)
    with pytest.raises(UsageError, match="16 users has no part for each of 17"):
        next(data.batches(0)).part(0, 17)
