"""What a window is compared with: the purchases the model was fitted on, and the requests of the weeks before.

Nothing on or after the gate's first day is a reference unless the caller names those days.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from monitoring.measures import WINDOWS_OF
from monitoring.windows import Window, basket_purchases
from sidrec.errors import UsageError

RECENT_DAYS = 28
WEEKS_BEFORE = 4


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


def weeks_needed(window: Window) -> Window:
    """Return the days whose requests a report of `window` reads: those of its last weeks and of all before each."""
    return Window(window.previous(WEEKS_BEFORE + WINDOWS_OF - 1).start, window.end)


def request_reference(exposures: pl.LazyFrame, window: Window) -> tuple[Reference, pl.LazyFrame]:
    """Return the distinct requests to compare with, and the window's requests that are compared with them.

    They are those of the four weeks before, and all of the window's. Where there are none before, the window's
    first half (by time) stands in and its second half is compared: a first week shows its numbers, but a single
    week cannot warn.
    """
    requests = window.rows(exposures)
    before = window.previous(WEEKS_BEFORE)
    earlier = before.rows(exposures)
    if earlier.select(pl.len()).collect().item():
        return Reference("earlier", f"requests of {before}", earlier), requests
    middle = requests.select(pl.col("event_time").median()).collect().item() or 0.0
    first = requests.filter(pl.col("event_time") < middle)
    second = requests.filter(pl.col("event_time") >= middle)
    return Reference("first_half", "the first half of the same week, as no requests came before it", first), second
