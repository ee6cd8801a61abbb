"""Item vectors behind one door: fitted once, frozen in a folder, opened by whoever meets new items.

Axes: `item` rows of an items table, `dim` width of a vector.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec import files
from sidrec.data.column_embedder import ColumnEmbedder
from sidrec.data.config import EmbeddingConfig
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.data.sentence_embedder import SentenceEmbedder
from sidrec.errors import BundleError

HEADER = "embedder.json"


class Embedder(Protocol):
    """A frozen embedder; its folder's digest is the lineage of every codebook that is fitted on its vectors."""

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the recipe's embedding section that it follows."""
        ...

    def vectors(self, items: pl.DataFrame) -> NDArray[np.float32]:
        """Return one vector an item [item, dim]."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `open_embedder` needs into `folder`."""
        ...


def fit_embedder(items: pl.DataFrame, config: EmbeddingConfig) -> Embedder:
    """Return the embedder that the settings ask for, fitted on these items."""
    match config.source:
        case "tfidf":
            return TextEmbedder.fit(item_texts(items), config)
        case "sentence_transformer":
            return SentenceEmbedder.fit(item_texts(items), config)
        case "column":
            return ColumnEmbedder.fit(config)


def open_embedder(folder: Path, *, vectors: Path | None = None) -> Embedder:
    """Return the embedder that was saved in `folder`.

    Args:
        vectors: today's file of a column embedder, whose items are not the ones of the day it was made.

    Raises:
        BundleError: nothing, or something of an unknown kind, was saved there.
    """
    try:
        kind = files.read_json(folder / HEADER).get("kind", "tfidf")
    except (OSError, ValueError) as error:
        raise BundleError(f"the embedder cannot be read: {error}", evidence=folder) from error
    match kind:
        case "tfidf":
            return TextEmbedder.load(folder)
        case "sentence_transformer":
            return SentenceEmbedder.load(folder)
        case "column":
            return ColumnEmbedder.load(folder, vectors)
        case _:
            raise BundleError(f"the embedder is of kind {kind!r}, which this version does not know", evidence=folder)


def differing(embedder: Embedder, config: EmbeddingConfig) -> list[str]:
    """Return the settings in which a frozen embedder is not the one that the recipe asks for."""
    asked = config.model_dump(mode="json")
    return sorted(name for name, value in embedder.settings.items() if asked[name] != value)
