"""One step of one size in a process of its own: `python -m benchmarks.scale_steps FAMILY STEP COUNT FOLDER`.

Inputs are made by `prepare`, in another process, so that a peak is the step's own. Memory is what the step adds to the
process's peak after all imports; reading its inputs belongs to it. Time is the process's CPU time.
"""

import contextlib
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.histories import histories_written, training_batch

ROOT = Path(__file__).parents[1]
AS_OF, DAYS, GATE_DAYS = date(2026, 1, 1), 365, 30
# Events a user has, on how many days, and events an item.
PER_USER, VISITS, PER_ITEM = 20, 4, 10
WIDTH = 64
_CHUNK = 1 << 20

Cost = dict[str, Any]


def prepare(family: str, count: int, folder: Path) -> None:
    """Write the inputs of a family's first step, a chunk in memory at a time; later ones read what it leaves."""
    if family == "events":
        _write_raw(count, folder)
    elif family == "histories":
        from benchmarks.histories import write_baskets

        write_baskets(count, folder)
    elif family == "vectors":
        from benchmarks.mixture import write_mixture

        write_mixture(folder / "vectors.f32", count, WIDTH)
    else:
        from benchmarks.trie import catalogue

        np.save(folder / "codes.npy", catalogue(count, 256))


def ingest(count: int, folder: Path) -> Cost:
    """Read, parse, clean and account for raw events by the engine that the environment names, and write the tables."""
    from sidrec.data.accounting import account
    from sidrec.data.adapters import open_adapter
    from sidrec.data.batch import open_batch
    from sidrec.data.cleaning import clean
    from sidrec.data.counting import count as counts_of
    from sidrec.data.engine import open_engine

    recipe, engine = _recipe(folder), open_engine()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        tables = Path(name)
        batch = open_batch(open_adapter(recipe.data, recipe.as_of), engine, tables)
        cleaned = clean(batch.parse(), engine, tables, gate_start=recipe.gate_start, watermark=None)
        kept = account(counts_of(cleaned))["kept"]
        for table in ("events", "sales", "items_raw"):
            getattr(cleaned, table).move(folder / f"{table}.cleaned")
    return {"kept": kept}


def validate(count: int, folder: Path) -> Cost:
    """Run the whole step `validate_events`, Great Expectations included."""
    from components.validate_events.run import run

    (folder / "validated").mkdir(exist_ok=True)
    return {"kept": run(_recipe(folder), {}, folder / "validated")["kept"]}


def sequences(count: int, folder: Path) -> Cost:
    """Run the step `build_sequences` by the engine that the environment names."""
    from components.build_sequences.run import run

    inputs = {name: folder / f"{name}.parquet" for name in ("events", "sales", "items_raw")}
    made = folder / "sequences"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return {"baskets": run(_recipe(folder), inputs, made)["rows"]}


def codebook_fit(count: int, folder: Path) -> Cost:
    """Fit residual k-means over vectors that are read block by block."""
    from safetensors.torch import save_file

    from benchmarks.mixture import file_blocks
    from sidrec.quantization.config import CodebookConfig
    from sidrec.quantization.residual_kmeans import fit_blocks

    config = CodebookConfig.model_validate({"quantizer": "residual_kmeans", "kmeans_iterations": 20})
    books = fit_blocks(file_blocks(folder / "vectors.f32", count, WIDTH), config, seed=0).quantizer.codebooks
    save_file({"codebooks": books.contiguous()}, folder / "books.safetensors")
    return {"codes": "x".join(str(size) for size in books.shape)}


def codebook_assign(count: int, folder: Path) -> Cost:
    """Give every vector its codes, block by block."""
    import torch
    from safetensors.torch import load_file

    from benchmarks.mixture import file_blocks
    from sidrec.quantization.quantizer import Quantizer

    quantizer = Quantizer("residual_kmeans", load_file(folder / "books.safetensors")["codebooks"])
    codes = torch.empty(count, quantizer.codebooks.shape[0], dtype=torch.int32)
    start = 0
    for block in file_blocks(folder / "vectors.f32", count, WIDTH)():
        codes[start : start + len(block)] = quantizer.encode(block)
        start += len(block)
    return {"bytes": codes.nbytes}


def trie_build(count: int, folder: Path) -> Cost:
    """Build the trie of a catalogue's semantic IDs."""
    from sidrec.decoding.trie import PrefixTrie

    return {"bytes": PrefixTrie.from_codes(np.load(folder / "codes.npy")).nbytes}


