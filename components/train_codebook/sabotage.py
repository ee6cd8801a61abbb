"""Faults that a run can be given on purpose, to see the codebook's gates refuse them.

A fault is put into the built codebook itself, so the gates measure it as they would measure a real one.
"""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from sidrec.codebook.artefact import Artefact
from sidrec.codebook.build import Built
from sidrec.data.catalog import Catalog, disambiguate
from sidrec.errors import UsageError

Fault = Literal["codebook-collapse", "collisions", "churn"]
FAULTS: tuple[str, ...] = get_args(Fault)

# Of a collapsed level: codes that are left.
_LEFT = 4


def sabotage(built: Built, parent: Artefact | None, fault: str) -> Built:
    """Return the codebook with a fault: a collapsed level, equal codes for half of the items, or permuted codes.

    Raises:
        UsageError: no such fault, or `churn` where nothing is live that could be lost.
    """
    built = replace(built, notes={**built.notes, "broken": fault})
    codes = built.quantized.copy()
    level = min(1, codes.shape[1] - 1)
    match fault:
        case "codebook-collapse":
            codes[:, level] %= _LEFT
        case "collisions":
            half = len(codes) // 2
            codes[half : 2 * half] = codes[:half]
        case "churn":
            if parent is None:
                raise UsageError("nothing is live, so no semantic ID can move", next_step="sidrec promote --first")
            size = built.codebook.quantizer.codebook_size
            permuted = built.catalog.codes.copy()
            permuted[:, 0] = np.random.default_rng(0).permutation(size)[permuted[:, 0]]
            return replace(built, catalog=Catalog.build(built.catalog.table(), permuted))
        case _:
            raise UsageError(f"no fault is called {fault!r}", next_step=f"one of {', '.join(FAULTS)}")
    popularity = built.catalog.popularity
    return replace(
        built, quantized=codes, catalog=Catalog.build(built.catalog.table(), disambiguate(codes, popularity))
    )
