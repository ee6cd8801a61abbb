"""What purchases are compared with: those that the model was fitted on, the newest of them, or those of named days.

Nothing on or after the gate's first day is a reference unless the caller names those days.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from monitoring.windows import Window, basket_purchases
from sidrec.errors import UsageError

RECENT_DAYS = 28


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows to compare with, and what to call them."""

    name: str
    label: str
    rows: pl.LazyFrame


def purchase_reference(baskets: pl.LazyFrame, name: str, gate_start: date) -> Reference:
    """Return the purchases that `name` asks for.

    Args:
        name: `fit` = every day before the gate window, `recent` = the last 28 of them, or `FIRST..LAST`, two days.

    Raises:
        UsageError: `name` is none of these.
    """
    purchases = basket_purchases(baskets)
    if name == "fit":
        rows = purchases.filter(pl.col("day") < gate_start)
        return Reference(name, f"the fit period up to {gate_start - timedelta(days=1)}", rows)
    recent = Window(gate_start - timedelta(days=RECENT_DAYS), gate_start)
    window = recent if name == "recent" else _named_days(name)
    return Reference(name, str(window), window.days(purchases))


def _named_days(name: str) -> Window:
    first, dots, last = name.partition("..")
    try:
        window = Window(date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1))
    except ValueError:
        dots = ""
    if not dots or window.end <= window.start:
        raise UsageError(
            f"--reference {name!r} is no reference; expected fit, recent, or FIRST..LAST such as 2009-12-01..2010-08-31"
        )
    return window
