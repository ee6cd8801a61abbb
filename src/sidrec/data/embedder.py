"""A frozen text embedder: a title gives the same vector bit for bit, today, alone or in a batch, and after a reload.

TF-IDF over words and character n-grams, projected on the leading right singular vectors of the catalogue it was
fitted on. Axes: `text` rows to embed, `feature` entries of the vocabulary, `dim` width of a vector.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import safetensors.numpy
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from sidrec import files
from sidrec.data.config import EmbeddingConfig
from sidrec.data.unit import unit_rows
from sidrec.errors import BundleError, UsageError

FORMAT = 1
TEXT_COLUMNS = ("title", "brand", "categories")

# The settings of this embedder; its file, and so its lineage, does not change when other embedders get theirs.
_SETTINGS = frozenset({"dim", "min_document_count", "max_features", "ngram_min", "ngram_max", "word_share"})
_WORD = re.compile(r"[^\W_]+")
_WEIGHTS = "embedder.safetensors"
_HEADER = "embedder.json"


@dataclass(frozen=True, eq=False)
class TextEmbedder:
    """Vocabulary, inverse document frequencies and projection of one fit."""

    config: EmbeddingConfig
    vocabulary: list[str]
    idf: NDArray[np.float32]  # [feature]
    projection: NDArray[np.float32]  # [feature, dim]
    _index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {feature: row for row, feature in enumerate(self.vocabulary)})

    @classmethod
    def fit(cls, texts: Sequence[str], config: EmbeddingConfig) -> Self:
        """Return the embedder of these texts; the same texts in the same order give the same one.

        Raises:
            UsageError: no feature occurs in enough texts.
        """
        counted = [_features(text, config) for text in texts]
        documents = Counter(feature for counts in counted for feature in counts)
        frequent = [feature for feature, count in documents.items() if count >= config.min_document_count]
        # The most frequent features win a place, equal ones by name, so that the choice has no other input.
        kept = sorted(sorted(frequent, key=lambda feature: (-documents[feature], feature))[: config.max_features])
        if not kept:
            raise UsageError(
                f"no word or character n-gram occurs in {config.min_document_count} of {len(texts)} item texts",
                next_step="give the items titles, or lower embedding.min_document_count",
            )
        frequencies = np.array([documents[feature] for feature in kept], dtype=np.float64)
        idf = (np.log((1 + len(texts)) / (1 + frequencies)) + 1).astype(np.float32)
        unprojected = cls(config, kept, idf, np.zeros((len(kept), config.dim), dtype=np.float32))
        projection = _leading_directions(unprojected._weigh(counted), config.dim)
        return cls(config, kept, idf, projection)

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the recipe's embedding section that this embedder follows."""
        return {"source": "tfidf", **self.config.model_dump(mode="json", include=set(_SETTINGS))}

    def vectors(self, items: pl.DataFrame) -> NDArray[np.float32]:
        """Return unit vectors [item, dim] of an items table's texts; an item without a known word gets zeros."""
        return self.embed(item_texts(items))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors [text, dim]; a text without any known feature gives zeros."""
        weights = self._weigh([_features(text, self.config) for text in texts])
        # A sparse row times the projection is summed in feature order, whatever rows stand beside it.
        vectors: NDArray[np.float32] = np.asarray(weights @ self.projection, dtype=np.float32)
        return unit_rows(vectors)

    def save(self, folder: Path) -> None:
        """Write `embedder.safetensors` and `embedder.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file({"idf": self.idf, "projection": self.projection}, folder / _WEIGHTS)
        header = {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json", include=set(_SETTINGS)),
            "vocabulary": self.vocabulary,
        }
        files.write_json_atomic(folder / _HEADER, header)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the embedder that `save` wrote.

        Raises:
            BundleError: a file is missing, of another format, or the two do not belong together.
        """
        try:
            header: dict[str, Any] = files.read_json(folder / _HEADER)
            arrays = safetensors.numpy.load_file(folder / _WEIGHTS)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise BundleError(f"the text embedder cannot be read: {error}", evidence=folder) from error
        if header.get("format") != FORMAT:
            raise BundleError(
                f"the text embedder has format {header.get('format')!r}, this version reads {FORMAT}", evidence=folder
            )
        config = EmbeddingConfig.model_validate(header["config"])
        expected = (len(header["vocabulary"]), config.dim)
        if arrays["projection"].shape != expected or arrays["idf"].shape != expected[:1]:
            raise BundleError(
                f"{_HEADER} announces a projection of {expected}, {_WEIGHTS} has {arrays['projection'].shape}",
                evidence=folder,
            )
        return cls(config, header["vocabulary"], arrays["idf"], arrays["projection"])

    def _weigh(self, counted: Sequence[Counter[str]]) -> scipy.sparse.csr_array:
        """Return TF-IDF weights [text, feature], words and n-grams each of unit length before they are joined."""
        rows = [self._weigh_one(counts) for counts in counted]
        starts = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        columns = np.concatenate([columns for columns, _ in rows]) if rows else np.zeros(0, dtype=np.int32)
        values = np.concatenate([values for _, values in rows]) if rows else np.zeros(0, dtype=np.float32)
        return scipy.sparse.csr_array((values, columns, starts), shape=(len(rows), len(self.vocabulary)))

    def _weigh_one(self, counts: Counter[str]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        index = self._index
        entries = sorted((index[feature], feature[0], count) for feature, count in counts.items() if feature in index)
        columns = np.array([column for column, _, _ in entries], dtype=np.int32)
        is_word = np.array([kind == "w" for _, kind, _ in entries], dtype=bool)
        counted = np.array([count for _, _, count in entries], dtype=np.float32)
        values = ((1 + np.log(counted)) * self.idf[columns]).astype(np.float32)
        for block, share in ((is_word, self.config.word_share), (~is_word, 1 - self.config.word_share)):
            length = np.sqrt(np.square(values[block]).sum())
            if length > 0:
                values[block] *= np.float32(np.sqrt(share)) / length
        return columns, values


def item_texts(items: pl.DataFrame) -> list[str]:
    """Return one text an item: title, brand and categories, as far as the table has them."""
    columns = [name for name in TEXT_COLUMNS if name in items.columns]
    parts = [pl.col(name).cast(pl.String).fill_null("") for name in columns]
    return items.select(pl.concat_str(parts, separator=" ").str.strip_chars()).to_series().to_list()


def _features(text: str, config: EmbeddingConfig) -> Counter[str]:
    """Return counts of words (`w…`) and of the n-grams of each word with its borders (`c…`)."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    counts = Counter(f"w{word}" for word in words)
    for word in words:
        padded = f" {word} "
        for length in range(config.ngram_min, config.ngram_max + 1):
            counts.update(f"c{padded[start : start + length]}" for start in range(len(padded) - length + 1))
    return counts


def _leading_directions(weights: scipy.sparse.csr_array, dim: int) -> NDArray[np.float32]:
    """Return the `dim` leading right singular vectors [feature, dim], each with its largest entry positive.

    Where the matrix has fewer, the remaining columns are zero.
    """
    smaller = min(weights.shape)
    if smaller <= 4 * dim:
        _, _, right = np.linalg.svd(weights.toarray().astype(np.float64), full_matrices=False)
    else:
        # ARPACK starts from a random vector unless told; a fixed one makes the fit repeatable.
        start = np.random.default_rng(0).standard_normal(smaller)
        _, strengths, right = scipy.sparse.linalg.svds(weights.astype(np.float64), k=dim, v0=start)
        right = right[np.argsort(-strengths, kind="stable")]
    right = right[:dim]
    # A singular vector is known up to its sign; fixing it keeps two fits comparable.
    largest = np.abs(right).argmax(axis=1)
    right = right * np.sign(right[np.arange(len(right)), largest])[:, None]
    projection = np.zeros((weights.shape[1], dim), dtype=np.float32)
    projection[:, : len(right)] = right.T
    return projection
