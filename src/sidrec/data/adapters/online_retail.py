"""Online Retail II as published: line items of invoices, raw and dirty."""

from pathlib import Path

import narwhals as nw
import polars as pl

from sidrec.data.adapters.source import PLACE, ColumnFormat, Source, identifier, number, repeats, unix_seconds
from sidrec.data.config import DataConfig
from sidrec.data.tables import Rows, counted
from sidrec.data.events import PARSED, conform
from sidrec.data.rows import RowRule

COLUMNS = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country")

# Carriage, fees, vouchers, adjustments, samples and tests that were booked as if they were stock.
NON_PRODUCT = r"^(?:POST|DOT|M|D|S|B|C2|C3|ADJUST\d*|BANK CHARGES|AMAZONFEE|CRUK|TEST\d+|GIFT|GIFT_\d+_\d+|PADS)$"

RULES = (
    RowRule(rule="R0", name="no_time", column="timestamp", required=True, reason="invoice date is no time"),
    RowRule(rule="R1", name="bad_debt", column="order_id", forbid="^A", reason="invoice is a bad-debt adjustment (A…)"),
    RowRule(
        rule="R2",
        name="non_product",
        column="item_id",
        forbid=NON_PRODUCT,
        required=True,
        reason="stock code is no product",
    ),
    RowRule(rule="R3", name="cancellation", column="order_id", forbid="^C", reason="invoice is a cancellation (C…)"),
    RowRule(rule="R4", name="quantity", column="quantity", above=0, required=True, reason="quantity is not above 0"),
    RowRule(rule="R5", name="price", column="price", above=0, required=True, reason="price is not above 0"),
    RowRule(
        rule="R6",
        name="anonymous",
        column="user_id",
        required=True,
        reason="no customer: counts for items, never for users",
        action="sales_only",
    ),
)

FORMATS = (
    ColumnFormat(column="Invoice", meaning="invoice numbers (6 digits, or C and 6 digits)", pattern=r"^[A-Z]?\d{6}$"),
    ColumnFormat(
        column="StockCode",
        meaning="stock codes (5 digits and perhaps letters)",
        pattern=r"^\s*\d{5}[A-Za-z]{0,3}\s*$",
        mostly=0.95,
        max_null_share=0.01,
    ),
    ColumnFormat(column="Description", meaning="titles (words)", pattern="[A-Za-z]{2}", mostly=0.95),
    ColumnFormat(column="Quantity", meaning="whole numbers", pattern=r"^-?\d+$", max_null_share=0.01),
    ColumnFormat(
        column="InvoiceDate",
        meaning="times (YYYY-MM-DD HH:MM:SS)",
        pattern=r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?$",
        max_null_share=0.01,
    ),
    ColumnFormat(column="Price", meaning="prices (numbers)", pattern=r"^-?\d+(?:\.\d+)?$", max_null_share=0.01),
    ColumnFormat(column="Customer ID", meaning="customer numbers (5 digits)", pattern=r"^\d{5}(?:\.0)?$"),
    ColumnFormat(column="Country", meaning="country names (a few)", pattern=r"^[A-Za-z]", max_distinct=250),
)


class OnlineRetail:
    """Reads the sheet of line items; titles come from its own descriptions."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config

    def paths(self) -> dict[str, Path]:
        """Return the sheet."""
        return {"events": self._config.events}

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of the published sheet."""
        return {"events": COLUMNS}

    def formats(self) -> tuple[ColumnFormat, ...]:
        """Return what each column of the sheet looks like."""
        return FORMATS

    def rows(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return line items with normalised codes: upper case, stripped, so that 85114b is 85114B."""
        title = pl.col("Description").cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()
        rows = events.select(
            PLACE,
            user_id=identifier(pl.col("Customer ID"), events["Customer ID"].dtype).str.strip_suffix(".0"),
            item_id=identifier(pl.col("StockCode"), events["StockCode"].dtype).str.to_uppercase(),
            timestamp=unix_seconds(pl.col("InvoiceDate"), events["InvoiceDate"].dtype, "s"),
            event_type=pl.lit("purchase"),
            quantity=number(pl.col("Quantity")),
            price=number(pl.col("Price")),
            position=PLACE,
            order_id=identifier(pl.col("Invoice"), events["Invoice"].dtype),
            title=pl.when(title != "").then(title),
        )
        return conform(rows, {**PARSED, PLACE: pl.Int64})

    def items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Not called: the sheet has no items file."""
        raise NotImplementedError

    def source(self, rows: Rows, shown: Rows, items: Rows | None) -> Source:
        """Return the sheet, and its faults, each counted on its own, so that a row may count in several."""
        observed = counted(
            shown,
            no_customer=nw.col("Customer ID").is_null().sum(),
            no_description=nw.col("Description").is_null().sum(),
            cancellation=nw.col("Invoice").cast(nw.String).str.starts_with("C").sum(),
        )
        observed |= counted(
            rows, quantity_not_positive=(nw.col("quantity") <= 0).sum(), price_not_positive=(nw.col("price") <= 0).sum()
        )
        return Source(
            rows=rows,
            shown=shown,
            items=None,
            rules=RULES,
            merge_key=("user_id", "order_id", "item_id"),
            observed={**observed, "exact_duplicate": repeats(shown)},
        )
