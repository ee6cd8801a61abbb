"""A bad file stops at validation: one line that names the rule and the evidence, and nothing that was live changes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
RAW = ROOT / "data" / "online_retail" / "transactions.parquet"
SIDREC = str(Path(sys.executable).parent / "sidrec")


def swapped_column(path: Path) -> None:
    raw = pl.read_parquet(RAW)
    raw.rename({"StockCode": "InvoiceDate", "InvoiceDate": "StockCode"}).write_parquet(path)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def truncated_parquet(path: Path) -> None:
    whole = RAW.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def many_null_customers(path: Path) -> None:
    raw = pl.read_parquet(RAW)
    keep = pl.int_range(pl.len()) % 10 >= 6
    raw.with_columns(pl.when(keep).then(pl.col("Customer ID")).alias("Customer ID")).write_parquet(path)


def thin_last_day(path: Path) -> None:
    """The last whole day before the as-of date keeps a tenth of its rows."""
    raw = pl.read_parquet(RAW).filter(pl.col("InvoiceDate") < "2010-12-01")
    last = datetime(2010, 11, 30).strftime("%Y-%m-%d")
    on_last = pl.col("InvoiceDate").str.starts_with(last)
    raw.filter(~on_last | (pl.int_range(pl.len()) % 10 == 0)).write_parquet(path)


CASES = [
    (swapped_column, "schema"),
    (empty_file, "readable"),
    (truncated_parquet, "readable"),
    (many_null_customers, "null_user_share"),
    (thin_last_day, "last_day_volume"),
]


@pytest.mark.parametrize(("spoil", "rule"), CASES, ids=[spoil.__name__ for spoil, _ in CASES])
def test_bad_file_is_blocked(spoil: Callable[[Path], None], rule: str, tmp_path: Path, own_state: Path) -> None:
    """`sidrec run` exits 1 with a one-line reason naming the rule and an evidence file that exists."""
    events = tmp_path / "events.parquet"
    spoil(events)
    recipe = tmp_path / "recipe.yaml"
    text = (ROOT / "pipelines" / "recipes" / "s2gr_debug.yaml").read_text()
    recipe.write_text(text.replace("data/online_retail/transactions.parquet", str(events)))

    done = subprocess.run(
        [SIDREC, "run", "--recipe", str(recipe), "--json"],
        cwd=ROOT,
        env={**os.environ, "SIDREC_HOME": str(own_state)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    error = json.loads(done.stdout)

    assert done.returncode == 1
    assert rule in error["message"]
    assert "\n" not in error["message"]
    assert Path(error["evidence"]).exists()
    assert not (own_state / "ledger").exists()
