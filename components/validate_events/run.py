"""Raw files in, clean tables out, or one line that names the rule and the evidence file.

Two tiers. A row that breaks a row rule goes to quarantine and the run goes on. A batch that breaks a batch
rule stops the run, and the step leaves `evidence.json` and Data Docs that say why.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sidrec import files
from sidrec.data.accounting import account, accounting_lines
from sidrec.data.adapters import Adapter, open_adapter
from sidrec.data.adapters.source import RawTables, Source, SourceRefusedError, as_text
from sidrec.data.cleaning import Cleaned, clean
from sidrec.data.engine import Spark, open_engine
from sidrec.data.facts import Fact, batch_facts
from sidrec.data.rows import count_broken
from sidrec.errors import ValidationFailedError
from sidrec.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from components.validate_events.suite import Finding, Validator

SECTIONS = ("data", "validation", "as_of", "gate_days")
EVIDENCE = "evidence.json"
DATA_DOCS = "data_docs"


def source_files(recipe: str) -> dict[str, Path]:
    """Return the raw files that a recipe reads, so that new content under an old name is a new step."""
    data = parse_recipe(recipe).data
    paths = {"events_file": data.events, "items_file": data.items}
    return {name: path for name, path in paths.items() if path is not None}


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write events, sales, items_raw, quarantine, accounting and data_docs, and return the counts.

    Raises:
        ValidationFailedError: a batch rule is broken; its evidence lies in `folder`.
    """
    adapter = open_adapter(recipe.data, recipe.as_of)
    shutil.rmtree(folder / DATA_DOCS, ignore_errors=True)
    try:
        raw = adapter.read()
        # GX takes seconds to import; an unreadable file is refused before that.
        from components.validate_events.suite import Validator

        engine = open_engine()
        validator = Validator(folder / DATA_DOCS, engine if isinstance(engine, Spark) else None)
        _check_source(adapter, raw, validator, folder)
        source = adapter.parse(raw)
    except SourceRefusedError as error:
        _refuse_source(error, folder)
    cleaned = clean(raw.events, source, gate_start=recipe.gate_start, watermark=recipe.data.watermark)
    accounting = account(source, cleaned)
    for line in accounting_lines(accounting):
        print(f"validate_events: {line}", flush=True)
    cleaned.quarantine.write_parquet(folder / "quarantine")
    facts = batch_facts(source, cleaned, recipe.validation, gate_start=recipe.gate_start, as_of=recipe.as_of)
    findings = _check_batch(recipe, source, cleaned, facts, validator)
    accounting["not_checked"] = [f"{fact.rule}: {fact.sentence}" for fact in facts if fact.value is None]
    files.write_json_atomic(folder / "accounting", accounting)
    validator.write_docs()
    _stop_if_failed(findings, folder)
    cleaned.events.write_parquet(folder / "events")
    cleaned.sales.write_parquet(folder / "sales")
    cleaned.items_raw.write_parquet(folder / "items_raw")
    (folder / EVIDENCE).unlink(missing_ok=True)
    counts = {name: accounting[name] for name in ("rows_in", "kept", "quarantined", "merged", "anonymous", "sales")}
    return {"rows": accounting["kept"], **counts, **accounting["result"], "not_checked": accounting["not_checked"]}


def _check_source(adapter: Adapter, raw: RawTables, validator: "Validator", folder: Path) -> None:
    """Stop unless every column is there and looks like what it is called."""
    from components.validate_events.suite import column_expectations, format_expectations

    tables = {"events": raw.events, "items": raw.items}
    needed = adapter.columns()
    findings: list[Finding] = []
    for name, columns in needed.items():
        table = tables[name]
        assert table is not None
        formats = [one for one in adapter.formats(raw) if one.table == name and one.column in table.columns]
        expectations = column_expectations(name, columns) + format_expectations(formats)
        text = as_text(table, columns, path=raw.paths[name])
        findings += validator.validate(f"{name}_columns", text, expectations)
    if not all(one.passed for one in findings):
        validator.write_docs()
    _stop_if_failed(findings, folder)


def _check_batch(
    recipe: Recipe, source: Source, cleaned: Cleaned, facts: Sequence[Fact], validator: "Validator"
) -> "list[Finding]":
    """Return the batch's findings; the row tier's warnings are checked against the row tier's own counts."""
    from components.validate_events import suite

    rows = source.rows.drop("title")
    null_share = rows["user_id"].null_count() / rows.height
    of_rows = validator.validate(
        "rows",
        rows,
        [
            suite.null_user_expectation(recipe.validation.max_null_user_share, null_share),
            *suite.row_expectations(cleaned.rules),
        ],
    )
    batch, warnings = of_rows[0], of_rows[1:]
    _agree(cleaned, source, warnings)
    if cleaned.events.is_empty():
        kept = []
    else:
        kept = validator.validate("kept_events", cleaned.events, suite.kept_expectations())
    of_facts = validator.validate("batch", suite.fact_table(facts), suite.fact_expectations(facts))
    return [batch, *of_facts, *kept]


def _agree(cleaned: Cleaned, source: Source, warnings: "Sequence[Finding]") -> None:
    """Two engines count each rule; a difference is a bug in one of them, never the data's."""
    ours = count_broken(source.rows, cleaned.rules)
    theirs: Counter[str] = Counter()
    for one in warnings:
        theirs[one.rule] += one.observed
    assert ours == dict(theirs), f"row rules: polars counts {ours}, Great Expectations {theirs}"


def _stop_if_failed(findings: "Sequence[Finding]", folder: Path) -> None:
    from components.validate_events.suite import as_rows

    failed = [one for one in findings if not one.passed]
    if not failed:
        return
    evidence = folder / EVIDENCE
    files.write_json_atomic(evidence, {"rule": failed[0].rule, "findings": as_rows(findings)})
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    raise ValidationFailedError(
        f"rule {failed[0].rule}: {failed[0].sentence}{more}",
        evidence=evidence,
        next_step=f"open {folder / DATA_DOCS / 'index.html'}",
    )


def _refuse_source(error: SourceRefusedError, folder: Path) -> NoReturn:
    """Re-raise a refusal with an evidence file that describes the file that was refused."""
    path = Path(error.evidence or "")
    seen: dict[str, Any] = {"exists": path.exists()}
    if path.is_file():
        seen |= {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    evidence = folder / EVIDENCE
    files.write_json_atomic(evidence, {"rule": error.rule, "message": error.message, "file": str(path), **seen})
    raise ValidationFailedError(error.message, evidence=evidence, next_step=error.next_step) from error
