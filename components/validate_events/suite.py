"""Great Expectations judges a batch: what it looks like, which rows break rules, and its facts as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import polars as pl
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations import core as gxe

from components.validate_events.parts import RESULT, judge_parts
from sidrec.data.adapters.source import ColumnFormat
from sidrec.data.engine import Spark
from sidrec.data.facts import Fact
from sidrec.data.rows import RowRule

SITE = "data_docs"
SCHEMA = "schema"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one expectation found: its rule, and a sentence that stands alone."""

    rule: str
    suite: str
    passed: bool
    sentence: str
    expectation: str
    observed: Any


class Validator:
    """One validation run; every suite's result ends in the same Data Docs."""

    def __init__(self, data_docs: Path, spark: Spark | None = None) -> None:
        """Start a run.

        Args:
            spark: judges the tables that lie on disk, instead of pandas part by part.
        """
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        # Its declared type knows no show_how_to_buttons, which would advertise on every page.
        site: Any = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs)},
        }
        self._context.add_data_docs_site(site_name=SITE, site_config=site)
        self._spark = spark
        self._pandas: Any = self._context.data_sources.add_pandas("batch")
        self._cluster: Any = None if spark is None else self._context.data_sources.add_spark("spark", persist=False)

    def validate(
        self, suite: str, table: pl.DataFrame | Path, expectations: Sequence[Any], *, in_order: bool = False
    ) -> list[Finding]:
        """Return a finding per expectation, in order; each carries `meta` = {rule, sentence}.

        Args:
            table: in memory, or Parquet that is larger.
            in_order: the order of rows is judged, which Spark does not keep.
        """
        by_spark = self._spark is not None and isinstance(table, Path) and not in_order
        source = self._cluster if by_spark else self._pandas
        batch = source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe(suite)
        # Results come back in GX's own order, so each expectation carries its place.
        for place, expectation in enumerate(expectations):
            expectation.meta = {**expectation.meta, "place": place}
        definition = self._context.validation_definitions.add(
            gx.ValidationDefinition(
                name=suite,
                data=batch,
                suite=self._context.suites.add(gx.ExpectationSuite(name=suite, expectations=list(expectations))),
            )
        )
        columns = list(dict.fromkeys(one.column for one in expectations))
        if isinstance(table, pl.DataFrame):
            frame: Any = table.select(column for column in columns if column in table.columns).to_pandas()
            result = definition.run(batch_parameters={"dataframe": frame}, result_format=RESULT)
        elif by_spark:
            assert self._spark is not None
            frame = self._spark.session.read.parquet(str(table))
            result = definition.run(batch_parameters={"dataframe": frame}, result_format=RESULT)
        else:
            result = judge_parts(self._context, definition, table, columns)
        return [_finding(suite, one) for one in sorted(result.results, key=lambda one: int(_meta(one)["place"]))]

    def write_docs(self) -> None:
        """Write the Data Docs of every suite that ran."""
        self._context.build_data_docs(site_names=[SITE])


def _meta(result: Any) -> dict[str, Any]:
    meta: dict[str, Any] = result.expectation_config.meta
    return meta


def _finding(suite: str, result: Any) -> Finding:
    meta, outcome = _meta(result), dict(result.result or {})
    errors = [info["exception_message"] for info in _exceptions(result.exception_info)]
    sentence = str(meta["sentence"])
    if errors:
        sentence = f"{sentence}; the check itself failed: {errors[0]}"
    elif not result.success and meta["rule"] == SCHEMA:
        sentence += _seen(outcome)
    observed = outcome.get("unexpected_count", outcome.get("observed_value"))
    return Finding(meta["rule"], suite, bool(result.success), sentence, result.expectation_config.type, observed)


def _seen(outcome: Mapping[str, Any]) -> str:
    """Return what a column held instead, as the end of a sentence."""
    if "unexpected_count" in outcome:
        examples = [repr(value) for value in outcome["partial_unexpected_list"] if value is not None]
        seen = f", e.g. {', '.join(dict.fromkeys(examples[:3]))}" if examples else ""
        return f"; {outcome['unexpected_count']:,} of {outcome['element_count']:,} rows break this{seen}"
    return f"; seen: {outcome['observed_value']}" if "observed_value" in outcome else ""


