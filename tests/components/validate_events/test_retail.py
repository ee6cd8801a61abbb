"""The shipped retail data through the real validation: every count of the protocol, exactly."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.build_sequences import run as build_sequences
from components.validate_events import run as validate_events
from sidrec.data.events import EVENTS
from sidrec.files import read_json
from tests import data_world as world

AS_OF = pl.date(2010, 12, 1)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Validation and sequences on the whole file, once: folder, summary, what it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("retail")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        summary = validate_events.run(world.retail_recipe(), {}, folder)
    inputs = {name: folder / name for name in ("events", "sales", "items_raw")}
    sequences = build_sequences.run(world.retail_recipe(), inputs, folder)
    return folder, {**summary, "sequences": sequences}, printed.getvalue()


Step = tuple[Path, dict[str, Any], str]


def test_every_row_is_accounted_for(step: Step) -> None:
    """rows in = kept + quarantined + merged + anonymous, in the accounting and in print."""
    folder, _, printed = step
    a = read_json(folder / "accounting")

    assert (a["rows_in"], a["kept"], a["quarantined"], a["merged"], a["anonymous"], a["sales"]) == (
        525_461,
        393_636,
        16_215,
        12_661,
        102_949,
        509_246,
    )
    assert (
        "validate_events: rows in 525,461 = kept 393,636 + quarantined 16,215 + merged 12,661"
        " + anonymous (sales only) 102,949" in printed.splitlines()
    )


def test_dropped_rows_belong_to_their_first_rule(step: Step) -> None:
    """Each rule drops what the protocol counts for it, in order."""
    a = read_json(step[0] / "accounting")

    assert [(row["rule"], row["rows"], row["rows_left"]) for row in a["dropped"]] == [
        ("R0", 0, 525_461),
        ("R1", 3, 525_458),
        ("R2", 2_978, 522_480),
        ("R3", 9_581, 512_899),
        ("R4", 2_119, 510_780),
        ("R5", 1_534, 509_246),
        ("R6", 102_949, 406_297),
    ]


def test_observed_faults_are_those_of_the_data_readme(step: Step) -> None:
    """Independent, overlapping counts of the raw file."""
    assert read_json(step[0] / "accounting")["observed"] == {
        "no_customer": 107_927,
        "no_description": 2_928,
        "cancellation": 10_206,
        "quantity_not_positive": 12_326,
        "price_not_positive": 3_690,
        "exact_duplicate": 6_865,
    }


def test_quarantine_holds_the_raw_rows_with_their_rules(step: Step) -> None:
    """16,215 raw rows as text, each with rule and reason, and the counts by rule."""
    quarantine = pl.read_parquet(step[0] / "quarantine")
    counts = dict(quarantine["rule"].value_counts().iter_rows())

    assert counts == {"R1": 3, "R2": 2_978, "R3": 9_581, "R4": 2_119, "R5": 1_534}
    assert quarantine.columns == [*world.retail().columns, "rule", "reason"]
    assert quarantine["reason"].null_count() == 0


def test_tables_have_the_schema_and_the_sizes(step: Step) -> None:
    """Events and sales by the schema, in time order; users, items, invoices and baskets as counted."""
    folder, summary, _ = step
    events, sales = pl.read_parquet(folder / "events"), pl.read_parquet(folder / "sales")

    for table, rows in ((events, 393_636), (sales, 509_246)):
        assert table.height == rows
        assert dict(table.schema) == {name: dtype() for name, dtype in EVENTS.items()}
        assert table.select("timestamp", "position").equals(table.select("timestamp", "position").sort(pl.all()))
    assert sales["user_id"].null_count() == 102_949
    assert (summary["users"], summary["items"], summary["orders"], summary["baskets"]) == (
        4_285,
        4_007,
        18_966,
        16_854,
    )


def test_catalogue_and_windows_are_the_protocols(step: Step) -> None:
    """4,015 items sold by October 31; 1,606 users with a November basket, 1,280 of them with an earlier one."""
    folder, summary, _ = step
    baskets = pl.read_parquet(folder / "baskets")
    november = baskets.filter(pl.col("day") >= pl.date(2010, 11, 1))
    first = november.group_by("user_id").agg(pl.col("day").min())
    earlier = baskets.group_by("user_id").agg(start=pl.col("day").min())
    rows = first.join(earlier, on="user_id").filter(pl.col("start") < pl.col("day"))

    assert summary["sequences"]["catalogue"] == pl.read_parquet(folder / "items").height == 4_015
    assert first.height == 1_606
    assert rows.height == 1_280


def test_december_never_leaves_ingestion(step: Step) -> None:
    """December 1-9 is in the counts of events, and in no basket, no title, no popularity."""
    folder = step[0]
    events = pl.read_parquet(folder / "events")
    day = pl.from_epoch(pl.col("timestamp")).dt.date()
    late = events.filter(day >= AS_OF).unique(["user_id", "item_id", day.alias("day")])
    assert late.height == 13_529

    baskets, items = pl.read_parquet(folder / "baskets"), pl.read_parquet(folder / "items")

    assert baskets.filter(pl.col("day") >= AS_OF).is_empty()
    assert items.filter(pl.col("first_sold") >= pl.date(2010, 11, 1)).is_empty()
    assert (
        items["popularity"].sum() == baskets.filter(pl.col("day") < pl.date(2010, 11, 1))["item_ids"].list.len().sum()
    )


def test_without_december_the_sequences_are_the_same_bytes(tmp_path: Path) -> None:
    """Cutting the raw file at `as_of` changes neither baskets nor items."""
    made = []
    for name, sheet in (
        ("whole", world.retail()),
        ("cut", world.retail().filter(pl.col("InvoiceDate") < "2010-12-01")),
    ):
        folder = tmp_path / name
        folder.mkdir()
        sheet.write_parquet(folder / "raw.parquet")
        recipe = world.retail_recipe(folder / "raw.parquet")
        summary = validate_events.run(recipe, {}, folder)
        build_sequences.run(recipe, {part: folder / part for part in ("events", "sales", "items_raw")}, folder)
        made.append((summary["kept"], (folder / "baskets").read_bytes(), (folder / "items").read_bytes()))

    assert made[0][0] > made[1][0]
    assert made[0][1:] == made[1][1:]


def test_data_docs_show_every_suite(step: Step) -> None:
    """Great Expectations leaves a page per suite, and an index."""
    docs = step[0] / "data_docs"
    pages = {path.name for path in (docs / "validations").rglob("*.html")}

    assert (docs / "index.html").exists()
    assert {"batch-events_columns.html", "batch-rows.html", "batch-kept_events.html", "batch-batch.html"} <= pages
