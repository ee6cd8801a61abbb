"""One cell of a study: one variant, one seed, fitted from scratch and judged; finished ones are not fitted again."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from sidrec import files, home
from sidrec.codebook.build import Sources, build
from sidrec.codebook.config import LifecycleConfig
from sidrec.data.catalog import Catalog
from sidrec.data.embedding import fit_embedder
from sidrec.errors import RecipeError, UsageError
from sidrec.evaluation.judging import Judged, judge, rank_all
from sidrec.evaluation.metrics import ndcg_at_k
from sidrec.evaluation.protocol import NextBasket
from sidrec.floors.catalogue import SEQUENCE_SETTINGS, SequenceSettings, floor_model, sequence_floor
from sidrec.process import exclusive
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import one_thread
from sidrec.quantization.health import codebook_health
from sidrec.recipe import CodebookRecipe, Recipe, parse_recipe
from sidrec.recipe import build as build_system
from sidrec.recommender import Recommender
from sidrec.release.provenance import git_sha
from sidrec.study.config import cell_key, fit_key, floor_key
from sidrec.study.data import StudyData, Target
from sidrec.study.lists import recommended_lists
from sidrec.study.rows import queries_of, single_targets
from sidrec.systems.base import FitInputs, RankingModel, System

SCHEMA_VERSION = 1
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "recall@20", "ndcg@20")
VALIDATION_ROWS = 2000
# The published one of Beauty.
UNTUNED_PENALTY = 500.0
# Cells that run at the same time want the same codebook or fit: the first makes it, the others wait for it.
CODEBOOK_WAIT_S = 3600.0
FIT_WAIT_S = 86400.0


def model_cell(
    recipe: Recipe, data: StudyData, target: Target, *, variant: str, out: Path, validation: NextBasket | None = None
) -> dict[str, Any]:
    """Return the result of a fitted variant, from `out` where the same cell is finished there.

    Args:
        validation: rows that training may stop early by.

    Raises:
        UsageError: the recipe's system has no codebook to study.
    """
    if not isinstance(recipe, CodebookRecipe):
        raise UsageError(f"a study fits recipes with a codebook, and one of kind {recipe.kind} has none")
    key = cell_key(recipe, target, data.digest)
    done = finished_model(out, variant, recipe, target, data.digest)
    if done is not None:
        return done
    work = work_folder(variant, recipe.seed, key)
    codebook = _codebook(recipe, data)
    stored = Catalog.read(codebook / "catalogue.parquet")
    if tuple(stored.item_ids) != data.protocol.item_ids:
        raise UsageError("the codebook is of another catalogue", next_step=f"rm -r {codebook}")
    # Codes are what is kept of a codebook; what is said of items beside them is the data's.
    catalog = Catalog.build(data.items, stored.codes)
    inputs = FitInputs(
        baskets=data.baskets.lazy(),
        training_set=data.training_set.lazy(),
        catalog=catalog,
        codebook=codebook,
        fit_end=data.fit_end,
        seed=recipe.seed,
        threads=recipe.threads,
        validate=None if validation is None else _validate(validation, recipe.seed),
    )
    system = build_system(recipe)
    supervised = home.home() / "studies" / "_fits" / f"s{recipe.seed}-{fit_key(recipe, target, data.digest)}"
    fitted = _fit(system, inputs, supervised)
    cpu, wall = time.process_time(), time.monotonic()
    aligned = system.align(supervised / "model", inputs, work)
    cpu = time.process_time() - cpu + fitted["cpu_seconds"]
    wall = time.monotonic() - wall + fitted["wall_seconds"]
    # A cell's logs are those of both stages, whoever made the first.
    shutil.copytree(supervised / "logs", work / "logs", dirs_exist_ok=True)
    log = (supervised / "model" / "training_log.jsonl").read_text(encoding="utf-8")
    decode = {"as_of_time": 0, "beam_width": recipe.decoding.beam_width}
    model = system.open(work / "model_aligned", catalog)
    recommender = Recommender(bundle_id=key, kind=recipe.kind, catalog=catalog, model=model, decode=decode)
    started = time.process_time()
    # One thread, as in serving.
    with one_thread():
        lists, said = recommended_lists(
            recommender, data.protocol, data.targets, history_cap=recipe.features.history_cap, label=f"{variant}: lists"
        )
        seen = _probe(system, model, data.protocol)
    judged = judge(lists, data.targets, data.protocol.num_items)
    facts = {
        "parameters": fitted["parameters"],
        "epochs": fitted["epochs"],
        "fit_cpu_seconds": round(cpu, 1),
        "fit_wall_seconds": round(wall, 1),
        "rank_cpu_seconds": round(time.process_time() - started, 1),
        "beam_width": said["beam_width"],
        "short_lists": said["short_lists"],
        "codebook": files.read_json(codebook / "summary.json"),
        "probe": seen,
        "loss": fitted["loss"],
        "alignment": aligned,
        "curve": [row["validation"] for row in _json_lines(log) if row.get("validation") is not None],
    }
    source = {"recipe": recipe.model_dump(mode="json"), "target": target, "data": data.digest}
    return _write(out, variant, recipe.seed, key, judged, {**source, **facts})


def finished_model(out: Path, variant: str, recipe: Recipe, target: Target, data: str) -> dict[str, Any] | None:
    """Return the finished cell of this recipe in `out`, None where there is none.

    A setting that the cell's recipe does not know counts as its default: that is what it was fitted by.
    """
    found = _stored(out, variant, recipe.seed)
    if found is None or "recipe" not in found:
        return None
    try:
        fitted = parse_recipe(yaml.safe_dump(found["recipe"]))
    except RecipeError:
        return None
    same = cell_key(fitted, found["target"], found["data"]) == cell_key(recipe, target, data)
    return found if same else None


def floor_cell(name: str, recipe: Recipe, data: StudyData, target: Target, *, seed: int, out: Path) -> dict[str, Any]:
    """Return the result of a floor, from `out` where it is finished there."""
    variant = f"floor_{name}"
    if recipe.evaluation.protocol == "next_basket_v1":
        model = floor_model(name, seed=seed)  # type: ignore[arg-type]
    else:
        settings = SEQUENCE_SETTINGS.get(data.name)
        if settings is None:
            settings = SequenceSettings(ease_penalty=UNTUNED_PENALTY)
            said = f"floor_{name}: nothing was tuned for {data.name}; its settings are {settings}"
            print(said, file=sys.stderr, flush=True)
        model = sequence_floor(name, settings, seed=seed)  # type: ignore[arg-type]
    key = floor_key(recipe, f"{target} {model!r}", data.digest)
    done = _stored(out, variant, seed)
    if done is not None and done["key"] == key:
        return done
    started = time.process_time()
    lists = rank_all(model.fit(data.protocol), data.protocol, data.targets)
    judged = judge(lists, data.targets, data.protocol.num_items)
    facts = {"fit_cpu_seconds": round(time.process_time() - started, 1), "settings": repr(model)}
    return _write(out, variant, seed, key, judged, facts)


def work_folder(variant: str, seed: int, key: str) -> Path:
    """Return where a cell's aligned model, the alignment's checkpoints and the logs of both stages lie."""
    return home.home() / "studies" / f"{variant}-s{seed}-{key}"


def cell_rows(out: Path, variant: str, seed: int) -> pl.DataFrame:
    """Return a finished cell's per-row metrics, rows of a kind in the protocol's order."""
    return pl.read_parquet(out / f"{variant}-s{seed}.parquet")


def _stored(out: Path, variant: str, seed: int) -> dict[str, Any] | None:
    path = out / f"{variant}-s{seed}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = files.read_json(path)
    return result if result["schema_version"] == SCHEMA_VERSION else None


def _write(out: Path, variant: str, seed: int, key: str, judged: Judged, facts: Mapping[str, Any]) -> dict[str, Any]:
    rows = pl.concat(
        pl.DataFrame({"kind": kind, **{name: values[name].astype(np.float32) for name in METRICS}})
        for kind, values in judged.rows.items()
    )
    out.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(out / f"{variant}-s{seed}.parquet", compression="zstd", compression_level=9)
    result = {
        "schema_version": SCHEMA_VERSION,
        "variant": variant,
        "seed": seed,
        "key": key,
        "commit": git_sha(),
        "rows": {kind: len(next(iter(values.values()))) for kind, values in judged.rows.items()},
        "metrics": {
            kind: {name: round(value, 6) for name, value in judged.means(kind).items() if name in METRICS}
            for kind in judged.rows
        },
        **facts,
    }
    # Written last: a cell without it is not finished.
    files.write_json_atomic(out / f"{variant}-s{seed}.json", result)
    return result


def _fit(system: System, inputs: FitInputs, folder: Path) -> dict[str, Any]:
    """Return the summary of the supervised model in `folder/model`, which cells of one fit share."""
    summary = folder / "fitted.json"
    with exclusive(folder.with_suffix(".lock"), "the fit of a study", wait_s=FIT_WAIT_S):
        if not summary.exists():
            cpu, wall = time.process_time(), time.monotonic()
            fitted = system.fit(inputs, folder)
            seconds = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.monotonic() - wall}
            files.write_json_atomic(summary, {**fitted, **seconds})
    result: dict[str, Any] = files.read_json(summary)
    return result


def _codebook(recipe: CodebookRecipe, data: StudyData) -> Path:
    """Return the folder of the recipe's codebook, which variants of one tokenizer share."""
    config = CodebookConfig.model_validate(recipe.codebook.model_dump(include=set(CodebookConfig.model_fields)))
    text = f"{config.model_dump_json()}\0{recipe.embedding.model_dump_json()}\0{recipe.seed}\0{data.digest}"
    text += f"\0{data.fit_end}\0{recipe.evaluation.ties}\0{recipe.evaluation.protocol}"
    folder = home.home() / "studies" / "_codebooks" / files.sha256_bytes(text.encode())[:16]
    with exclusive(folder.with_suffix(".lock"), "the codebook of a study", wait_s=CODEBOOK_WAIT_S):
        if not (folder / "summary.json").exists():
            _fit_codebook(recipe, data, config, folder)
    return folder


