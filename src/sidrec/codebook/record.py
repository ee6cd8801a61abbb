"""A built codebook becomes a sealed folder with its health report, and the gates that the report must pass."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidrec import files
from sidrec.codebook.artefact import CATALOGUE, EMBEDDER, HEALTH, Artefact, seal
from sidrec.codebook.build import Built, churn
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.gates import churn_gate, codebook_gates, identity_gate
from sidrec.codebook.health_report import health_report
from sidrec.codebook.items import traffic_of
from sidrec.evaluation.config import GateConfig
from sidrec.evaluation.gates import GateResult
from sidrec.quantization.health import codebook_health, sid_health


def write_artefact(
    built: Built,
    parent: Artefact | None,
    embedder: Path,
    folder: Path,
    *,
    lifecycle: LifecycleConfig,
    gates: GateConfig,
    vectors: NDArray[np.float32] | None = None,
) -> list[GateResult]:
    """Write the sealed artefact and return its gates, failed ones too.

    Args:
        embedder: folder of the frozen embedder, copied bit for bit.
        vectors: content vectors [item, width]; with them the report says how many items keep their codes when they are
            encoded like new ones.
    """
    shutil.rmtree(folder, ignore_errors=True)
    built.codebook.save(folder)
    shutil.copytree(embedder, folder / EMBEDDER)
    built.catalog.write(folder / CATALOGUE)
    health = health_of(built, parent, lifecycle)
    if vectors is not None:
        health["content_only"] = _content_only(built, vectors)
    answers = [
        *codebook_gates(health, gates),
        identity_gate(sid_health(built.catalog.codes)),
        *([churn_gate(health["churn"], lifecycle.churn_budget)] if health["churn"] else []),
    ]
    health["gates"] = [answer.model_dump(mode="json") for answer in answers]
    files.write_json_atomic(folder / HEALTH, health)
    seal(folder)
    return answers


def health_of(built: Built, parent: Artefact | None, lifecycle: LifecycleConfig) -> dict[str, Any]:
    """Return the health report of a built codebook, without gates."""
    codebook, catalog = built.codebook, built.catalog
    quantizer = codebook.quantizer
    levels = quantizer.num_levels
    traffic = traffic_of(catalog.table())
    published = parent.catalog.codes if parent is not None and built.decision.verb != "fit" else None
    report = health_report(
        quantized=built.quantized,
        final=catalog.codes,
        codebook_size=quantizer.codebook_size,
        traffic=traffic,
        fitted_errors=built.fitted_errors,
        new_errors=built.new_errors,
        previous=published,
        expert_load=np.array(built.notes["expert_load"]) if "expert_load" in built.notes else None,
        slots=quantizer.parallel,
        alarm=lifecycle,
    )
    return {
        "schema_version": 1,
        "kind": quantizer.kind,
        "verb": built.decision.verb,
        "generation": codebook.generation,
        "parent": codebook.parent,
        **codebook_health(built.quantized, quantizer.codebook_size),
        "resolved": {
            **codebook_health(catalog.codes[:, :levels], quantizer.codebook_size),
            "disambiguated": int((catalog.codes[:, levels:] >= 0).sum()),
        },
        "residual": _spread(built.fitted_errors),
        "churn": None if parent is None else churn(parent.catalog, catalog, built.decision.training),
        "report": report,
        **built.notes,
    }


def _spread(values: NDArray[np.float32]) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0, "median": 0.0, "p95": 0.0}
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
    }


def _content_only(built: Built, vectors: NDArray[np.float32]) -> dict[str, list[float]]:
    """Return, by depth, the share of items whose codes stay when they are encoded like a new item, by text alone."""
    codes = built.codebook.quantizer.encode(torch.from_numpy(vectors)).numpy()
    same = np.cumprod(codes == built.quantized, axis=1)
    return {"same_prefix": same.mean(axis=0).tolist()}
