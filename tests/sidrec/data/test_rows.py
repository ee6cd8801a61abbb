"""Row rules: the first broken rule owns the row."""

import narwhals as nw
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.rows import RowRule, count_broken, first_broken
from sidrec.data.tables import values

RULES = (
    RowRule(rule="X1", name="no_a", column="code", forbid="^A", reason="code begins with A"),
    RowRule(rule="X2", name="present", column="code", required=True, reason="no code"),
    RowRule(rule="X3", name="positive", column="size", above=0, required=True, reason="size is not above 0"),
    RowRule(rule="X4", name="range", column="size", at_least=1, at_most=5, reason="size outside 1..5"),
)


def oracle(code: str | None, size: float | None) -> list[str]:
    """Every rule that a row breaks, by plain Python."""
    broken = []
    if code is not None and code.startswith("A"):
        broken.append("X1")
    if code is None:
        broken.append("X2")
    if size is None or size <= 0:
        broken.append("X3")
    if size is not None and not 1 <= size <= 5:
        broken.append("X4")
    return broken


ROWS = st.lists(
    st.tuples(st.sampled_from([None, "A1", "B", "BA"]), st.sampled_from([None, -1.0, 0.0, 0.5, 1.0, 5.0, 6.0])),
    min_size=1,
    max_size=30,
)


@given(ROWS)
def test_rules_agree_with_plain_python(rows: list[tuple[str | None, float | None]]) -> None:
    """The owner of each row and the overlapping counts are those of a row-by-row loop."""
    frame = nw.from_native(pl.LazyFrame(rows, schema={"code": pl.String, "size": pl.Float64}, orient="row"))
    broken = [oracle(*row) for row in rows]

    first = values(frame.select(first_broken(RULES)))
    assert [row["rule"] for row in first] == [names[0] if names else None for names in broken]
    assert count_broken(frame, RULES) == {rule.rule: sum(rule.rule in names for names in broken) for rule in RULES}
