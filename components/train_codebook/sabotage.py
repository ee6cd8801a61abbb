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

# Codes that are left of a collapsed level, and items that share each semantic ID.
_LEFT, _SHARING = 4, 4


def sabotage(built: Built, parent: Artefact | None, fault: str) -> Built:
    """Return the codebook with a fault: a collapsed level, codes that four items each share, or permuted codes.

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
            codes = codes[np.arange(len(codes)) % max(1, len(codes) // _SHARING)]
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
