"""Which spans of time a report compares: its week, the weeks before, and which of them each is compared with.

Axes: numbers are those of `parts`.
"""

from dataclasses import dataclass
from math import ceil

import polars as pl

from monitoring.counting import Part
from monitoring.windows import Window

WEEKS_BEFORE = 4
COMPARISONS = 5
"""Three windows decide (2 of 3); those of labels lie two weeks back, until they are final."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Parts of one window and the parts of its reference."""

    window: Window
    current: tuple[int, ...]
    reference: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of time to count, and their comparisons, newest first."""

    parts: tuple[Part, ...]
    comparisons: tuple[Comparison, ...]
    reference_name: str
    reference_label: str

    @property
    def newest(self) -> Comparison:
        """The report's own window."""
        return self.comparisons[0]


def weeks_needed(window: Window) -> Window:
    """Return the days whose requests a report of `window` reads: those of its last weeks and of all before each."""
    return Window(window.previous(WEEKS_BEFORE + COMPARISONS - 1).start, window.end)


def layout_of(times: pl.Series, window: Window) -> Layout:
    """Return the layout of a report of `window` on requests with these event times.

    The window is compared with the four weeks before, and so are the two windows before it where requests come before
    them. Where none comes before the window itself, its first half (by time) stands in and its second half is
    compared: a first week shows its numbers, but a single week cannot warn.
    """
    weeks = [window.before(back) for back in range(WEEKS_BEFORE + COMPARISONS)]
    counts = [int(times.is_between(*week.bounds, closed="left").sum()) for week in weeks]
    if sum(counts[1 : 1 + WEEKS_BEFORE]):
        comparisons = [
            Comparison(weeks[number], (number,), tuple(range(number + 1, number + 1 + WEEKS_BEFORE)))
            for number in range(COMPARISONS)
            if sum(counts[number + 1 : number + 1 + WEEKS_BEFORE])
        ]
        label = f"requests of {window.previous(WEEKS_BEFORE)}"
        return Layout(tuple(Part(*week.bounds) for week in weeks), tuple(comparisons), "earlier", label)
    first, after = window.bounds
    middle = times.filter(times.is_between(first, after, closed="left")).median()
    border = ceil(middle) if isinstance(middle, int | float) else first
    halves = (Part(border, after), Part(first, border))
    label = "the first half of the same week, as no requests came before it"
    return Layout(halves, (Comparison(window, (0,), (1,)),), "first_half", label)


def whole(layout: Layout) -> tuple[int, ...]:
    """Return the parts that make up the report's week."""
    return (0, 1) if layout.reference_name == "first_half" else (0,)
