"""Ways to fit a codebook, on real catalogues: how well codes are used, items told apart and vectors explained.

A plain RQ-VAE is the CoBa one with its three terms off (usage-adjusted distance, uniformity, revival); all else is
equal. Every fit runs on one thread from one seed.

    SIDREC_BENCH_DATA=folder python -m benchmarks.quantizers --json docs/results/quantizers.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.item_vectors import EMBEDDING, NAMES, SMOOTHING, ItemVectors, MissingDataError, item_vectors
from benchmarks.measure import cpu_seconds, machine, one_thread
from sidrec import files
from sidrec.quantization.collisions import resolve
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import fit_quantizer
from sidrec.quantization.health import codebook_health, load_balance, mutual_information
from sidrec.quantization.mpq import expert_load
from sidrec.quantization.quantizer import Fitted
from sidrec.release.provenance import git_sha

PLAIN = {"balance_strength": 0.0, "uniformity_weight": 0.0, "revive": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "residual_kmeans": {"quantizer": "residual_kmeans"},
    "balanced_kmeans": {"quantizer": "balanced_kmeans"},
    "rqvae_plain": {"quantizer": "rqvae", **PLAIN},
    "rqvae_coba": {"quantizer": "rqvae"},
    "mpq": {
        "quantizer": "mpq",
        "num_levels": 8,
        "hidden_dims": (128,),
        "code_dim": 64,
        "warmup_epochs": 5,
        "epochs": 15,
        "check_every": 5,
    },
}
# The share of codes in use, at every level, that CoBa is to reach.
GOAL = 0.99


def measure(data: Sequence[str], quantizers: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return one row a data set and quantizer; data that are not here are named under `skipped`."""
    results, sources, skipped = [], {}, {}
    with one_thread():
        for name in data:
            try:
                items = item_vectors(name)
            except MissingDataError as missing:
                skipped[name] = str(missing)
                print(f"skipped {missing}", file=sys.stderr, flush=True)
                continue
            sources[name] = {
                "sha256": items.sources,
                "items": len(items.vectors),
                "train_events": items.train_events,
                "edges": items.edges,
                "graph": SMOOTHING[name].model_dump(
                    include={"windows", "window", "max_neighbours", "smoothing_alpha", "smoothing_steps"}
                ),
            }
            for quantizer in quantizers:
                row = {"name": f"{name}/{quantizer}", "data": name, "quantizer": quantizer}
                results.append(row | _measured(items, CodebookConfig.model_validate(SETTINGS[quantizer]), seed))
                print(_line(results[-1]), file=sys.stderr, flush=True)
    return {
        "machine": machine(),
        "commit": git_sha(),
        "seed": seed,
        "embedding": {"source": EMBEDDING.source, "dim": EMBEDDING.dim},
        "settings": {name: CodebookConfig.model_validate(SETTINGS[name]).model_dump() for name in quantizers},
        "data": sources,
        "skipped": skipped,
        "results": [row | _goal(row) for row in results],
    }


def _measured(items: ItemVectors, config: CodebookConfig, seed: int) -> dict[str, Any]:
    seconds, fitted = cpu_seconds(lambda: fit_quantizer(items.vectors, config, seed=seed))
    quantizer = fitted.quantizer
    latent = quantizer.latent(items.vectors)
    codes = quantizer.quantize(latent).codes
    quantized = codes.numpy().astype(np.int32)
    health = codebook_health(quantized, config.codebook_size)
    resolving, resolution = cpu_seconds(lambda: resolve(quantizer, latent, quantized, items.rank, config))
    shared = mutual_information(quantized, config.codebook_size)
    row = {
        "utilisation": [level["utilisation"] for level in health["levels"]],
        "normalised_entropy": [level["normalised_entropy"] for level in health["levels"]],
        "collision_rate": health["collision_rate"],
        "collision_rate_resolved": 1 - len(np.unique(resolution.codes, axis=0)) / len(quantized),
        "moved": resolution.moved,
        "extra_codes": resolution.extra,
        "latent_unexplained": float(quantizer.errors(latent, codes).sum() / quantizer.energy(latent).sum()),
        "input_unexplained": _own_decoder(items.vectors, fitted),
        "input_unexplained_linear": linear_unexplained(items.vectors, latent - quantizer.unexplained(latent, codes)),
        "pairwise_information": float(shared[~np.eye(len(shared), dtype=bool)].mean()) if len(shared) > 1 else 0.0,
        "fit_seconds": round(seconds, 2),
        "resolve_seconds": round(resolving, 2),
    }
    if quantizer.kind == "mpq":
        row["expert_load"] = load_balance(expert_load(quantizer, items.vectors).numpy())["shares"]
    return row


