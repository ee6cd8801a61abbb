"""Online Retail II as published: line items of invoices, raw and dirty."""

import polars as pl

from sidrec.data.adapters.source import ColumnFormat, RawTables, Source, identifier, number, read_table, unix_seconds
from sidrec.data.config import DataConfig
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

    def read(self) -> RawTables:
        """Return the sheet."""
        return RawTables({"events": self._config.events}, read_table(self._config.events))

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of the published sheet."""
        return {"events": COLUMNS}

    def formats(self, raw: RawTables) -> tuple[ColumnFormat, ...]:
        """Return what each column of the sheet looks like."""
        return FORMATS

    def parse(self, raw: RawTables) -> Source:
        """Return line items with normalised codes: upper case, stripped, so that 85114b is 85114B."""
        sheet = raw.events
        title = pl.col("Description").cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()
        rows = sheet.select(
            user_id=identifier(pl.col("Customer ID"), sheet["Customer ID"].dtype).str.strip_suffix(".0"),
            item_id=identifier(pl.col("StockCode"), sheet["StockCode"].dtype).str.to_uppercase(),
            timestamp=unix_seconds(pl.col("InvoiceDate"), sheet["InvoiceDate"].dtype, "s"),
            event_type=pl.lit("purchase"),
            quantity=number(pl.col("Quantity")),
            price=number(pl.col("Price")),
            position=pl.int_range(pl.len(), dtype=pl.Int64),
            order_id=identifier(pl.col("Invoice"), sheet["Invoice"].dtype),
            title=pl.when(title != "").then(title),
        )
        return Source(
            rows=conform(rows, PARSED),
            items=None,
            rules=RULES,
            merge_key=("user_id", "order_id", "item_id"),
            observed=_observed(sheet),
        )


def _observed(sheet: pl.DataFrame) -> dict[str, int]:
    """Return the faults of the raw sheet, each counted on its own, so a row may count in several."""
    quantity, price = number(pl.col("Quantity")), number(pl.col("Price"))
    invoice = pl.col("Invoice").cast(pl.String)
    counts = sheet.select(
        no_customer=pl.col("Customer ID").is_null().sum(),
        no_description=pl.col("Description").is_null().sum(),
        cancellation=invoice.str.starts_with("C").sum(),
        quantity_not_positive=(quantity <= 0).sum(),
        price_not_positive=(price <= 0).sum(),
    ).row(0, named=True)
    return {**counts, "exact_duplicate": sheet.height - sheet.n_unique()}
