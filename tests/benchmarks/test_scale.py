"""Every step runs at every size in its own process; growth is what times say, and what cannot fit is left out."""

import json
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import scale
from benchmarks.histories import histories_written, training_batch
from benchmarks.scale import QUICK, Measured, Sizes
from benchmarks.scale_steps import FAMILIES, ingest, prepare, sequences


def child(costs: list[dict[str, Any]], asked: list[str]) -> Any:
    """Return what answers in a child's place: the costs one after another, and which steps were asked for."""

    def answer(family: str, step: str, count: int, folder: Path) -> "subprocess.CompletedProcess[str]":
        asked.append(f"{step} {count}")
        out = "" if step == "prepare" else json.dumps(costs.pop(0))
        return subprocess.CompletedProcess([], 0, stdout=out, stderr="")

    return answer


def test_a_step_that_grows_too_fast_misses_its_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear at first and squared at the end: the last two sizes count, and the bytes are those of one more item."""
    assign = [{"seconds": 1.0, "wall": 1.0, "added": 10}] * 6
    fit = [
        {"seconds": seconds, "wall": 1.0, "added": added} for seconds, added in ((1, 1000), (10, 10_000), (400, 70_000))
    ]
    asked: list[str] = []
    costs = [cost for pair in zip(fit, assign[:3], strict=True) for cost in pair]
    monkeypatch.setattr(scale, "_child", child(costs, asked))

    rows = {row.name: row for row in scale.rows(Sizes((10, 100, 1000), (), ("vectors",), repeats=1))}

    growth = rows["exponent of time in items, codebook fit"]
    assert growth.ours == pytest.approx(1.602, abs=1e-3)
    assert (growth.goal, growth.met) == ("<= 1.05", False)
    assert rows["exponent of time in items, codebook assign"].met
    assert rows["bytes of peak memory for each of the items, codebook fit"].ours == pytest.approx(69_000 / 990)
    assert asked[:3] == ["prepare 10", "codebook fit 10", "codebook assign 10"]


def test_a_size_that_cannot_fit_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten times what took 3 GB is no run on a machine with 20 GB free."""
    monkeypatch.setattr(scale, "_available", lambda: 20_000_000_000)
    monkeypatch.setattr(scale, "_child", child([], []))

    one = scale._measured("events", "ingest", 10_000_000, tmp_path, 1, [Measured(1_000_000, [1.0], 3_000_000_000, "")])

    assert (one.seconds, one.notes) == ([], "left out: about 30 GB, and 20 GB are free")


def test_a_step_that_fails_has_no_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Killed for memory, it says with what status."""
    monkeypatch.setattr(
        scale, "_child", lambda *asked: subprocess.CompletedProcess([], -9, stdout="", stderr="no memory left")
    )

    row = scale._row("ingest", scale._measured("events", "ingest", 10, tmp_path, 1, []))

    assert (row.ours, row.notes) == (None, "ended with status -9: no memory left")


def test_the_events_are_a_shops(tmp_path: Path) -> None:
    """A tenth is anonymous, about a hundredth has no quantity above 0; cleaning makes the tables that were prepared."""
    prepare("events", 5_000, tmp_path)
    raw = pl.read_parquet(tmp_path / "raw.parquet")
    kept = ingest(5_000, tmp_path)["kept"]

    assert (raw.height, raw["item_id"].n_unique() > 300) == (5_000, True)
    assert raw["user_id"].null_count() == pytest.approx(500, rel=0.2)
    assert kept == raw.filter(pl.col("user_id").is_not_null() & (pl.col("quantity") > 0)).height
    for name, order in (("sales", "position"), ("events", "position"), ("items_raw", "item_id")):
        made, prepared = (pl.read_parquet(tmp_path / f"{name}.{end}").sort(order) for end in ("cleaned", "parquet"))
        assert made.equals(prepared), name
    assert 2 < kept / sequences(5_000, tmp_path)["baskets"] < 6


def test_histories_are_written_of_every_event_of_a_table_in_order(tmp_path: Path) -> None:
    """Each event takes 4 bytes, a basket 12, a user 8; what a process holds is said by user."""
    prepare("histories", 12_000, tmp_path)
    table = pl.read_parquet(tmp_path / "baskets.parquet")
    events, users = int(table["item_ids"].list.len().sum()), table["user_id"].n_unique()
    cost = histories_written(12_000, tmp_path)

    assert table.equals(table.sort("user_id", "day"))
    assert cost["events"] == events == pytest.approx(12_000, rel=0.1)
    assert cost["file MB"] == round((4 * events + 12 * len(table) + 8 * users + 16) / 1e6, 1)
    assert training_batch(12_000, tmp_path)["users"] == users


@pytest.mark.slow
def test_every_row_is_measured_and_none_is_judged_at_quick_sizes() -> None:
    """Two sizes a step, an exponent and its bytes, with the schema's keys."""
    rows = scale.run(quick=True)["results"]

    assert len(rows) == 4 * sum(len(steps) for steps in FAMILIES.values())
    assert all({"name", "ours", "peer", "ratio", "goal", "met", "spread"} <= row.keys() for row in rows)
    assert all(row["met"] is None and row["goal"] is None and row["ours"] is not None for row in rows)
    assert not QUICK.judged
