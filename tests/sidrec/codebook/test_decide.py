"""The run's verb follows from what is new, and its reason says what that was."""

from typing import Any

import polars as pl
import pytest

from sidrec.codebook.artefact import Artefact
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.decide import Decision, decide
from sidrec.codebook.items import merge_items
from sidrec.errors import CheckFailedError
from tests.codebook_world import CONFIG, DAY, items_of, parent_of

CALM = {"raised": False, "sentence": "all fit"}
LOUD = {"raised": True, "sentence": "the codebook no longer spans the catalogue"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefact, pl.DataFrame]:
    return parent_of(tmp_path_factory.mktemp("parent"))[:2]


def verb(parent: tuple[Artefact, pl.DataFrame], new: int = 0, gone: int = 0, **change: Any) -> Decision:
    artefact, items = parent
    table = pl.concat([items.tail(len(items) - gone), items_of(new, 200)])
    given = {
        "lineage": artefact.codebook.lineage, "codebook": CONFIG, "lifecycle": LifecycleConfig(), "alarm": CALM,
    } | change  # fmt: skip
    return decide(artefact, merge_items(artefact.catalog, table, DAY), **given)


def test_nothing_new_is_none(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """The model is carried and the reason says over how many items."""
    assert verb(parent) == Decision("none", "nothing is new among 200 items", "carry")


def test_new_and_removed_items_are_appended(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """A few of either change no codeword."""
    assert verb(parent, new=10).verb == verb(parent, gone=3).verb == "append"
    assert "10 new items, 0 removed, 0 back" in verb(parent, new=10).reason
    assert verb(parent, new=10).training == "carry"


def test_items_that_do_not_fit_ask_for_a_refresh(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """The alarm's own sentence is the reason; the model is fine-tuned."""
    decision = verb(parent, new=10, alarm=LOUD)

    assert (decision.verb, decision.training) == ("refresh", "fine_tune")
    assert LOUD["sentence"] in decision.reason


def test_too_many_appended_items_ask_for_a_refresh(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """30 of 230 items were never fitted: 13 % is above the 10 % that may wait."""
    decision = verb(parent, new=30)

    assert decision.verb == "refresh"
    assert "30 items (13.0%)" in decision.reason


def test_another_embedder_or_codebook_is_a_new_fit(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """The reason names the lineage or the setting; without a parent it is the first."""
    other = CONFIG.model_copy(update={"codebook_size": 32})

    assert verb(parent, lineage="else").verb == "fit"
    assert "new lineage" in verb(parent, lineage="else").reason
    assert verb(parent, codebook=other).reason.endswith("codebook.codebook_size 16 -> 32")
    first = decide(None, None, lineage="x", codebook=CONFIG, lifecycle=LifecycleConfig(), alarm=None)
    assert (first.verb, first.training) == ("fit", "scratch")


def test_a_forced_verb_is_done_or_refused(parent: tuple[Artefact, pl.DataFrame]) -> None:
    """The recipe may force each verb; one that the parent does not allow stops the run with the way out."""
    for forced in ("append", "refresh", "fit"):
        assert verb(parent, lifecycle=LifecycleConfig(verb=forced)).verb == forced
    with pytest.raises(CheckFailedError, match="new lineage"):
        verb(parent, lineage="else", lifecycle=LifecycleConfig(verb="append"))
    with pytest.raises(CheckFailedError, match="10 new items"):
        verb(parent, new=10, lifecycle=LifecycleConfig(verb="none"))
