"""An append gives new items semantic IDs and leaves everything published as it was."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.codebook.append import append
from sidrec.codebook.artefact import Artefact, Codebook
from sidrec.codebook.items import merge_items
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.quantizer import Quantizer
from tests.codebook_world import DAY, items_of, parent_of, vectors_of


@given(st.integers(0, 60), st.integers(0, 1000), st.floats(0, 3))
@settings(max_examples=15, deadline=None)
def test_no_published_semantic_id_moves(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, shift: float
) -> None:
    """Whatever comes, old rows are equal to the bit, and old and new together decode uniquely."""
    parent, items, vectors = parent_of(tmp_path_factory.mktemp("parent"), 120)
    more, extra = items_of(count, 120, seed=seed), vectors_of(count, seed=seed, shift=shift)
    merged = merge_items(parent.catalog, pl.concat([items, more]), DAY)
    made = append(parent, merged, np.concatenate([vectors, extra]))

    np.testing.assert_array_equal(made.catalog.codes[:120], parent.catalog.codes)
    assert len(made.catalog) == 120 + count
    assert [made.catalog.decode(made.catalog.encode(item)) for item in made.catalog.item_ids] == made.catalog.item_ids
    assert made.codebook.appended == count
    assert torch.equal(made.codebook.quantizer.codebooks, parent.codebook.quantizer.codebooks)


def test_a_new_item_has_the_codes_of_its_content_unless_they_are_taken(tmp_path: Path) -> None:
    """A twin of a published item shares all codes but one with it; an item apart has its own by plain distance."""
    parent, items, vectors = parent_of(tmp_path)
    plain = parent.codebook.quantizer.encode(torch.from_numpy(vectors)).numpy()
    same = next(row for row in range(200) if (plain[row] == parent.catalog.codes[row, :3]).all())
    merged = merge_items(parent.catalog, pl.concat([items, items_of(1, 200)]), DAY)
    made = append(parent, merged, np.concatenate([vectors, vectors[same : same + 1]]))

    assert made.quantized[200].tolist() == plain[same].tolist()
    assert int((made.catalog.codes[200, :3] != plain[same]).sum()) == 1


def test_errors_of_new_items_tell_whether_the_codewords_span_them(tmp_path: Path) -> None:
    """Items of the old groups fit as the old ones do; items of new groups fit worse."""
    parent, items, vectors = parent_of(tmp_path)
    merged = merge_items(parent.catalog, pl.concat([items, items_of(50, 200)]), DAY)
    alike = append(parent, merged, np.concatenate([vectors, vectors_of(50, seed=7)]))
    unlike = append(parent, merged, np.concatenate([vectors, vectors_of(50, seed=7, shift=3.0)]))

    assert alike.new_errors.mean() < 2 * alike.fitted_errors.mean()
    assert unlike.new_errors.mean() > 2 * alike.new_errors.mean()
    np.testing.assert_array_equal(alike.fitted_errors, unlike.fitted_errors)


def test_a_full_codebook_says_so(tmp_path: Path) -> None:
    """Four semantic IDs, four items: a fifth finds none, and the error names the numbers."""
    config = CodebookConfig(quantizer="residual_kmeans", num_levels=2, codebook_size=2, smoothing_steps=0)
    quantizer = Quantizer("residual_kmeans", torch.tensor([[[0.0], [4.0]], [[0.0], [1.0]]]))
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32)
    parent = Artefact(Codebook(config, quantizer, 1, "x"), Catalog.build(items_of(4), codes), tmp_path, {})
    merged = merge_items(parent.catalog, items_of(5), DAY)

    with pytest.raises(CheckFailedError, match="4"):
        append(parent, merged, np.arange(5, dtype=np.float32)[:, None])
