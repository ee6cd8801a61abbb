"""Cleaning loses no row, merges equal lines and titles items by what was known before the gate."""

from datetime import date
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.accounting import account, accounting_lines
from sidrec.data.adapters.online_retail import OnlineRetail
from sidrec.data.batch import placed
from sidrec.data.cleaning import clean
from sidrec.data.config import DataConfig
from sidrec.data.counting import count
from sidrec.data.tables import Polars

GATE_START = date(2010, 11, 1)
SCHEMA = {
    "Invoice": pl.String,
    "StockCode": pl.String,
    "Description": pl.String,
    "Quantity": pl.Int64,
    "InvoiceDate": pl.String,
    "Price": pl.Float64,
    "Customer ID": pl.Int64,
    "Country": pl.String,
}


class Result(NamedTuple):
    """The tables of a cleaned sheet."""

    events: pl.DataFrame
    sales: pl.DataFrame
    items_raw: pl.DataFrame
    quarantine: pl.DataFrame


def cleaned(rows: list[tuple[object, ...]], watermark: date | None = None) -> tuple[Result, dict[str, object]]:
    """Clean hand-written line items: (invoice, code, title, quantity, time, price, customer)."""
    return cleaned_sheet(
        pl.DataFrame([(*row, "United Kingdom") for row in rows], schema=SCHEMA, orient="row"), watermark
    )


def cleaned_sheet(sheet: pl.DataFrame, watermark: date | None = None) -> tuple[Result, dict[str, object]]:
    adapter = OnlineRetail(DataConfig(adapter="online_retail", events=Path("unused.parquet")))
    engine, nowhere = Polars(), Path()
    shown = placed(sheet)
    source = adapter.source(engine.lift(adapter.rows(shown), nowhere), engine.lift(shown, nowhere), None)
    made = clean(source, engine, nowhere, gate_start=GATE_START, watermark=watermark)
    tables = (made.events.frame, made.sales.frame, made.items_raw.frame, made.quarantine.frame)
    return Result(*tables), account(count(made))


NOON = "2010-10-01 12:00:00"


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (("A563185", "B", "Adjust bad debt", 1, NOON, 11062.06, None), "R1"),
        (("489434", "POST", "POSTAGE", 1, NOON, 18.0, 1), "R2"),
        (("489434", " m ", "Manual", 1, NOON, 18.0, 1), "R2"),
        (("489434", "gift_0001_20", "voucher", 1, NOON, 18.0, 1), "R2"),
        (("489434", None, "no code", 1, NOON, 18.0, 1), "R2"),
        (("C489434", "D", "Discount", -1, NOON, 18.0, 1), "R2"),
        (("C489434", "85048", "BALL", -1, NOON, 1.0, 1), "R3"),
        (("489434", "85048", "damaged", -9, NOON, 0.0, None), "R4"),
        (("489434", "85048", "BALL", None, NOON, 1.0, 1), "R4"),
        (("489434", "85048", "BALL", 1, NOON, 0.0, 1), "R5"),
        (("489434", "85048", "BALL", 1, NOON, float("nan"), 1), "R5"),
        (("489434", "85048", "BALL", 1, "2010-13-45 12:00:00", 1.0, 1), "R0"),
    ],
)
def test_a_bad_row_is_quarantined_under_its_first_rule(row: tuple[object, ...], rule: str) -> None:
    """The quarantine shows the raw row, the first rule that it breaks and the reason."""
    result, _ = cleaned([row])

    (seen,) = result.quarantine.iter_rows(named=True)
    assert (seen["rule"], seen["Invoice"]) == (rule, row[0])
    assert seen["reason"]
    assert result.events.is_empty()
    assert result.sales.is_empty()


@pytest.mark.parametrize("code", ["DCGS0058", "SP1002", "15056BL", "79323LP", "85048"])
def test_odd_products_stay(code: str) -> None:
    """Codes that merely look odd are products."""
    result, _ = cleaned([("489434", code, "THING", 1, NOON, 1.0, 1)])

    assert result.events["item_id"].to_list() == [code]


def test_an_anonymous_sale_counts_for_items_only() -> None:
    """A sale without a customer is a sale, no event and no fault."""
    result, numbers = cleaned([("489434", "85048", "BALL", 1, NOON, 1.0, None)])

    assert (result.sales.height, result.events.height, result.quarantine.height) == (1, 0, 0)
    assert result.items_raw["title"].to_list() == ["BALL"]
    assert numbers["anonymous"] == 1


