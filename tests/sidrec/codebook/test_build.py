"""One call decides a verb and carries it out; odd catalogues have a defined end each."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sidrec.codebook.artefact import Artefact
from sidrec.codebook.build import Built, Sources, build, churn
from sidrec.codebook.config import LifecycleConfig
from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization.config import CodebookConfig
from tests.codebook_world import CONFIG, DAY, WIDTH, items_of, parent_of, vectors_of

KINDS: dict[str, dict[str, Any]] = {
    "residual_kmeans": {},
    "balanced_kmeans": {},
    "rqvae": {"code_dim": 4, "hidden_dims": (8,), "epochs": 4, "warmup_epochs": 1, "check_every": 2},
    "mpq": {"code_dim": 4, "hidden_dims": (8,), "epochs": 4, "warmup_epochs": 1, "check_every": 2},
}


def config_of(kind: str) -> CodebookConfig:
    values = {"quantizer": kind, "codebook_size": 8, "smoothing_steps": 0, "kmeans_iterations": 5, **KINDS[kind]}
    return CodebookConfig.model_validate(values)


def fitted(items: pl.DataFrame, vectors: np.ndarray, kind: str) -> Built:
    sources = Sources(items, vectors, None, "text", DAY)
    return build(None, sources, config_of(kind), LifecycleConfig(), seed=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_any_number_of_items_gets_semantic_ids(kind: str, count: int) -> None:
    """One item, fewer items than codes and more: each has one of its own."""
    built = fitted(items_of(count), vectors_of(count), kind)

    assert built.decision.verb == "fit"
    assert [built.catalog.decode(built.catalog.encode(item)) for item in built.catalog.item_ids] == (
        built.catalog.item_ids
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equal_items_are_told_apart(kind: str) -> None:
    """Twenty equal vectors, and twenty of zeros: all collide as quantized, none as published."""
    for vectors in (np.ones((20, WIDTH), dtype=np.float32), np.zeros((20, WIDTH), dtype=np.float32)):
        built = fitted(items_of(20), vectors, kind)

        assert len(np.unique(built.quantized, axis=0)) == 1
        assert len(np.unique(built.catalog.codes, axis=0)) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_that_is_not_finite_is_refused(kind: str) -> None:
    """The row is named, whatever would have been fitted."""
    vectors = vectors_of(30)
    vectors[7, 2] = np.inf

    with pytest.raises(CheckFailedError, match="1 item vectors are not finite, row 7 first"):
        fitted(items_of(30), vectors, kind)


def test_vectors_of_other_items_are_refused() -> None:
    """Thirty vectors cannot be those of twenty items, and none are those of none."""
    with pytest.raises(CheckFailedError, match="30 vectors for 20 items"):
        fitted(items_of(20), vectors_of(30), "residual_kmeans")
    with pytest.raises(UsageError, match="0 item vectors"):
        fitted(items_of(0), vectors_of(30)[:0], "residual_kmeans")


def on(parent: Artefact, items: pl.DataFrame, vectors: np.ndarray, **lifecycle: Any) -> Built:
    sources = Sources(items, vectors, None, parent.codebook.lineage, date(2010, 10, 1))
    return build(parent, sources, CONFIG, LifecycleConfig(**lifecycle), seed=0)


def test_the_verb_follows_what_is_new(tmp_path: Path) -> None:
    """Nothing; a few that fit; a few of new groups; an item twice."""
    parent, items, vectors = parent_of(tmp_path)
    more = pl.concat([items, items_of(30, 200)])
    alike, unlike = (np.concatenate([vectors, vectors_of(30, seed=3, shift=shift)]) for shift in (0.0, 3.0))

    assert on(parent, items, vectors).decision.verb == "none"
    assert on(parent, more, alike, max_appended_share=0.5, residual_ratio=2.5).decision.verb == "append"
    assert on(parent, more, unlike, max_appended_share=0.5).decision.verb == "refresh"
    with pytest.raises(CheckFailedError, match="stand more than once"):
        on(parent, pl.concat([items, items.head(1)]), np.concatenate([vectors, vectors[:1]]))


def test_a_full_codebook_can_be_left_for_a_larger_one(tmp_path: Path) -> None:
    """A fifth item finds none of four semantic IDs free; the larger codebook that the error asks for is fitted."""
    sizes = {"num_levels": 2, "codebook_size": 2, "collision_policy": "nearest_free"}
    small = config_of("residual_kmeans").model_copy(update=sizes)
    first = build(None, Sources(items_of(4), vectors_of(4), None, "text", DAY), small, LifecycleConfig(), seed=0)
    parent = Artefact(first.codebook, first.catalog, tmp_path, {})
    sources = Sources(items_of(5), vectors_of(5), None, "text", DAY)
    larger = small.model_copy(update={"codebook_size": 4})

    with pytest.raises(CheckFailedError, match="all 4 semantic IDs"):
        build(parent, sources, small, LifecycleConfig(), seed=0)
    assert build(parent, sources, larger, LifecycleConfig(), seed=0).decision.verb == "fit"
    assert build(parent, sources, small, LifecycleConfig(verb="fit"), seed=0).decision.verb == "fit"


def test_a_removed_item_is_a_tombstone_of_the_day(tmp_path: Path) -> None:
    """An append with one item fewer buries it; nobody moves."""
    parent, items, vectors = parent_of(tmp_path)
    built = on(parent, items.tail(199), vectors[1:])

    assert built.decision.verb == "append"
    assert built.catalog.removed_on[0] == date(2010, 10, 1)
    assert churn(parent.catalog, built.catalog, "carry")["moved"] == 0


def test_a_smoothed_codebook_is_not_refreshed_without_baskets(tmp_path: Path) -> None:
    """Its vectors would be of another kind than those it was fitted on."""
    parent, items, vectors = parent_of(tmp_path)
    smoothed = CONFIG.model_copy(update={"smoothing_steps": 2})
    sources = Sources(items, vectors, None, parent.codebook.lineage, DAY)
    object.__setattr__(parent.codebook, "config", smoothed)

    with pytest.raises(UsageError, match="smoothed over baskets"):
        build(parent, sources, smoothed, LifecycleConfig(verb="refresh"), seed=0)


def test_from_scratch_is_from_scratch_whatever_the_verb(tmp_path: Path) -> None:
    """The training pipeline says so beforehand; the decision then carries no weights."""
    parent, items, vectors = parent_of(tmp_path)
    sources = Sources(items, vectors, None, parent.codebook.lineage, DAY)

    assert build(parent, sources, CONFIG, LifecycleConfig(), seed=0, scratch=True).decision.training == "scratch"
