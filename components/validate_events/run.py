"""Raw files in, clean tables out, or one line that names the rule and the evidence file.

Two tiers. A row that breaks a row rule goes to quarantine and the run goes on. A batch that breaks a batch
rule stops the run, and the step leaves `evidence.json` and Data Docs that say why.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl

from sidrec import files
from sidrec.data.accounting import account, accounting_lines
from sidrec.data.adapters import Adapter, open_adapter
from sidrec.data.adapters.source import SourceRefusedError, as_text
from sidrec.data.batch import Batch, open_batch
from sidrec.data.cleaning import Cleaned, clean
from sidrec.data.counting import Counts, count
from sidrec.data.engine import Spark, open_engine
from sidrec.data.facts import Fact, batch_facts
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
    adapter, engine = open_adapter(recipe.data, recipe.as_of), open_engine()
    for left in (folder / DATA_DOCS, *folder.glob("tables-*")):
        shutil.rmtree(left, ignore_errors=True)
    # In the step's folder, which an engine's other machines see.
    with tempfile.TemporaryDirectory(prefix="tables-", dir=folder) as tables:
        try:
            batch = open_batch(adapter, engine, Path(tables))
            # GX takes seconds to import; an unreadable file is refused before that.
            from components.validate_events.suite import Validator

            validator = Validator(folder / DATA_DOCS, engine if isinstance(engine, Spark) else None)
            _check_source(adapter, batch, validator, folder)
            cleaned = clean(
                batch.parse(), engine, Path(tables), gate_start=recipe.gate_start, watermark=recipe.data.watermark
            )
        except SourceRefusedError as error:
            _refuse_source(error, folder)
        counts = count(cleaned)
        accounting = account(counts)
        for line in accounting_lines(accounting):
            print(f"validate_events: {line}", flush=True)
        cleaned.quarantine.move(folder / "quarantine")
        facts = batch_facts(counts, recipe.validation, gate_start=recipe.gate_start, as_of=recipe.as_of)
        findings = _check_batch(recipe, cleaned, counts, facts, validator)
        accounting["not_checked"] = [f"{fact.rule}: {fact.sentence}" for fact in facts if fact.value is None]
        files.write_json_atomic(folder / "accounting", accounting)
        validator.write_docs()
        _stop_if_failed(findings, folder)
        for name in ("events", "sales", "items_raw"):
            getattr(cleaned, name).move(folder / name)
    (folder / EVIDENCE).unlink(missing_ok=True)
    shown = ("rows_in", "kept", "quarantined", "merged", "anonymous", "sales")
    return {
        "rows": accounting["kept"],
        **{name: accounting[name] for name in shown},
        **accounting["result"],
        "not_checked": accounting["not_checked"],
    }


def _check_source(adapter: Adapter, batch: Batch, validator: "Validator", folder: Path) -> None:
    """Stop unless every column is there and looks like what it is called."""
    from components.validate_events.suite import column_expectations, format_expectations

    paths = adapter.paths()
    findings: list[Finding] = []
    for name, columns in adapter.columns().items():
        table = batch.events if name == "events" else batch.items
        assert table is not None
        if isinstance(table, pl.DataFrame):
            table = as_text(table, columns, path=paths[name])
            present = table.columns
        else:
            present = as_text(batch.schema.to_frame(), columns, path=paths[name]).columns
        formats = [one for one in adapter.formats() if one.table == name and one.column in present]
        expectations = column_expectations(name, columns) + format_expectations(formats)
        findings += validator.validate(f"{name}_columns", table, expectations)
    if not all(one.passed for one in findings):
        validator.write_docs()
    _stop_if_failed(findings, folder)


def _check_batch(
    recipe: Recipe, cleaned: Cleaned, counts: Counts, facts: Sequence[Fact], validator: "Validator"
) -> "list[Finding]":
    """Return the batch's findings; the row tier's warnings are checked against the row tier's own counts."""
    from components.validate_events import suite

    users = suite.null_user_expectation(recipe.validation.max_null_user_share, counts.no_user / counts.rows)
    of_rows = validator.validate("rows", cleaned.rows.place, [users, *suite.row_expectations(cleaned.rules)])
    batch, warnings = of_rows[0], of_rows[1:]
    _agree(counts, warnings)
    kept = []
    if counts.events:
        events = cleaned.events.place
        kept = validator.validate("kept_events", events, suite.kept_expectations())
        kept += validator.validate("kept_order", events, [suite.order_expectation()], in_order=True)
    of_facts = validator.validate("batch", suite.fact_table(facts), suite.fact_expectations(facts))
    return [batch, *of_facts, *kept]


def _agree(counts: Counts, warnings: "Sequence[Finding]") -> None:
    """Each rule is counted twice; a difference is a bug in one of the two ways, never the data's."""
    theirs: Counter[str] = Counter()
    for one in warnings:
        theirs[one.rule] += one.observed
    assert counts.broken == dict(theirs), f"row rules: we count {counts.broken}, Great Expectations {theirs}"


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
