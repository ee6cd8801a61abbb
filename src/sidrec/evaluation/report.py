"""One evaluation as a JSON report, a page to read, and a table of per-row metrics.

Every floor stands beside the bundle, every mean beside its 95 % interval, and the beam width is said.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from sidrec.evaluation.bootstrap import Bootstrap
from sidrec.evaluation.config import GateConfig
from sidrec.evaluation.coverage import coverage, target_profile
from sidrec.evaluation.gates import GateResult, champion_gate, floor_gate
from sidrec.evaluation.judging import KINDS, Judged
from sidrec.evaluation.metrics import CUTOFFS, max_recall_at_k
from sidrec.evaluation.power import outlook
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets
from sidrec.evaluation.slices import slice_values

BUNDLE = "bundle"
CHAMPION = "champion"
HEADLINE = "ndcg@10"
# The two that a reader asks about first: what counting does on all items, what a linear model does on novel ones.
DISTANCES: dict[TargetKind, str] = {"all": "personal_frequency", "novel": "ease"}
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Everything that one evaluation measured."""

    data: NextBasket
    targets: Mapping[TargetKind, Targets]
    models: Mapping[str, Judged]
    """`bundle`, then the floors in the recipe's order, then `champion` where there is one."""
    gates: GateConfig
    resamples: int
    seed: int

    def bootstraps(self) -> dict[TargetKind, Bootstrap]:
        """Return one bootstrap a kind over every metric of every model, keyed `model/metric`."""
        return {
            kind: Bootstrap(
                {
                    f"{model}/{metric}": values
                    for model, judged in self.models.items()
                    for metric, values in judged.rows[kind].items()
                },
                resamples=self.resamples,
                seed=self.seed,
            )
            for kind in KINDS
        }


def quality_gates(evaluated: Evaluated, bootstraps: Mapping[TargetKind, Bootstrap]) -> list[GateResult]:
    """Return the gate against the recipe's floor and, where there is a champion, one a kind against it."""
    floor = evaluated.gates.floor
    gates = [
        floor_gate(
            bootstraps["novel"].difference(f"{BUNDLE}/{HEADLINE}", f"{floor}/{HEADLINE}"),
            metric="Novel-only NDCG@10",
            floor=floor,
            slices=_slice_differences(evaluated, "novel", floor, relative=False),
        )
    ]
    if CHAMPION in evaluated.models:
        names: dict[TargetKind, str] = {"novel": "Novel-only NDCG@10", "all": "All-items NDCG@10"}
        gates += [
            champion_gate(
                bootstraps[kind].difference(f"{BUNDLE}/{HEADLINE}", f"{CHAMPION}/{HEADLINE}"),
                metric=metric,
                name=f"non_inferior_{kind}",
                non_inferiority=evaluated.gates.non_inferiority,
                slices=_slice_differences(evaluated, kind, CHAMPION, relative=True),
            )
            for kind, metric in names.items()
        ]
    return gates


