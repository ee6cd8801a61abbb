"""The row tier: ordered rules, and a row belongs to the first rule that it breaks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import narwhals as nw

from sidrec.data.tables import Rows, counted


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """One condition on one column, plain enough for every engine to evaluate it.

    A null breaks only `required`. `sales_only` rows are good sales of nobody we know: they count for
    items, never for users.
    """

    rule: str
    name: str
    column: str
    reason: str
    forbid: str | None = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    required: bool = False
    action: Literal["quarantine", "sales_only"] = "quarantine"

    def broken(self) -> nw.Expr:
        """Return, for each row, whether it breaks this rule."""
        column = nw.col(self.column)
        faults = []
        if self.required:
            faults.append(column.is_null())
        if self.forbid is not None:
            faults.append(column.str.contains(self.forbid))
        if self.above is not None:
            faults.append(column <= self.above)
        if self.at_least is not None:
            faults.append(column < self.at_least)
        if self.at_most is not None:
            faults.append(column > self.at_most)
        return nw.any_horizontal(*(fault.fill_null(False) for fault in faults), ignore_nulls=False)


def first_broken(rules: Sequence[RowRule]) -> nw.Expr:
    """Return, for each row, the first rule that it breaks, or null for a clean row."""
    return _first((rule.rule, rule.broken()) for rule in rules).alias("rule")


def reasons(rules: Sequence[RowRule]) -> nw.Expr:
    """Return, for each row, why it broke the rule that `rule` names."""
    return _first((rule.reason, nw.col("rule") == rule.rule) for rule in rules).alias("reason")


def _first(texts: Iterable[tuple[str, nw.Expr]]) -> nw.Expr:
    """Return, for each row, the first text whose condition holds, or null."""
    none = nw.lit(None, dtype=nw.String)
    return nw.coalesce(*(nw.when(holds).then(nw.lit(text)) for text, holds in texts), none)


def count_broken(rows: Rows, rules: Sequence[RowRule]) -> dict[str, int]:
    """Return how many rows break each rule, whichever other rule they also break."""
    return counted(rows, **{rule.rule: rule.broken().sum() for rule in rules})
