"""Vectors of item texts by a sentence model, reduced to the catalogue's leading directions where it is wider.

The model's weights stay where they are installed. The artefact holds vectors of a few probe texts, and a model that
gives other vectors is refused: weights, vocabulary, pooling and text length all show there, a renamed layer does not.

Axes: `text` rows to embed, `width` of the model's vectors, `dim` of ours, `probe` texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

from sidrec import files
from sidrec.data.config import EmbeddingConfig
from sidrec.data.embedder import item_texts
from sidrec.data.unit import unit_rows
from sidrec.errors import BundleError, UsageError

FORMAT = 1
_WEIGHTS = "embedder.safetensors"
_HEADER = "embedder.json"
# Probe texts, the longest of which is all of them; and the least cosine that passes for the same vector.
_PROBES, _SAME = 16, 0.999


@dataclass(frozen=True)
class SentenceEmbedder:
    """A sentence model by name and by what it says of the probes, and the projection of its vectors."""

    name: str
    batch_size: int
    dim: int
    projection: NDArray[np.float32]  # [width, dim]; the identity where nothing is reduced
    probe_texts: tuple[str, ...]
    probes: NDArray[np.float32]  # [probe, width]

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the recipe's embedding section that this embedder follows."""
        return {"source": "sentence_transformer", "model": self.name, "dim": self.dim}

    @classmethod
    def fit(cls, texts: Sequence[str], config: EmbeddingConfig) -> Self:
        """Return the embedder of a model; a model wider than `dim` is reduced to these texts' leading directions.

        Raises:
            UsageError: the library is not installed, or there is no such model here.
        """
        assert config.model is not None
        model = _open(config.model)
        vectors = _encode(model, texts, config.batch_size)
        width = vectors.shape[1]
        projection = np.eye(width, dtype=np.float32)
        if config.dim < width:
            projection = _leading(vectors, config.dim)
        some = [text for text in texts if text.strip()][:_PROBES]
        probe_texts = (*some, " ".join(some * _PROBES))
        probes = _encode(model, probe_texts, config.batch_size)
        return cls(config.model, config.batch_size, config.dim, projection, probe_texts, probes)

    def vectors(self, items: pl.DataFrame) -> NDArray[np.float32]:
        """Return unit vectors [item, dim] of an items table's texts; an item without text gets zeros."""
        return unit_rows(_encode(self._model, item_texts(items), self.batch_size) @ self.projection)

    def save(self, folder: Path) -> None:
        """Write `embedder.json` and `embedder.safetensors` (projection and probes) into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file({"projection": self.projection, "probes": self.probes}, folder / _WEIGHTS)
        header = {
            "kind": "sentence_transformer",
            "format": FORMAT,
            "model": self.name,
            "probes": self.probe_texts,
            "batch_size": self.batch_size,
            "dim": self.dim,
        }
        files.write_json_atomic(folder / _HEADER, header)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the embedder that `save` wrote; the model itself is opened when it is first asked.

        Raises:
            BundleError: a file is missing or of another format.
        """
        try:
            header = files.read_json(folder / _HEADER)
            arrays = safetensors.numpy.load_file(folder / _WEIGHTS)
            if header["format"] != FORMAT:
                raise BundleError(
                    f"the sentence embedder has format {header['format']!r}, this version reads {FORMAT}",
                    evidence=folder,
                )
            texts = tuple(header["probes"])
            return cls(
                header["model"], header["batch_size"], header["dim"], arrays["projection"], texts, arrays["probes"]
            )
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise BundleError(f"the sentence embedder cannot be read: {error}", evidence=folder) from error

    @cached_property
    def _model(self) -> Any:
        model = _open(self.name)
        seen = _encode(model, self.probe_texts, self.batch_size)
        alike = (seen * self.probes).sum(axis=1) if seen.shape == self.probes.shape else np.zeros(1)
        if alike.min() < _SAME:
            raise BundleError(
                f"the sentence model {self.name} gives other vectors than the one that the codebook was fitted on: "
                f"the cosine of a probe is {alike.min():.3f}, at least {_SAME} is expected",
                next_step="install the model of that day, or set embedding.refit for a new lineage",
            )
        return model


def _open(name: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise UsageError(
            "embedding.source is sentence_transformer, and the library is not installed",
            next_step="pip install 'sidrec[embedding]'",
        ) from error
    try:
        return SentenceTransformer(name, device="cpu")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no sentence model {name!r} here: {str(error).splitlines()[0]}",
            next_step="set embedding.model to the folder of a downloaded model",
        ) from error


def _encode(model: Any, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
    """Return the model's unit vectors [text, width]; an empty text gets zeros."""
    vectors = model.encode(
        list(texts), batch_size=batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    empty = np.array([not text.strip() for text in texts], dtype=np.bool_)
    return np.where(empty[:, None], np.float32(0), vectors.astype(np.float32))


def _leading(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the leading right singular vectors [width, dim], each with its largest entry positive."""
    _, _, right = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    right = right[:dim]
    largest = np.abs(right).argmax(axis=1)
    right = right * np.sign(right[np.arange(len(right)), largest])[:, None]
    projection = np.zeros((vectors.shape[1], dim), dtype=np.float32)
    projection[:, : len(right)] = right.T
    return projection
