"""Great Expectations counts what the row tier marks, and its findings keep their order."""

from itertools import product
from pathlib import Path

import narwhals as nw
import polars as pl
import pytest

from components.validate_events import run, suite
from sidrec.data.adapters import online_retail, table
from sidrec.data.facts import Fact
from sidrec.data.rows import RowRule, count_broken
from tests import data_world as world

RETAIL = pl.DataFrame(
    list(product(["489434", "C1", "A1", None], ["85048", "POST", "GIFT_0001_20", None], [1.0, 0.0, -1.0, None])),
    schema={"order_id": pl.String, "item_id": pl.String, "quantity": pl.Float64},
    orient="row",
).with_columns(
    price=pl.col("quantity"),
    user_id=pl.col("order_id"),
    timestamp=pl.when(pl.col("quantity") != -1).then(pl.lit(1_270_000_000)),
)
OWN = RETAIL.with_columns(
    catalog_item_id=pl.col("item_id"),
    timestamp=pl.when(pl.col("quantity") > 0).then(1).when(pl.col("quantity") == 0).then(1_270_000_000),
)


@pytest.mark.parametrize(
    ("rows", "rules"), [(RETAIL, online_retail.RULES), (OWN, table.RULES)], ids=["online_retail", "table"]
)
def test_both_engines_count_the_same(rows: pl.DataFrame, rules: tuple[RowRule, ...], tmp_path: Path) -> None:
    """On every combination of good, bad and missing values, each rule's two counts are equal and not zero."""
    findings = suite.Validator(tmp_path).validate("rows", rows, suite.row_expectations(rules))

    counted = {rule.rule: sum(one.observed for one in findings if one.rule == rule.rule) for rule in rules}
    assert counted == count_broken(nw.from_native(rows.lazy()), rules)
    assert all(counted.values())


def test_a_disagreement_of_the_engines_stops_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the engines read one rule differently, no table is written."""
    step = tmp_path / "step"
    step.mkdir()
    other = RowRule(rule="T5", name="quantity", column="quantity", above=3, reason="another reading")
    plain = suite.row_expectations
    monkeypatch.setattr(
        suite, "row_expectations", lambda rules: plain([other if one.rule == "T5" else one for one in rules])
    )

    with pytest.raises(AssertionError, match="Great Expectations"):
        run.run(world.shop_recipe(world.shop_data(tmp_path)), {}, step)

    assert not (step / "events").exists()


def test_findings_come_in_the_order_of_their_expectations(tmp_path: Path) -> None:
    """The first failed fact is the one that a refusal names."""
    facts = [
        Fact(rule="b", value=2.0, at_most=1.0, sentence="b is 2"),
        Fact(rule="skipped", value=None, sentence="not checked"),
        Fact(rule="a", value=0.0, at_least=1.0, sentence="a is 0"),
        Fact(rule="c", value=5.0, at_least=5.0, at_most=5.0, sentence="c is 5"),
    ]
    validator = suite.Validator(tmp_path)

    findings = validator.validate("batch", suite.fact_table(facts), suite.fact_expectations(facts))

    assert [(one.rule, one.passed, one.sentence) for one in findings] == [
        ("b", False, "b is 2"),
        ("a", False, "a is 0"),
        ("c", True, "c is 5"),
    ]


def test_a_check_that_cannot_run_fails(tmp_path: Path) -> None:
    """An expectation on a column that is not there fails and says why; it is not skipped."""
    (finding,) = suite.Validator(tmp_path).validate(
        "rows", pl.DataFrame({"a": [1]}), [suite.null_user_expectation(0.4, 0.0)]
    )

    assert not finding.passed
    assert "user_id" in finding.sentence
