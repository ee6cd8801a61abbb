"""A small life of a codebook: vectors in groups, items that come and go, a quantizer that was fitted on the first."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sidrec import files
from sidrec.codebook.artefact import Artefact, Codebook, seal
from sidrec.codebook.build import Built
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.decide import Decision
from sidrec.codebook.record import health_of
from sidrec.data.catalog import Catalog
from sidrec.data.config import EmbeddingConfig
from sidrec.data.embedding import fit_embedder
from sidrec.quantization.collisions import resolve
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.quantizer import Quantizer

WIDTH = 8
SIZE = 16
LEVELS = 3
CONFIG = CodebookConfig(quantizer="residual_kmeans", num_levels=LEVELS, codebook_size=SIZE, smoothing_steps=0)
DAY = date(2010, 9, 1)
COLOURS = ("RED", "PINK", "BLUE", "GREEN", "IVORY", "GOLD", "SILVER", "BLACK")
THINGS = ("MUG", "TEA TOWEL", "LUNCH BOX", "GARDEN TROWEL", "PAPER CHAIN", "CANDLE", "BAUBLE", "NAPKINS", "CUSHION")


def vectors_of(count: int, *, seed: int = 0, groups: int = 12, shift: float = 0.0) -> np.ndarray:
    """Return unit vectors in groups; `shift` moves the groups to places that earlier seeds do not have."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(groups, WIDTH))
    centres = centres + shift * random.normal(size=(groups, WIDTH))
    own = np.random.default_rng(seed)
    vectors = centres[own.integers(groups, size=count)] + 0.35 * own.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def items_of(count: int, start: int = 0, *, seed: int = 0) -> pl.DataFrame:
    popularity = np.random.default_rng(seed).zipf(1.6, size=count).clip(max=400)
    return pl.DataFrame(
        {
            "item_id": [f"i{row:03d}" for row in range(start, start + count)],
            "title": [f"TITLE {row}" for row in range(start, start + count)],
            "popularity": popularity * 10,
            "recent_popularity": popularity,
        }
    )


def quantizer_of(vectors: np.ndarray, seed: int = 0) -> Quantizer:
    """Return residual k-means codebooks of these vectors."""
    residual, books = torch.from_numpy(vectors), []
    for level in range(LEVELS):
        clusters = kmeans(residual, SIZE, seed=seed + level)
        books.append(clusters.centres)
        residual = residual - clusters.centres[clusters.assignment]
    return Quantizer("residual_kmeans", torch.stack(books))


def parent_of(folder: Path, count: int = 200, *, seed: int = 0) -> tuple[Artefact, pl.DataFrame, np.ndarray]:
    """Return a first generation over `count` items, its items table and its vectors."""
    vectors, items = vectors_of(count, seed=seed), items_of(count, seed=seed)
    quantizer = quantizer_of(vectors)
    latent = torch.from_numpy(vectors)
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    rank = items["popularity"].to_numpy().astype(np.int64)
    final = resolve(quantizer, latent, codes, rank, CONFIG.model_copy(update={"collision_policy": "nearest_free"}))
    embedder = folder / "embedder"
    files.write_json_atomic(embedder / "embedder.json", {"kind": "test"})
    codebook = Codebook(CONFIG, quantizer, WIDTH, files.sha256_tree(embedder))
    return Artefact(codebook, Catalog.build(items, final.codes), embedder, {}), items, vectors


def titled_items() -> pl.DataFrame:
    """Return 72 items whose titles share words and have one of their own."""
    pairs = [(row, column) for row in range(len(COLOURS)) for column in range(len(THINGS))]
    titles = [f"{COLOURS[row]} {THINGS[column]} NO {7 * row + column}" for row, column in pairs]
    return items_of(len(titles)).with_columns(title=pl.Series(titles))


def sealed_codebook(items: pl.DataFrame, folder: Path) -> Path:
    """Return a sealed codebook over items whose vectors are those of its own frozen embedder."""
    embedder = fit_embedder(items, EmbeddingConfig(dim=16, min_document_count=1))
    embedder.save(folder / "embedder")
    vectors = embedder.vectors(items)
    quantizer, latent = quantizer_of(vectors), torch.from_numpy(vectors)
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    config = CONFIG.model_copy(update={"collision_policy": "nearest_free"})
    rank = items["popularity"].to_numpy().astype(np.int64)
    catalog = Catalog.build(items, resolve(quantizer, latent, codes, rank, config).codes)
    book = Codebook(CONFIG, quantizer, 16, files.sha256_tree(folder / "embedder"))
    book.save(folder)
    catalog.write(folder / "catalogue.parquet")
    errors = np.full(len(items), 0.1, dtype=np.float32)
    built = Built(Decision("fit", "test", "scratch"), book, catalog, codes, errors, None, {})
    files.write_json_atomic(folder / "health.json", health_of(built, None, LifecycleConfig()) | {"gates": []})
    seal(folder)
    return folder