def _fit_codebook(recipe: CodebookRecipe, data: StudyData, config: CodebookConfig, folder: Path) -> None:
    embedder = fit_embedder(data.items, recipe.embedding)
    sources = Sources(data.items, embedder.vectors(data.items), data.baskets, "study", data.fit_end)
    started = time.process_time()
    built = build(None, sources, config, LifecycleConfig.model_validate({}), seed=recipe.seed)
    built.codebook.save(folder)
    built.catalog.write(folder / "catalogue.parquet")
    health = codebook_health(built.quantized, config.codebook_size)
    summary = {
        "utilisation": [round(level["utilisation"], 4) for level in health["levels"]],
        "collision_rate": round(health["collision_rate"], 4),
        "moved": built.notes["moved"],
        "fit_cpu_seconds": round(time.process_time() - started, 1),
    }
    files.write_json_atomic(folder / "summary.json", summary)


def _validate(rows: NextBasket, seed: int) -> Callable[[RankingModel], float]:
    """Return NDCG@10 on up to 2,000 of the rows, as a function of the model."""
    queries, targets = queries_of(rows, k=10), single_targets(rows)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:VALIDATION_ROWS])
    asked, wanted = [queries[row] for row in chosen], targets[chosen]

    def ndcg(model: RankingModel) -> float:
        rankings = model.rank(asked, beam_width=20, blocked=np.zeros(rows.num_items, dtype=np.bool_))
        hits = np.zeros((len(asked), 10), dtype=np.bool_)
        for row, ranking in enumerate(rankings):
            hits[row, : len(ranking.items)] = ranking.items == wanted[row]
        return float(ndcg_at_k(hits, np.ones(len(asked), dtype=np.int64), 10).mean())

    return ndcg


def _probe(system: System, model: RankingModel, rows: NextBasket) -> dict[str, Any]:
    """Return what the model does on its way to the true items, of one known target a row."""
    targets = single_targets(rows)
    known = np.flatnonzero(targets >= 0)
    queries = queries_of(rows, k=1)
    asked = [queries[row] for row in known if len(queries[row].items)]
    return system.probe(model, asked, [int(targets[row]) for row in known if len(queries[row].items)])


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
