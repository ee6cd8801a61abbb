"""An explanation names the neighbours of every prefix and what each code explains."""

from datetime import date

import numpy as np
import polars as pl
import pytest
import torch

from sidrec.codebook.explain import explain
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.quantization.quantizer import Quantizer

CATALOG = Catalog.build(
    pl.DataFrame(
        {
            "item_id": ["85123A", "85123B", "22423", "21212"],
            "title": ["WHITE HEART", "RED HEART", "CAKE STAND", "CAKE CASES"],
            "popularity": [5, 9, 3, 1],
        }
    ),
    np.array([[0, 1, -1], [0, 0, -1], [1, 1, 0], [1, 1, 1]], dtype=np.int32),
)
QUANTIZER = Quantizer("residual_kmeans", torch.tensor([[[4.0], [-4.0]], [[0.0], [1.0]]]))


def test_neighbours_thin_out_along_the_semantic_id() -> None:
    """85123A shares its first code with 85123B and its second with nobody; its extra code is none."""
    said = explain("85123A", CATALOG)

    assert said["semantic_id"] == [0, 1]
    assert [(level["code"], level["items"], level["titles"]) for level in said["levels"]] == [
        (0, 2, ["RED HEART"]),
        (1, 1, []),
    ]
    assert said["plain_codes"] is None


def test_each_code_explains_a_share() -> None:
    """4.5 by hand: codeword 4 leaves .25 of 20.25, 4 + 1 leaves .25 too; by plain distance the second code is 0."""
    said = explain("85123A", CATALOG, quantizer=QUANTIZER, vector=np.array([4.5], dtype=np.float32))

    assert [level["explained"] for level in said["levels"]] == pytest.approx([1 - 0.25 / 20.25] * 2)
    assert said["plain_codes"] == [0, 0]
    assert said["moved_from_plain"]


def test_slots_explain_their_own_part() -> None:
    """Two slots of a parallel quantizer: the first explains its half, both explain all."""
    quantizer = Quantizer("mpq", torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]]), torch.nn.Unflatten(1, (2, 1)))
    said = explain("85123A", CATALOG, quantizer=quantizer, vector=np.array([1.0, 1.0], dtype=np.float32))

    assert [level["explained"] for level in said["levels"]] == pytest.approx([0.5, 1.0])


def test_an_unknown_item_gets_close_ones() -> None:
    """A mistyped id and a word of a title both lead somewhere."""
    with pytest.raises(UsageError, match="85123A \\(WHITE HEART\\)"):
        explain("85123X", CATALOG)
    with pytest.raises(UsageError, match="22423 \\(CAKE STAND\\)"):
        explain("cake", CATALOG)
    with pytest.raises(UsageError, match="85123A \\(WHITE HEART\\)"):
        explain("whte haert", CATALOG)
    with pytest.raises(UsageError, match=r"is not in the catalogue$"):
        explain("xyzzy-0000", CATALOG)


def test_a_tombstone_says_so() -> None:
    """An item that is no longer sold keeps its semantic ID and has its day of removal."""
    table = CATALOG.table().with_columns(removed_on=pl.Series([date(2010, 9, 1), None, None, None], dtype=pl.Date))
    said = explain("85123A", Catalog.build(table, CATALOG.codes))

    assert said["semantic_id"] == [0, 1]
    assert said["removed_on"] == "2010-09-01"


def test_an_extra_code_is_a_level_without_a_codeword() -> None:
    """22423 needs a third code to differ from 21212: it puts it alone and explains nothing more."""
    said = explain("22423", CATALOG, quantizer=QUANTIZER, vector=np.array([-3.0], dtype=np.float32))

    assert [(level["code"], level["items"]) for level in said["levels"]] == [(1, 2), (1, 2), (0, 1)]
    assert said["levels"][2]["explained"] is None
    assert said["plain_codes"] == [1, 1]
    assert not said["moved_from_plain"]
