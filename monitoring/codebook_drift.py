"""How evenly the codes of each level are used: by the catalogue, by what is served, by what is bought.

Axes: `level` of a semantic ID, coarsest first. The catalogue's usage is the ceiling; served usage far below it is
a decoder that sees few prefixes, bought usage far from served a decoder that serves what nobody buys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

Traffic = Literal["catalogue", "served", "bought"]
TRAFFICS: tuple[Traffic, ...] = ("catalogue", "served", "bought")


@dataclass(frozen=True, slots=True)
class LevelUsage:
    """How one kind of traffic uses the codes of one level."""

    level: int
    traffic: Traffic
    events: int
    used: int
    size: int
    utilisation: float
    entropy: float
    normalised_entropy: float
    perplexity: float
    largest_share: float
    """Of the traffic, by the code that has most of it; in a slot, the load of its busiest codeword."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self)


def usage(level: int, traffic: Traffic, counts: Sequence[int], size: int) -> LevelUsage:
    """Return utilisation, entropy (bits) and perplexity of a level of `size` codes used `counts` times each."""
    table = np.array([count for count in counts if count > 0], dtype=np.float64)
    used = len(table)
    entropy = entropy_bits(table)
    return LevelUsage(
        level=level,
        traffic=traffic,
        events=int(table.sum()),
        used=used,
        size=size,
        utilisation=used / size,
        entropy=entropy,
        normalised_entropy=entropy / float(np.log2(size)) if size > 1 else 1.0,
        perplexity=float(2.0**entropy) if used else 0.0,
        largest_share=float(table.max() / table.sum()) if used else 0.0,
    )


def entropy_bits(counts: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    """Return the Shannon entropy of counts in bits; 0 for none."""
    used = counts[counts > 0]
    if not len(used):
        return 0.0
    shares = used / used.sum()
    return float(abs(-(shares * np.log2(shares)).sum()))


def code_counts(semantic_ids: pl.LazyFrame) -> pl.DataFrame:
    """Return rows (level, code, count) of a table of semantic IDs `codes` and weights `count`; -1 only pads."""
    return (
        semantic_ids.select("codes", "count")
        .with_columns(level=pl.int_ranges(pl.col("codes").list.len()))
        .explode("codes", "level")
        .filter(pl.col("codes") >= 0)
        .group_by("level", code="codes")
        .agg(pl.col("count").sum())
        .sort("level", "code")
        .collect()
    )


def level_sizes(catalogue: pl.DataFrame, codebook_size: int | None, num_levels: int | None) -> dict[int, int]:
    """Return how many codes each level has.

    A level of the codebook has `codebook_size`; a disambiguation level, or a catalogue without a codebook, has the
    codes that its items use.
    """
    used: Mapping[int, int] = dict(
        code_counts(catalogue.lazy().with_columns(count=pl.lit(1, dtype=pl.Int64)))
        .group_by("level")
        .agg(pl.len())
        .iter_rows()
    )
    return {
        level: codebook_size if codebook_size and num_levels and level < num_levels else max(codes, 1)
        for level, codes in sorted(used.items())
    }