def build_report(evaluated: Evaluated, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report as JSON data.

    Args:
        facts: what only the caller knows: bundle ids, beam width, dates, answer sources, seconds.
    """
    data, targets, models = evaluated.data, evaluated.targets, evaluated.models
    bootstraps = evaluated.bootstraps()
    floors = [name for name in models if name not in (BUNDLE, CHAMPION)]
    intervals = {
        name: {
            kind: {metric: bootstraps[kind].interval(f"{name}/{metric}") for metric in judged.rows[kind]}
            for kind in KINDS
        }
        for name, judged in models.items()
    }
    means = {name: {kind: judged.means(kind) for kind in KINDS} for name, judged in models.items()}
    differences = {
        name: {
            kind: asdict(bootstraps[kind].difference(f"{BUNDLE}/{HEADLINE}", f"{name}/{HEADLINE}")) for kind in KINDS
        }
        for name in models
        if name != BUNDLE
    }
    report: dict[str, Any] = {
        "schema_version": 1,
        **facts,
        "rows": {kind: len(targets[kind].rows) for kind in KINDS},
        "targets": {kind: int(targets[kind].sizes.sum()) for kind in KINDS},
        "targets_outside_catalogue": {kind: int((targets[kind].pair_item < 0).sum()) for kind in KINDS},
        "cold_users": data.cold_users,
        "catalogue_items": data.num_items,
        "catalogue_date": (EPOCH + timedelta(days=data.gate_day - 1)).isoformat(),
        "max_recall": {
            kind: {f"recall@{k}": float(max_recall_at_k(targets[kind].sizes, k).mean()) for k in CUTOFFS}
            for kind in KINDS
        },
        "metrics": means[BUNDLE],
        "intervals": intervals[BUNDLE],
        "floors": {name: means[name] for name in floors},
        "floor_intervals": {name: intervals[name] for name in floors},
        "differences": differences,
        "distances": {
            kind: {"floor": name, **differences[name][kind]} for kind, name in DISTANCES.items() if name in floors
        },
        "slices": {name: {kind: _slices(judged, evaluated, kind) for kind in KINDS} for name, judged in models.items()},
        "coverage": {
            kind: {
                "targets": target_profile(targets[kind].pair_item, data).model_dump(),
                **{name: coverage(judged.lists[kind], data).model_dump() for name, judged in models.items()},
            }
            for kind in KINDS
        },
        "gates": [gate.model_dump(mode="json") for gate in quality_gates(evaluated, bootstraps)],
        "power": {
            kind: outlook(
                n=len(targets[kind].rows),
                champion_mean=means[CHAMPION if CHAMPION in models else BUNDLE][kind][HEADLINE],
                non_inferiority=evaluated.gates.non_inferiority,
                row_sd=differences[CHAMPION if CHAMPION in models else evaluated.gates.floor][kind]["row_sd"],
                metric=f"NDCG@10 {kind}, against {'the champion' if CHAMPION in models else 'this bundle, next time'}",
            ).model_dump()
            for kind in KINDS
        },
    }
    if CHAMPION in models:
        report["champion_metrics"] = means[CHAMPION]
        report["champion_intervals"] = intervals[CHAMPION]
    return report


def rows_table(evaluated: Evaluated) -> pl.DataFrame:
    """Return every metric of every row, model and kind: what a later paired comparison needs."""
    data = evaluated.data
    frames = []
    for kind in KINDS:
        targets = evaluated.targets[kind]
        basket = data.row_basket[targets.rows]
        users = np.array(data.user_ids)[data.basket_user[basket]]
        for model, judged in evaluated.models.items():
            frames.append(
                pl.DataFrame(
                    {
                        "model": model,
                        "kind": kind,
                        "user_id": users,
                        "day": pl.Series(data.basket_day[basket].astype(np.int32)).cast(pl.Date),
                        "targets": targets.sizes.astype(np.int32),
                        "history_baskets": (basket - data.row_first[targets.rows]).astype(np.int32),
                        **{name: values.astype(np.float32) for name, values in judged.rows[kind].items()},
                    }
                )
            )
    return pl.concat(frames)


def _slices(judged: Judged, evaluated: Evaluated, kind: TargetKind) -> dict[str, dict[str, float]]:
    values = slice_values(judged, evaluated.data, evaluated.targets, kind)
    return {
        name: {
            "rows": value.rows,
            "targets": value.targets,
            "ndcg@10": value.ndcg_at_10,
            "recall@20": value.recall_at_20,
        }
        for name, value in values.items()
    }


def _slice_differences(evaluated: Evaluated, kind: TargetKind, reference: str, *, relative: bool) -> dict[str, float]:
    """Return NDCG@10 of the bundle minus the reference's on every slice that has rows."""
    own = slice_values(evaluated.models[BUNDLE], evaluated.data, evaluated.targets, kind)
    other = slice_values(evaluated.models[reference], evaluated.data, evaluated.targets, kind)
    return {
        name: (own[name].ndcg_at_10 - base.ndcg_at_10) / (base.ndcg_at_10 if relative and base.ndcg_at_10 else 1.0)
        for name, base in other.items()
        if base.rows
    }
