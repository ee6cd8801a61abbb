"""The plots are drawn from the codes and titles as they are: one scale, true sizes, titles as text."""

import numpy as np
import polars as pl
import pytest

from sidrec.codebook.plots import bucket_curves, title_tree, usage_map
from sidrec.data.catalog import Catalog


def test_all_levels_share_one_scale() -> None:
    """Level 0 has 3 items on a code and level 1 only 1: colours are log10(1 + items), the scale ends at the 3."""
    figure = usage_map(np.array([[0, 0], [0, 1], [0, 2]]), 4, "level")
    first, second = (np.array(trace.z, dtype=float) for trace in figure.data)

    np.testing.assert_allclose(first, [[0.602, 0], [0, 0]])
    np.testing.assert_allclose(second, [[0.301, 0.301], [0.301, 0]])
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert figure.layout.coloraxis.cmax == pytest.approx(np.log10(4))


def test_a_grid_that_is_not_square_leaves_its_rest_empty() -> None:
    """Five codes lie in a 3 x 3 grid; the last four squares are no codes, so they are not dead ones."""
    (trace,) = usage_map(np.array([[0], [4]]), 5, "level").data
    squares = [value for row in trace.z for value in row]

    assert [value is None for value in squares] == [False] * 5 + [True] * 4


def test_curves_fall_and_end_with_the_last_used_code() -> None:
    """Shares .5, .25, .25 of the items and .9, .1 of the traffic: one code has no traffic and none is drawn for it."""
    figure = bucket_curves(np.array([[0], [0], [1], [2]]), 4, np.array([5.0, 4.0, 1.0, 0.0]), "level")

    assert [(list(trace.x), list(trace.y)) for trace in figure.data] == [
        ([1, 2, 3], [0.5, 0.25, 0.25]),
        ([1, 2], [0.9, 0.1]),
    ]


def test_boxes_are_as_large_as_their_whole_traffic() -> None:
    """A prefix of 30 second codes draws five of them and is still as large as all; none inside outgrows it."""
    codes = np.array([[0, second] for second in range(30)] + [[1, 0]], dtype=np.int32)
    table = pl.DataFrame({"item_id": [f"i{row}" for row in range(31)], "title": ["<b>T</b>"] * 31})
    (tree,) = title_tree(Catalog.build(table, codes), np.ones(31)).data
    size = dict(zip(tree.ids, tree.values, strict=True))
    inside = [size[name] for name, parent in zip(tree.ids, tree.parents, strict=True) if parent == "0"]

    assert size["0"] / size["1"] == pytest.approx(30)
    assert len(inside) == 5
    assert sum(inside) <= size["0"]
    assert all("<b>T" not in text for text in (*tree.text, *tree.customdata))
    assert "&lt;b&gt;T&lt;/b&gt;" in tree.customdata[0]


def test_semantic_ids_of_one_code_and_no_items_are_drawn() -> None:
    """One level has no second codes to show; an empty catalogue has no boxes."""
    one = Catalog.build(pl.DataFrame({"item_id": ["a", "b"]}), np.array([[0], [1]], dtype=np.int32))
    none = Catalog.build(pl.DataFrame({"item_id": []}, schema={"item_id": pl.String}), np.zeros((0, 2), dtype=np.int32))

    assert set(title_tree(one, np.ones(2)).data[0].ids) == {"0", "0--1", "1", "1--1"}
    assert not title_tree(none, np.zeros(0)).data[0].ids
