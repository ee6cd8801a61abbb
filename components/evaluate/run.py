"""A bundle's lists on the gate window through the serving code path, judged beside every floor and the champion."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from sidrec import files
from sidrec.errors import CheckFailedError
from sidrec.evaluation.config import Floor
from sidrec.evaluation.gates import GateResult, overall
from sidrec.evaluation.judging import KINDS, Lists, judge
from sidrec.evaluation.metrics import LIST_LENGTH
from sidrec.evaluation.page import markdown
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets, load_next_basket
from sidrec.evaluation.report import BUNDLE, CHAMPION, Evaluated, build_report, rows_table
from sidrec.floors.catalogue import floor_lists
from sidrec.progress import track
from sidrec.recipe import Recipe
from sidrec.recommender import Recommender
from sidrec.study.lists import recommended_lists

SECTIONS = ("evaluation", "gates", "features", "as_of", "gate_days", "seed")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `evaluation/` (report.json, report.md, rows.parquet) and return its headline."""
    data, targets = _rows(recipe, inputs)
    seconds = {}
    lists: dict[str, Lists] = {}
    answers: dict[str, dict[str, Any]] = {}
    for name, key in ((BUNDLE, "bundle"), (CHAMPION, "champion")):
        if key in inputs:
            started = time.monotonic()
            lists[name], answers[name] = bundle_lists(inputs[key], recipe, data, targets, label=f"evaluate: {name}")
            seconds[name] = round(time.monotonic() - started, 2)
    _refuse_if_fit_on_the_gate(answers[BUNDLE], recipe, inputs["bundle"])

    data_key = _data_key(recipe, inputs)
    floors: list[Floor] = [*recipe.evaluation.floors]
    if recipe.gates.floor not in floors:
        floors.append(recipe.gates.floor)
    for floor in track(floors, "evaluate: floors", total=len(floors)):
        started = time.monotonic()
        lists[floor] = floor_lists(floor, data, targets, seed=recipe.seed, data_key=data_key)
        seconds[floor] = round(time.monotonic() - started, 2)

    order = [BUNDLE, *floors, *([CHAMPION] if CHAMPION in lists else [])]
    evaluated = Evaluated(
        data=data,
        targets=targets,
        models={name: judge(lists[name], targets, data.num_items) for name in order},
        gates=recipe.gates,
        resamples=recipe.evaluation.resamples,
        seed=recipe.seed,
    )
    report = build_report(
        evaluated,
        facts={
            **answers[BUNDLE],
            "protocol": recipe.evaluation.protocol,
            "window": [recipe.gate_start.isoformat(), recipe.as_of.isoformat()],
            "list_length": LIST_LENGTH,
            "history_cap": recipe.features.history_cap,
            "max_rows": recipe.evaluation.max_rows,
            "champion": answers[CHAMPION]["bundle_id"] if CHAMPION in answers else None,
            "champion_answers": answers.get(CHAMPION),
            "seconds": seconds,
        },
    )
    target = folder / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    rows_table(evaluated).write_parquet(target / "rows.parquet")
    files.write_text_atomic(target / "report.md", markdown(report))
    files.write_json_atomic(target / "report.json", report)
    gates = [GateResult.model_validate(gate) for gate in report["gates"]]
    for gate in gates:
        print(f"evaluate: {gate.result}: {gate.sentence}", flush=True)
    return {
        "rows": data.num_rows,
        "novel_rows": len(targets["novel"].rows),
        "result": overall(gates),
        "all_ndcg@10": round(report["metrics"]["all"]["ndcg@10"], 4),
        "novel_ndcg@10": round(report["metrics"]["novel"]["ndcg@10"], 4),
        "beam_width": report["beam_width"],
        "sentences": [gate.sentence for gate in gates],
    }


def bundle_lists(
    bundle: Path, recipe: Recipe, data: NextBasket, targets: Mapping[TargetKind, Targets], *, label: str
) -> tuple[Lists, dict[str, Any]]:
    """Return the bundle's lists for every row of every kind, and what its answers said about themselves."""
    # One thread, as in serving: a second one buys a beam search nothing and costs much on a busy machine.
    recommender = Recommender.open(bundle, threads=1)
    return recommended_lists(recommender, data, targets, history_cap=recipe.features.history_cap, label=label)


def _refuse_if_fit_on_the_gate(answers: Mapping[str, Any], recipe: Recipe, bundle: Path) -> None:
    """Raise where the bundle learnt from days that it is judged on."""
    watermark = answers["watermark"]
    if watermark is not None and date.fromisoformat(watermark) >= recipe.gate_start:
        raise CheckFailedError(
            f"{answers['bundle_id']} learnt from days up to {watermark}, the gate window starts {recipe.gate_start}",
            evidence=bundle / "decode.json",
            next_step="judge it with the recipe that it was trained by",
        )


def _rows(recipe: Recipe, inputs: Mapping[str, Path]) -> tuple[NextBasket, dict[TargetKind, Targets]]:
    data = load_next_basket(inputs["baskets"], inputs["items"], gate_start=recipe.gate_start, as_of=recipe.as_of)
    limit = recipe.evaluation.max_rows
    if limit is not None and limit < data.num_rows:
        kept = np.sort(np.random.default_rng(recipe.seed).permutation(data.num_rows)[:limit])
        data = replace(data, row_basket=data.row_basket[kept], row_first=data.row_first[kept])
    targets = {kind: data.targets(kind) for kind in KINDS}
    if not len(targets["novel"].rows):
        raise CheckFailedError(
            f"none of the {data.num_rows} rows from {recipe.gate_start} has an item that is new to its user; "
            "the quality gate has nothing to measure",
            evidence=inputs["baskets"],
            next_step="widen gate_days, or raise evaluation.max_rows",
        )
    return data, targets


def _data_key(recipe: Recipe, inputs: Mapping[str, Path]) -> str:
    parts = [
        files.sha256_file(inputs["baskets"]),
        files.sha256_file(inputs["items"]),
        recipe.gate_start,
        recipe.as_of,
        recipe.evaluation.max_rows,
        recipe.seed,
    ]
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