def serving_step(count: int, folder: Path) -> Cost:
    """Run a step of the search of one request: the decoder as served, the mask and the choice."""
    import torch

    from benchmarks.trie import Decoder, Sizes, World
    from sidrec.decoding.trie import PrefixTrie

    codes = np.load(folder / "codes.npy")
    trie = PrefixTrie.from_codes(codes)
    sizes = Sizes(codes=int(codes.max()) + 1)
    world = World(sizes, codes, trie, torch.zeros(trie.num_nodes))
    step, decoder = world.step(1), Decoder.of(sizes, "none")
    step()
    decoder.seconds()
    taken = []
    for _ in range(sizes.repeats):
        started = time.process_time()
        for _ in range(sizes.inner):
            step()
        taken.append((time.process_time() - started) / sizes.inner / 2 + decoder.seconds())
    return {"seconds": sorted(taken)[len(taken) // 2]}


FAMILIES: dict[str, dict[str, Callable[[int, Path], Cost]]] = {
    "events": {
        "ingest": ingest,
        "ingest duckdb": ingest,
        "validate": validate,
        "validate duckdb": validate,
        "sequences": sequences,
        "sequences duckdb": sequences,
    },
    "histories": {"histories written": histories_written, "training batch": training_batch},
    "vectors": {"codebook fit": codebook_fit, "codebook assign": codebook_assign},
    "catalogue": {"trie build": trie_build, "serving step": serving_step},
}
# What a step imports, so that none of it counts as the step's.
_RAW = ("sidrec.recipe", "sidrec.data.adapters", "sidrec.data.accounting", "sidrec.data.batch")
_HISTORIES = ("polars", "sidrec.systems.batches", "sidrec.systems.stored_histories")
_VALIDATE = ("components.validate_events.run", "components.validate_events.suite")
_DUCKDB = ("sidrec.data.relations", "ibis.backends.duckdb")
_VECTORS = ("benchmarks.mixture", "sidrec.quantization.residual_kmeans", "safetensors.torch")
_IMPORTS = {
    "ingest": _RAW,
    "ingest duckdb": (*_RAW, *_DUCKDB),
    "validate": (*_RAW, *_VALIDATE),
    "validate duckdb": (*_RAW, *_VALIDATE, *_DUCKDB),
    "sequences": (*_RAW, "components.build_sequences.run"),
    "sequences duckdb": (*_RAW, "components.build_sequences.run", *_DUCKDB),
    "histories written": _HISTORIES,
    "training batch": _HISTORIES,
    "codebook fit": _VECTORS,
    "codebook assign": _VECTORS,
    "trie build": ("benchmarks.trie",),
    "serving step": ("benchmarks.trie",),
}


def _recipe(folder: Path) -> Any:
    import yaml

    from sidrec.recipe import parse_recipe

    shipped = yaml.safe_load((ROOT / "pipelines/recipes/popularity_retail.yaml").read_text(encoding="utf-8"))
    data = {"adapter": "table", "events": str(folder / "raw.parquet"), "items": str(folder / "raw_items.parquet")}
    data["event_columns"] = {"quantity": "quantity"}  # type: ignore[assignment]
    validation = {"min_events": 1, "max_null_user_share": 0.4}
    return parse_recipe(
        yaml.safe_dump({**shipped, "data": data, "validation": validation, "as_of": AS_OF, "gate_days": GATE_DAYS})
    )


def _write_raw(count: int, folder: Path) -> None:
    """Write a year of a shop's raw events and items, and the clean tables that cleaning makes of them."""
    import polars as pl
    from pyarrow import parquet

    from sidrec.data.events import EVENTS, ITEMS_RAW, conform

    items = max(count // PER_ITEM, 10)
    ids = pl.DataFrame({"item_id": _names("i", np.arange(items))}).with_columns(title="thing " + pl.col("item_id"))
    ids.write_parquet(folder / "raw_items.parquet")
    sold = np.zeros(items, dtype=bool)
    with contextlib.ExitStack() as open_files:
        writers: dict[str, Any] = {}
        for item, table in _events(count, items):
            sales = conform(table.filter(pl.col("quantity") > 0), EVENTS)
            known = sales.filter(pl.col("user_id").is_not_null())
            before_gate = (table["quantity"] > 0) & (table["timestamp"] < _second(AS_OF - timedelta(days=GATE_DAYS)))
            sold[item[before_gate.to_numpy()]] = True
            raw = table.select("user_id", "item_id", "timestamp", "quantity")
            for name, rows in (("raw", raw), ("sales", sales), ("events", known)):
                arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
                if name not in writers:
                    writer = parquet.ParquetWriter(folder / f"{name}.parquet", arrow.schema)
                    writers[name] = open_files.enter_context(writer)
                writers[name].write_table(arrow)
    conform(ids.filter(pl.Series(sold)), ITEMS_RAW).write_parquet(folder / "items_raw.parquet")


def _events(count: int, items: int) -> Iterator[tuple[Any, Any]]:
    """Yield item numbers and rows: items as popular as 1 / rank, a user four days of the year, a few faults."""
    import polars as pl

    rng = np.random.default_rng(0)
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        item = np.minimum(np.exp(rng.uniform(0, np.log(items + 1), rows)).astype(np.int64) - 1, items - 1)
        user, visit = rng.integers(max(count // PER_USER, 1), size=rows), rng.integers(VISITS, size=rows)
        day = (user * 7919 + visit * 104_729) % DAYS
        yield (
            item,
            pl.DataFrame(
                {
                    "user_id": _names("u", user),
                    "item_id": _names("i", item),
                    "timestamp": _second(AS_OF - timedelta(days=DAYS)) + day * 86_400 + rng.integers(0, 86_400, rows),
                    "event_type": ["purchase"] * rows,
                    "quantity": rng.integers(0, 100, rows),
                    "position": np.arange(start, start + rows),
                }
            ).with_columns(user_id=pl.when(pl.Series(rng.random(rows) > 0.1)).then("user_id")),
        )


def _second(day: date) -> int:
    return (day - date(1970, 1, 1)).days * 86_400


def _names(prefix: str, numbers: Any) -> Any:
    import polars as pl

    return pl.Series(numbers).cast(pl.String).str.pad_start(9, "0").str.replace("^", prefix)


def main() -> None:
    """Prepare a family's inputs, or run one of its steps and print the cost as JSON."""
    family, step, count, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    if step == "prepare":
        prepare(family, count, folder)
        return
    from benchmarks.memory import peak_bytes

    for module in _IMPORTS[step]:
        importlib.import_module(module)
    before, started, wall = peak_bytes(), time.process_time(), time.monotonic()
    # What a step says goes where nobody looks for the cost.
    with contextlib.redirect_stdout(sys.stderr):
        found = FAMILIES[family][step](count, folder)
    cost = {"seconds": time.process_time() - started, "wall": time.monotonic() - wall, "added": peak_bytes() - before}
    print(json.dumps(cost | found))


if __name__ == "__main__":
    main()
