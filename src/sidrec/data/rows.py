"""The row tier: ordered rules, and a row belongs to the first rule that it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """One condition on one column, plain enough for two engines to evaluate it.

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

    def broken(self) -> pl.Expr:
        """Return, for each row, whether it breaks this rule."""
        column = pl.col(self.column)
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
        return pl.any_horizontal([fault.fill_null(False) for fault in faults])


def first_broken(rows: pl.DataFrame, rules: Sequence[RowRule]) -> pl.Series:
    """Return, for each row, the first rule that it breaks, or null for a clean row."""
    chain = pl.coalesce(
        [pl.when(rule.broken()).then(pl.lit(rule.rule)) for rule in rules] + [pl.lit(None, dtype=pl.String)]
    )
    return rows.with_columns(chain.alias("rule"))["rule"]


def count_broken(rows: pl.DataFrame, rules: Sequence[RowRule]) -> dict[str, int]:
    """Return how many rows break each rule, whichever other rule they also break."""
    if not rules:
        return {}
    return {
        name: int(count)
        for name, count in rows.select(r.broken().sum().alias(r.rule) for r in rules).row(0, named=True).items()
    }
