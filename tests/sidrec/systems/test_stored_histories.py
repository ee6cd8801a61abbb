"""Histories that are mapped are those of plain loops, and a process holds none of them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.quantization.sharding import Shards
from sidrec.systems import batches, history, stored_histories
from sidrec.systems.batches import newest, newest_sizes
from sidrec.systems.history import Histories, History
from sidrec.systems.popularity_masses import recent_counts
from sidrec.systems.s2gr.train import S2GRSystem
from tests.sidrec.systems.test_batches import SAMPLING

CUT = 14_720
MEASURED = Path(__file__).with_name("history_memory.py")

Plain = list[tuple[list[list[int]], list[int]]]


@pytest.fixture(autouse=True)
def blocks_of_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let users and baskets lie across the blocks that are read together."""
    for module in (history, stored_histories, batches):
        monkeypatch.setattr(module, "BLOCK", 7)


@pytest.fixture
def table(world: Any) -> pl.DataFrame:
    """The world's baskets with an unknown item in some, one of nothing else, and a user of nothing else."""
    user, item = pl.col("user_id"), pl.col("item_ids")
    strange = item.list.concat(pl.lit(["?"]))
    own = pl.when(user == "u03").then(pl.lit(["?"])).when(user.str.ends_with("1")).then(strange).otherwise(item)
    first = pl.int_range(pl.len()).over("user_id") == 0
    own = pl.when(first & (user == "u05")).then(pl.lit([], dtype=pl.List(pl.String))).otherwise(own)
    return world.baskets.with_columns(item_ids=own)


def plain(table: pl.DataFrame, catalog: Catalog) -> Plain:
    """Return each user's baskets and days, by loops."""
    users: dict[str, tuple[list[list[int]], list[int]]] = {}
    for row in table.sort("user_id", "day").iter_rows(named=True):
        items = [catalog.index_of[item] for item in row["item_ids"] if item in catalog.index_of]
        if items:
            baskets, days = users.setdefault(row["user_id"], ([], []))
            baskets.append(items)
            days.append((row["day"] - pl.Series([0]).cast(pl.Date)[0]).days)
    return list(users.values())


def as_plain(histories: list[History]) -> Plain:
    return [
        ([part.tolist() for part in np.split(own.items, own.start[1:-1])] if len(own) else [], own.days.tolist())
        for own in histories
    ]


@pytest.mark.parametrize("other_way_round", [False, True])
def test_what_is_mapped_is_what_loops_find(
    world: Any, table: pl.DataFrame, tmp_path: Path, other_way_round: bool
) -> None:
    """Users by id and days in order, also from a table in another order; unknown items leave, and what they emptied."""
    table = table.reverse() if other_way_round else table
    mapped = stored_histories.stored_histories(table.lazy(), world.catalog, tmp_path)

    assert as_plain(mapped[:]) == plain(table, world.catalog)
    assert isinstance(mapped.items.base, np.memmap)


def test_one_that_is_asked_for_can_be_written_to_and_the_map_cannot(
    world: Any, table: pl.DataFrame, tmp_path: Path
) -> None:
    mapped = stored_histories.stored_histories(table.lazy(), world.catalog, tmp_path)
    mapped[0].items[0] = 63

    assert mapped[-1].items.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        mapped.items[0] = 63


def test_what_is_before_a_day_is_what_each_user_has_before_it(world: Any, table: pl.DataFrame) -> None:
    """Their number, themselves, and what is counted over everybody; some users have nothing before it."""
    every = stored_histories.histories_of(table, world.catalog)
    cut = every.before(CUT)
    each = [one.before(CUT) for one in every]

    assert as_plain(cut[:]) == as_plain(each)
    assert cut.sizes().tolist() == [len(one) for one in each]
    assert 0 in cut.sizes()
    assert recent_counts(cut, 64, CUT, 20).tolist() == recent_counts(each, 64, CUT, 20).tolist()
    assert as_plain(cut.before(CUT + 50)[:]) == as_plain(each)


@pytest.mark.parametrize("change", [{}, {"flatten": 3}, {"split_share": 0.1}, {"flatten": 3, "split_share": 0.1}])
@pytest.mark.parametrize("max_positions", [1, 4, 32])
def test_how_much_of_each_user_is_newest_is_known_without_it(
    world: Any, table: pl.DataFrame, change: dict[str, Any], max_positions: int
) -> None:
    """As long as the cut history; a single basket counts where it can be split."""
    sampling = replace(SAMPLING, max_positions=max_positions, **change)
    every = stored_histories.histories_of(table, world.catalog).before(CUT)
    single = sampling.split_share > 0
    lengths = [
        len(newest(one, sampling)) if len(one) > 1 or (single and len(one) == 1 and len(one.items) > 1) else 0
        for one in every
    ]

    assert newest_sizes(every, sampling).tolist() == lengths
    assert len(set(lengths)) > 1


def test_a_fit_on_mapped_histories_has_the_bytes_of_one_in_memory(
    world: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codebook_config: Any,
    model_config: Any,
    training_config: Any,
    repeat_config: Any,
) -> None:
    """Both of its trainings; and nothing of the map is left."""
    system = S2GRSystem(codebook_config, model_config, training_config, repeat_config)
    system.fit(world.inputs(), tmp_path / "mapped")
    monkeypatch.setattr(
        "sidrec.systems.s2gr.train.stored_histories",
        lambda baskets, catalog, folder, shards: Histories.of([*stored_histories.histories_of(baskets, catalog)]),
    )
    system.fit(world.inputs(), tmp_path / "held")
    mapped, held = (load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("mapped", "held"))

    assert mapped.keys() == held.keys()
    assert all(torch.equal(value, held[name]) for name, value in mapped.items())
    assert not (tmp_path / "mapped" / stored_histories.FOLDER).exists()


class Second(Shards):
    """Rank 1 of two, whose rank 0 wrote ten bytes a column."""

    def __init__(self) -> None:
        self.group, self.rank, self.count = None, 1, 2

    def broadcast(self, tensor: Any) -> Any:
        return torch.full_like(tensor, 10)


def test_a_rank_that_does_not_see_what_rank_0_wrote_says_so(world: Any, tmp_path: Path) -> None:
    """Its own disk in place of a shared one would be trained on whatever lies there."""
    with pytest.raises(CheckFailedError, match=r"rank 1 finds .*\[0, 0, 0, 0\] bytes .* rank 0 wrote \[10, "):
        stored_histories.stored_histories(world.baskets.lazy(), world.catalog, tmp_path, Second())


def test_a_process_holds_no_history_however_many_users_there_are(tmp_path: Path) -> None:
    """180 thousand users more take 40 bytes each of it at most, and 108 in columns of its own: indices, no events."""
    done = subprocess.run(
        [sys.executable, str(MEASURED), str(tmp_path), "20000", "200000"], capture_output=True, text=True, check=True
    )
    few, many = map(int, done.stdout.split())

    assert (many - few) / 180_000 < 40
