"""A codebook through the autumn of Online Retail II: append, refresh and an unaligned refit, month by month.

Fitted on December-August (the windows of the evaluation protocol, §5), then September, October and November come. No
event of December 2010 is read.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.measure import machine
from sidrec import files
from sidrec.clock import day_start
from sidrec.codebook.artefact import Artefact
from sidrec.codebook.build import Built, Sources, build, churn
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.diff import diff
from sidrec.codebook.health_report import span_alarm
from sidrec.data.baskets import build_baskets, build_items
from sidrec.data.embedding import Embedder, fit_embedder, open_embedder
from sidrec.data.ingest import Tables, clean_tables
from sidrec.recipe import S2GRRecipe, load_recipe
from sidrec.release.provenance import git_sha

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "pipelines" / "recipes" / "s2gr_retail.yaml"
FIRST = date(2010, 9, 1)
MONTHS = {"September": date(2010, 10, 1), "October": date(2010, 11, 1), "November": date(2010, 12, 1)}
REPEATS = 5


@dataclass(frozen=True)
class World:
    """The shop as it was known before a day."""

    items: pl.DataFrame
    baskets: pl.DataFrame


def run(recipe: S2GRRecipe, *, repeats: int = REPEATS) -> dict[str, Any]:
    """Return the table of months and verbs, and what each cost."""
    cleaned = {day: _cleaned(recipe, day) for day in (FIRST, *MONTHS.values())}
    worlds = {day: _world(one, day) for day, one in cleaned.items()}
    with tempfile.TemporaryDirectory() as folder:
        embedder_folder = Path(folder) / "embedder"
        fit_embedder(worlds[FIRST].items, recipe.embedding).save(embedder_folder)
        embedder = open_embedder(embedder_folder)
        lineage = files.sha256_tree(embedder_folder)
        fit = LifecycleConfig.model_validate({"verb": "fit"})
        started = time.process_time()
        first = build(None, _sources(worlds[FIRST], embedder, lineage, FIRST), recipe.codebook, fit, seed=recipe.seed)
        fit_seconds = time.process_time() - started
        parents = dict.fromkeys(("append", "refresh"), _artefact(first, embedder_folder))
        origin = parents["append"]
        rows = []
        for month, day in MONTHS.items():
            sources = _sources(worlds[day], embedder, lineage, day)
            for verb in ("append", "refresh"):
                lifecycle = LifecycleConfig.model_validate({"verb": verb, **_settings(recipe)})
                seconds = []
                for _ in range(repeats if verb == "append" else 1):
                    started = time.process_time()
                    built = build(parents[verb], sources, recipe.codebook, lifecycle, seed=recipe.seed)
                    seconds.append(time.process_time() - started)
                rows.append(_row(month, verb, parents[verb], origin, built, seconds, fit_seconds, lifecycle))
                parents[verb] = _artefact(built, embedder_folder)
            refit = build(None, sources, recipe.codebook, fit, seed=recipe.seed + 1)
            rows.append(_row(month, "refit, unaligned", origin, origin, refit, [], fit_seconds, fit))
    return {
        "machine": machine(),
        "commit": git_sha(),
        "data": {"path": str(recipe.data.events), "sha256": files.sha256_file(ROOT / recipe.data.events)},
        "fit": {"day": str(FIRST), "items": len(first.catalog), "cpu_seconds": round(fit_seconds, 2)},
        "lifecycle": _settings(recipe),
        "rows": rows,
    }


def _row(
    month: str,
    verb: str,
    parent: Artefact,
    origin: Artefact,
    built: Built,
    seconds: list[float],
    fit_seconds: float,
    lifecycle: LifecycleConfig,
) -> dict[str, Any]:
    lost = churn(parent.catalog, built.catalog, built.decision.training)
    size = built.codebook.quantizer.codebook_size
    since = diff(
        origin.catalog, built.catalog, num_levels=built.codebook.quantizer.num_levels, codebook_size=size
    )  # fmt: skip
    row: dict[str, Any] = {
        "month": month,
        "verb": verb,
        "items": len(built.catalog),
        "new": len(built.catalog) - len(parent.catalog),
        "moved": lost["moved"],
        "churn": round(lost["share"], 4),
        "moved_since_august": since["moved"]["items"],
        "history_tokens_rewritten": round(since["history_tokens_rewritten"], 4),
    }
    if seconds:
        row["cpu_seconds"] = round(statistics.median(seconds), 3)
        row["share_of_a_fit"] = round(statistics.median(seconds) / fit_seconds, 4)
    if verb == "append":
        row["alarm"] = span_alarm(built.fitted_errors, built.new_errors, lifecycle)
    if verb == "refresh":
        row["residual"] = {name: round(value, 5) for name, value in built.notes["residual"].items()}
        row["wanted_churn"] = round(built.notes["wanted_churn"], 4)
        row["deferred"] = built.notes["deferred"]
    return row


def _settings(recipe: S2GRRecipe) -> dict[str, Any]:
    return recipe.lifecycle.model_dump(mode="json", exclude={"verb"})


def _cleaned(recipe: S2GRRecipe, day: date) -> Tables:
    return clean_tables(recipe.data, as_of=day, gate_start=day, watermark=None)


def _world(cleaned: Tables, day: date) -> World:
    before = pl.col("timestamp") < day_start(day)
    baskets = build_baskets(cleaned.events.filter(before), day)
    return World(build_items(cleaned.sales.filter(before), cleaned.items_raw, baskets, day), baskets)


def _sources(world: World, embedder: Embedder, lineage: str, day: date) -> Sources:
    return Sources(world.items, embedder.vectors(world.items), world.baskets, lineage, day)


def _artefact(built: Built, embedder: Path) -> Artefact:
    return Artefact(built.codebook, built.catalog, embedder, {})


def markdown(result: dict[str, Any]) -> str:
    """Return the table for `docs/semantic-ids.md`."""
    lines = [
        "| month | verb | items | new | published items moved | of the traffic | moved since August | "
        "history tokens rewritten since August | residual error (append's codes → this) | CPU s | of a fit |",
        "|---" * 11 + "|",
    ]
    for row in result["rows"]:
        residual = row.get("residual")
        lines.append(
            f"| {row['month']} | {row['verb']} | {row['items']:,} | {row['new']} | {row['moved']:,} | "
            f"{row['churn']:.1%} | {row['moved_since_august']:,} | {row['history_tokens_rewritten']:.1%} | "
            + (f"{residual['append']:.4f} → {residual['refresh']:.4f}" if residual else "")
            + f" | {row.get('cpu_seconds', '')} | {row.get('share_of_a_fit', 0):.1%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    call = parser.parse_args()
    recipe = load_recipe(RECIPE)[1]
    assert isinstance(recipe, S2GRRecipe)
    result = run(recipe)
    if call.json:
        files.write_json_atomic(call.json, result)
    table = markdown(result)
    if call.markdown:
        files.write_text_atomic(call.markdown, table)
    print(table)
    print(json.dumps([row["alarm"] for row in result["rows"] if "alarm" in row], indent=2))


if __name__ == "__main__":
    main()