def test_lines_of_one_invoice_and_code_are_one_event() -> None:
    """Merged lines sum their quantities and keep the first line's place, time and price."""
    result, numbers = cleaned(
        [
            ("489434", "85048", "BALL", 2, NOON, 1.0, 7),
            ("489434", "22041", "OTHER", 1, NOON, 3.0, 7),
            ("489434", "85048 ", "BALL", 5, "2010-10-01 12:01:00", 9.0, 7),
            ("489435", "85048", "BALL", 1, NOON, 1.0, 7),
        ]
    )

    rows = result.events.select("item_id", "quantity", "price", "position").rows()
    assert rows == [("85048", 7.0, 1.0, 0), ("22041", 1.0, 3.0, 1), ("85048", 1.0, 1.0, 3)]
    assert numbers["merged"] == 1


def test_case_variants_are_one_code() -> None:
    """85114b is 85114B."""
    result, _ = cleaned([("1", "85114b", "T", 1, NOON, 1.0, 1), ("2", "85114B ", "T", 1, NOON, 1.0, 1)])

    assert result.events["item_id"].unique().to_list() == ["85114B"]


def test_canonical_title_is_the_most_frequent_then_the_latest_before_the_gate() -> None:
    """Frequency first, ties to the latest, spaces collapsed; titles used from the gate on do not count."""
    late = "2010-11-05 12:00:00"
    rows = [("1", "10001", title, 1, f"2010-10-0{n} 12:00:00", 1.0, None) for n, title in enumerate("AABBA", start=1)]
    rows += [("2", "10002", "OLD", 1, "2010-10-01 12:00:00", 1.0, 1), ("3", "10002", "NEW", 1, NOON, 1.0, 1)]
    rows += [("4", "10001", "LATE", 1, late, 1.0, 1)] * 9
    rows += [("5", "10003", " RED  SPOT ", 1, NOON, 1.0, 1), ("6", "10004", "GATE ONLY", 1, late, 1.0, 1)]

    result, _ = cleaned(rows)

    titles = dict(result.items_raw.select("item_id", "title").rows())
    assert titles == {"10001": "A", "10002": "NEW", "10003": "RED SPOT"}


def test_watermark_cuts_the_days_that_are_not_whole() -> None:
    """Rows from the watermark on are set aside under W1 and counted."""
    rows = [("1", "10001", "T", 1, f"2010-10-0{n} 12:00:00", 1.0, 1) for n in (1, 2, 3)]

    result, numbers = cleaned(rows, watermark=date(2010, 10, 3))

    assert result.sales.height == 2
    assert result.quarantine["rule"].to_list() == ["W1"]
    assert numbers["quarantined"] == 1


ROW = st.tuples(
    st.sampled_from(["1", "2", "C3", "A4"]),
    st.sampled_from(["10001", "10002", "POST", None]),
    st.sampled_from(["T", None]),
    st.sampled_from([1, 2, 0, -1, None]),
    st.sampled_from([NOON, "2010-11-02 09:00:00", "not a time"]),
    st.sampled_from([1.0, 0.0, None]),
    st.sampled_from([1, 2, None]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=40))
def test_no_row_is_lost(rows: list[tuple[object, ...]]) -> None:
    """Rows in = kept + quarantined + merged + anonymous, and quantities survive the merge."""
    result, numbers = cleaned(rows)
    parts = [numbers[name] for name in ("kept", "quarantined", "merged", "anonymous")]
    bought = result.sales.filter(pl.col("user_id").is_not_null())["quantity"].sum()

    assert numbers["rows_in"] == len(rows) == sum(parts)  # type: ignore[arg-type]
    assert result.events["quantity"].sum() == bought
    assert accounting_lines(numbers)[0].startswith(f"rows in {len(rows)} = kept {numbers['kept']}")


def test_a_column_called_rule_is_kept_apart() -> None:
    """A raw column that has the quarantine's own name is shown under source_."""
    sheet = pl.DataFrame(
        [("C1", "10001", "T", 1, NOON, 1.0, 1, "UK", "theirs", [1])],
        schema={**SCHEMA, "rule": pl.String, "lists": pl.List(pl.Int64)},
        orient="row",
    )

    quarantine = cleaned_sheet(sheet)[0].quarantine

    assert quarantine.select("source_rule", "rule").rows() == [("theirs", "R3")]
    assert "lists" not in quarantine.columns
