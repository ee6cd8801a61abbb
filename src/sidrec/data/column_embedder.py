"""The user's own vectors, read from a Parquet file by item id.

Axes: `item` rows of an items table, `dim` width of a vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec import files
from sidrec.data.config import EmbeddingConfig
from sidrec.data.unit import unit_rows
from sidrec.errors import BundleError, CheckFailedError, UsageError

FORMAT = 1
_HEADER = "embedder.json"
# Item ids that an error names.
_NAMED = 5


@dataclass(frozen=True)
class ColumnEmbedder:
    """A column's name and width; the vectors themselves stay in the user's file."""

    column: str
    dim: int
    path: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the recipe's embedding section that this embedder follows: where the file lies is not."""
        return {"source": "column", "column": self.column}

    @classmethod
    def fit(cls, config: EmbeddingConfig) -> Self:
        """Return the embedder of a file; its first vector sets the width.

        Raises:
            UsageError: no such file or column, or no row.
        """
        assert config.vectors is not None
        table = _read(config.vectors, config.column)
        first = table[config.column].drop_nulls()
        if first.is_empty():
            raise UsageError(f"column {config.column} of {config.vectors.name} holds no vector")
        return cls(config.column, len(first[0]), config.vectors)

    def vectors(self, items: pl.DataFrame) -> NDArray[np.float32]:
        """Return unit vectors [item, dim] in the order of the items.

        Raises:
            CheckFailedError: an item has no vector, two, one of another width, or one that is not finite.
        """
        if self.path is None:
            raise UsageError(
                "item vectors come from a column, and no file is given", next_step="set embedding.vectors in the recipe"
            )
        table = _read(self.path, self.column)
        twice = table.filter(pl.col("item_id").is_duplicated())["item_id"].unique(maintain_order=True).to_list()
        _refuse(twice, "stand more than once in it", self.path)
        found = items.select("item_id").join(table, on="item_id", how="left", maintain_order="left")
        absent = found.filter(pl.col(self.column).is_null())["item_id"].to_list()
        _refuse(absent, "have no vector", self.path)
        lengths = pl.col(self.column).list.len()
        _refuse(
            found.filter(lengths != self.dim)["item_id"].to_list(), f"have a vector of another width than {self.dim}",
            self.path,
        )  # fmt: skip
        vectors = found[self.column].explode().cast(pl.Float64).to_numpy().reshape(len(found), self.dim)
        broken = ~np.isfinite(vectors).all(axis=1)
        _refuse(found.filter(pl.Series(broken))["item_id"].to_list(), "have a vector that is not finite", self.path)
        return unit_rows(vectors).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write `embedder.json` into `folder`."""
        header = {"kind": "column", "format": FORMAT, "column": self.column, "dim": self.dim}
        files.write_json_atomic(folder / _HEADER, header)

    @classmethod
    def load(cls, folder: Path, path: Path | None) -> Self:
        """Return the embedder that `save` wrote, over today's file.

        Raises:
            BundleError: its file is of another format.
        """
        header = files.read_json(folder / _HEADER)
        try:
            if header["format"] != FORMAT:
                raise BundleError(f"the column embedder has format {header['format']!r}, this version reads {FORMAT}")
            return cls(header["column"], header["dim"], path)
        except KeyError as error:
            raise BundleError(f"the column embedder lacks {error}", evidence=folder) from error


def _read(path: Path, column: str) -> pl.DataFrame:
    if not path.is_file():
        raise UsageError(f"embedding.vectors: no file at {path}; a relative path starts at {Path.cwd()}")
    table = pl.read_parquet(path)
    missing = [name for name in ("item_id", column) if name not in table.columns]
    if missing:
        raise UsageError(
            f"{path.name} has no column {', '.join(missing)}; it has {', '.join(table.columns)}",
            next_step="set embedding.column",
        )
    kind = table.schema[column]
    if not isinstance(kind, pl.List | pl.Array):
        raise UsageError(f"column {column} of {path.name} is {kind}; expected a list of numbers")
    return table.select(pl.col("item_id").cast(pl.String), pl.col(column).cast(pl.List(pl.Float64)))


def _refuse(item_ids: list[str], what: str, path: Path) -> None:
    if item_ids:
        named = ", ".join(repr(item) for item in item_ids[:_NAMED])
        raise CheckFailedError(
            f"{len(item_ids):,} items {what}, {named} first",
            evidence=path,
            next_step="give every item of the items table one finite vector, all of one width",
        )