def _exceptions(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the raised exceptions; GX keys them by metric, or holds one flat."""
    nested = [value for value in info.values() if isinstance(value, Mapping)] or [info]
    return [one for one in nested if one.get("raised_exception")]


def column_expectations(table: str, columns: Sequence[str]) -> list[Any]:
    """Return that a table has its columns."""
    return [
        gxe.ExpectColumnToExist(
            column=column,
            meta={"rule": SCHEMA, "sentence": f"column {column!r} is missing from the {table} file"},
        )
        for column in columns
    ]


def format_expectations(formats: Sequence[ColumnFormat]) -> list[Any]:
    """Return that columns look like what they are called."""
    expectations: list[Any] = []
    for one in formats:
        where = f"column {one.column!r} must hold {one.meaning}"

        def meta(text: str) -> dict[str, Any]:
            return {"rule": SCHEMA, "sentence": text}

        if one.pattern is not None:
            expectations.append(
                gxe.ExpectColumnValuesToMatchRegex(
                    column=one.column, regex=one.pattern, mostly=one.mostly, meta=meta(where)
                )
            )
        if one.max_null_share < 1:
            expectations.append(
                gxe.ExpectColumnValuesToNotBeNull(
                    column=one.column,
                    mostly=1 - one.max_null_share,
                    meta=meta(f"column {one.column!r} may be empty in at most {one.max_null_share:.0%} of the rows"),
                )
            )
        if one.max_distinct is not None:
            expectations.append(
                gxe.ExpectColumnUniqueValueCountToBeBetween(
                    column=one.column,
                    max_value=one.max_distinct,
                    meta=meta(f"{where}: at most {one.max_distinct} different ones"),
                )
            )
        if one.unique:
            expectations.append(
                gxe.ExpectColumnValuesToBeUnique(column=one.column, meta=meta(f"column {one.column!r} must be unique"))
            )
    return expectations


def row_expectations(rules: Sequence[RowRule]) -> list[Any]:
    """Return the row rules as warnings: GX counts independently what the row tier marks."""
    return [expectation for rule in rules for expectation in _row_expectations(rule)]


def _row_expectations(rule: RowRule) -> list[Any]:
    """Return one expectation per condition of a rule; no row can break two of one rule's conditions."""
    common: dict[str, Any] = {
        "column": rule.column,
        "severity": "warning",
        "meta": {"rule": rule.rule, "sentence": f"{rule.name}: {rule.reason}"},
    }
    expectations: list[Any] = []
    if rule.required:
        expectations.append(gxe.ExpectColumnValuesToNotBeNull(**common))
    if rule.forbid is not None:
        expectations.append(gxe.ExpectColumnValuesToNotMatchRegex(regex=rule.forbid, **common))
    if rule.above is not None:
        expectations.append(gxe.ExpectColumnValuesToBeBetween(min_value=rule.above, strict_min=True, **common))
    if rule.at_least is not None or rule.at_most is not None:
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(min_value=rule.at_least, max_value=rule.at_most, **common)
        )
    return expectations


def null_user_expectation(max_share: float, share: float) -> Any:
    """Return that the batch knows enough of its users."""
    return gxe.ExpectColumnValuesToNotBeNull(
        column="user_id",
        mostly=1 - max_share,
        meta={
            "rule": "null_user_share",
            "sentence": f"{share:.1%} of the rows have no user (at most {max_share:.0%})",
        },
    )


def kept_expectations() -> list[Any]:
    """Return what every event that is handed on satisfies, whatever the adapter's rules; their order is apart."""
    filled = [
        gxe.ExpectColumnValuesToNotBeNull(
            column=column, meta={"rule": "kept_events", "sentence": f"every kept event has a {column}"}
        )
        for column in ("user_id", "item_id", "timestamp", "event_type", "position")
    ]
    ranges = [
        gxe.ExpectColumnValuesToBeBetween(
            column=column,
            min_value=0,
            max_value=1e7,
            meta={"rule": "value_range", "sentence": f"{column} of a kept event lies in 0..10,000,000"},
        )
        for column in ("quantity", "price")
    ]
    return [*filled, *ranges]


def order_expectation() -> Any:
    """Return that events are handed on in time order."""
    return gxe.ExpectColumnValuesToBeIncreasing(
        column="timestamp", meta={"rule": "kept_events", "sentence": "kept events are in time order"}
    )


def fact_table(facts: Sequence[Fact]) -> pl.DataFrame:
    """Return the measured facts as a table of one row."""
    return pl.DataFrame({_column(place, fact): [fact.value] for place, fact in enumerate(facts)}, strict=False)


def fact_expectations(facts: Sequence[Fact]) -> list[Any]:
    """Return that every measured fact lies within its limits."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=_column(place, fact),
            min_value=fact.at_least,
            max_value=fact.at_most,
            meta={"rule": fact.rule, "sentence": fact.sentence},
        )
        for place, fact in enumerate(facts)
        if fact.value is not None
    ]


def _column(place: int, fact: Fact) -> str:
    return f"{place:02d} {fact.rule}"


def as_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON rows, the failed ones first."""
    return [asdict(one) for one in sorted(findings, key=lambda one: one.passed)]