def _own_decoder(vectors: Float[Tensor, "item width"], fitted: Fitted) -> float:
    """Return the share of the vectors' squared length that the decoder of the fit loses; k-means decodes as it is."""
    quantizer = fitted.quantizer
    if quantizer.encoder is None:
        lost = quantizer.errors(vectors, quantizer.encode(vectors)).sum()
    else:
        lost = torch.tensor(fitted.history[-1]["reconstruction"] * len(vectors))
    return float(lost / vectors.square().sum())


def linear_unexplained(vectors: Float[Tensor, "item width"], quantized: Float[Tensor, "item *parts dim"]) -> float:
    """Return the share of the vectors' squared length left by the best affine map of the quantized latent vectors.

    It is fitted on these items themselves, in all dimensions that the latent space has.
    """
    inputs = quantized.flatten(1).double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
    targets = vectors.double()
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    return float((targets - inputs @ solution).square().sum() / targets.square().sum())


def _goal(row: dict[str, Any]) -> dict[str, Any]:
    """Return the goal of a row: no two items of one semantic ID, and for CoBa no level with dead codes to speak of."""
    unique = row["collision_rate_resolved"] == 0
    if row["quantizer"] != "rqvae_coba":
        return {"goal": "no collision after resolution", "met": unique}
    goal = f"no collision after resolution; utilisation >= {GOAL:.0%} at every level"
    return {"goal": goal, "met": unique and min(row["utilisation"]) >= GOAL}


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['name']}: utilisation {_levels(row['utilisation'])}, collisions {row['collision_rate']:.2%} -> "
        f"{row['collision_rate_resolved']:.2%}, input unexplained {row['input_unexplained']:.2%}, "
        f"fit {row['fit_seconds']} s, resolution {row['resolve_seconds']} s"
    )


def _levels(values: Sequence[float]) -> str:
    """Return the values of up to four levels, and of more slots the range."""
    if len(values) > 4:
        return f"{min(values):.3f}-{max(values):.3f}"
    return " / ".join(f"{value:.3f}" for value in values)


def markdown(result: dict[str, Any]) -> str:
    """Return the table of `docs/results`."""
    lines = [
        "| data | quantizer | utilisation by level | normalised entropy by level | collisions | resolved | "
        "latent unexplained | input unexplained, own decoder | input unexplained, linear | fit CPU s |",
        "|---" * 10 + "|",
    ]
    lines += [
        f"| {row['data']} | {row['quantizer']} | {_levels(row['utilisation'])} | "
        f"{_levels(row['normalised_entropy'])} | {row['collision_rate']:.2%} | {row['collision_rate_resolved']:.2%} | "
        f"{row['latent_unexplained']:.2%} | {row['input_unexplained']:.2%} | {row['input_unexplained_linear']:.2%} | "
        f"{row['fit_seconds']:.1f} |"
        for row in result["results"]
    ]
    lines += [f"\nNot measured: {why}." for why in result["skipped"].values()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(NAMES))
    parser.add_argument("--quantizers", type=lambda text: text.split(","), default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    call = parser.parse_args()
    for given, known, what in ((call.data, NAMES, "--data"), (call.quantizers, SETTINGS, "--quantizers")):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"{what}: {', '.join(unknown)} not among {', '.join(known)}")
    result = measure(call.data, call.quantizers, seed=call.seed)
    if call.json:
        files.write_json_atomic(call.json, result)
    table = markdown(result)
    if call.markdown:
        files.write_text_atomic(call.markdown, table)
    print(table)
    raise SystemExit(0 if all(row["met"] for row in result["results"]) else 1)


if __name__ == "__main__":
    main()
