"""Run by torchrun: fit SIDReasoner on the baskets of a folder, as often as the tests have something to ask."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from torch import nn

from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.systems.base import FitInputs
from sidrec.systems.sidreasoner import sft
from sidrec.systems.sidreasoner.batches import TokenBatches
from sidrec.training.parallel import shards_from_environment
from tests.sidrec.systems.sidreasoner.test_train import Killed, system_of

held: list[float] = []


def inputs_of(world: Path) -> FitInputs:
    """Return the world's files with the corpus that was prepared there."""
    catalog, baskets = Catalog.read(world / "catalogue.parquet"), pl.scan_parquet(world / "baskets.parquet")
    inputs = FitInputs(baskets, pl.LazyFrame(), catalog, world / "codebook", date(2010, 11, 1), 0, 1)
    return replace(inputs, prepared=world / "prepared")


def fit(world: Path, folder: Path, **training: Any) -> None:
    """Fit on the world's files."""
    system_of(training={"checkpoint_minutes": 1e-9, "average_decay": 0.5, **training}).fit(inputs_of(world), folder)


def main(world: Path, out: Path) -> None:
    """Fit with whole weights, with split ones, and with split ones that are killed under way."""
    shards = shards_from_environment()
    assert shards is not None
    fit(world, out / "together")
    plain_split, plain_batches = sft.shard_weights, TokenBatches.batches

    def watched(root: nn.Module, *rest: Any) -> None:
        before = sum(parameter.numel() for parameter in root.parameters())
        plain_split(root, *rest)
        own = sum(parameter.to_local().numel() for parameter in root.parameters())  # type: ignore[attr-defined]
        held.append(own / before)

    sft.shard_weights = watched
    fit(world, out / "split", shard_weights=True)
    given = iter(range(1, 100))

    def dying(self: TokenBatches, epoch: int, first: int = 0) -> Iterator[Any]:
        for batch in plain_batches(self, epoch, first):
            if next(given) == 7:
                raise Killed
            yield batch

    TokenBatches.batches = dying  # type: ignore[method-assign]
    try:
        fit(world, out / "killed", shard_weights=True)
    except Killed:
        # Both are dead before anybody looks, and before either starts again.
        shards.sizes(0)
        left = sorted(path.name for path in (out / "killed" / "checkpoints" / "stage_1").iterdir())
    TokenBatches.batches = plain_batches  # type: ignore[method-assign]
    shards.sizes(0)
    fit(world, out / "killed", shard_weights=True)
    refused = []
    for case in ({"prepared": None}, {}):
        try:
            system = system_of(model={"lora_rank": 2}, training={"shard_weights": True})
            system.fit(replace(inputs_of(world), **case), out / "refused")
        except UsageError as error:
            refused.append(error.message)
    said = {"held": held, "left": left, "refused": refused}
    (out / f"said-{shards.rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
