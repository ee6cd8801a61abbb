"""The one path from a history to items, on a popularity model whose right answers are known by eye."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.recipe import PopularityRecipe, load_recipe
from sidrec.recommender import Recommender, Request
from sidrec.systems.base import FitInputs, Query, Ranking
from sidrec.systems.popularity import PopularitySystem

DAY = 86_400


def catalog_of(recent: list[int], removed: Sequence[str] = ()) -> Catalog:
    items = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(len(recent))],
            "title": ["t"] * len(recent),
            "popularity": [10 * count + 1 for count in recent],
            "recent_popularity": recent,
            "first_sold": [date(2010, 1, 1)] * len(recent),
            "removed_on": [date(2010, 2, 1) if f"i{row}" in removed else None for row in range(len(recent))],
        },
        schema_overrides={"removed_on": pl.Date},
    )
    return Catalog.build(items, np.arange(len(recent), dtype=np.int32)[:, None])


@pytest.fixture
def make(tmp_path: Path, project_root: Path) -> Callable[[list[int]], Recommender]:
    _, recipe = load_recipe(project_root / "pipelines/recipes/popularity_retail.yaml")
    assert isinstance(recipe, PopularityRecipe)

    def recommender(recent: list[int], removed: Sequence[str] = ()) -> Recommender:
        catalog = catalog_of(recent, removed)
        empty = pl.LazyFrame()
        PopularitySystem().fit(FitInputs(empty, empty, catalog, tmp_path, recipe.gate_start, 0, 1), tmp_path)
        return Recommender.from_parts(
            bundle_id="b-000000000000",
            recipe=recipe,
            catalog=catalog,
            weights=tmp_path / "model",
            decode={"as_of_time": recipe.as_of_time, "beam_width": 50},
        )

    return recommender


def test_requests_of_a_batch_keep_their_own_k_and_exclusion(make: Callable[[list[int]], Recommender]) -> None:
    """Neighbours in a batch do not change one another's answer."""
    recommender = make([5, 4, 3, 2, 1])

    answers = recommender.recommend(
        [
            Request(("i0",), (DAY,), k=2),
            Request(("i0", "i1"), (DAY, DAY), k=3, exclude_seen=True),
            Request((), (), k=1),
        ]
    )

    assert [answer.item_ids for answer in answers] == [("i0", "i1"), ("i2", "i3", "i4"), ("i0",)]
    assert [answer.source for answer in answers] == ["model", "model", "cold"]


def test_a_history_of_unknown_items_is_cold(make: Callable[[list[int]], Recommender]) -> None:
    """What the catalogue does not know tells nothing about the user, and the answer says so."""
    answer = make([1, 2, 3]).recommend([Request(("x", "y"), (DAY, DAY), k=2)])[0]

    assert (answer.source, answer.known_items, answer.item_ids) == ("cold", 0, ("i2", "i1"))


def test_unknown_items_are_dropped_from_a_known_history(make: Callable[[list[int]], Recommender]) -> None:
    """One known item is enough for the model."""
    answer = make([1, 2, 3]).recommend([Request(("x", "i2"), (DAY, DAY), k=2, exclude_seen=True)])[0]

    assert (answer.source, answer.known_items, answer.item_ids) == ("model", 1, ("i1", "i0"))


def test_a_takedown_reaches_model_and_cold_answers_at_once(make: Callable[[list[int]], Recommender]) -> None:
    """No rebuild, no restart; an empty list gives the items back."""
    recommender = make([3, 2, 1])
    requests = [Request(("i1",), (DAY,), k=3), Request((), (), k=3)]

    recommender.set_takedown(["i0", "never-heard-of"])
    without = [answer.item_ids for answer in recommender.recommend(requests)]
    recommender.set_takedown([])
    restored = [answer.item_ids for answer in recommender.recommend(requests)]

    assert without == [("i1", "i2"), ("i1", "i2")]
    assert restored == [("i0", "i1", "i2")] * 2


def test_a_tombstone_is_in_histories_but_in_no_answer(make: Callable[..., Recommender]) -> None:
    """A removed item still says something about who bought it; no list of takedowns brings it back."""
    recommender = make([3, 2, 1], removed=["i0"])
    requests = [Request(("i0",), (DAY,), k=3), Request((), (), k=3)]

    before = [answer.item_ids for answer in recommender.recommend(requests)]
    recommender.set_takedown([])
    after = recommender.recommend(requests)

    assert before == [("i1", "i2"), ("i1", "i2")]
    assert [answer.item_ids for answer in after] == before
    assert after[0].known_items == 1


def test_never_more_rows_than_items_and_never_filler(make: Callable[[list[int]], Recommender]) -> None:
    """k above the catalogue gives the catalogue."""
    answer = make([2, 1]).recommend([Request(("i0",), (DAY,), k=100)])[0]

    assert answer.item_ids == ("i0", "i1")
    assert answer.scores.shape == (2,)
    assert answer.semantic_ids.shape == (2, 1)


def test_scores_fall_and_ties_follow_the_whole_fit(make: Callable[[list[int]], Recommender]) -> None:
    """Recent popularity decides; equal recent popularity is decided by the longer count."""
    answer = make([1, 9, 1]).recommend([Request((), (), k=3)])[0]

    assert answer.item_ids[0] == "i1"
    assert (np.diff(answer.scores) <= 0).all()


def test_fewer_beams_than_the_bundle_promises_is_degraded(make: Callable[[list[int]], Recommender]) -> None:
    """A budget below the bundle's own is said in the answer; one above it is not used."""
    recommender = make([2, 1])
    request = Request(("i0",), (DAY,))

    assert recommender.recommend([request], beam_width=10)[0].source == "degraded"
    assert recommender.recommend([request], beam_width=500)[0].beam_width == 50


def test_an_answer_whose_thinking_ran_out_of_time_is_degraded(
    make: Callable[[list[int]], Recommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit reaches the model, and what it says of itself the answer, its rationale too."""
    recommender = make([3, 2, 1])
    seen: list[float | None] = []

    def rank(queries: Sequence[Query], **options: object) -> list[Ranking]:
        seen.extend(query.think_until for query in queries)
        late = [query.think_until == 5.0 for query in queries]
        return [Ranking(np.array([0]), np.array([-1.0], np.float32), 1, {}, "because", own) for own in late]

    monkeypatch.setattr(recommender._model, "rank", rank, raising=False)
    calm, late = recommender.recommend([Request(("i0",), ()), Request(("i0",), (), think_until=5.0)])

    assert seen == [None, 5.0]
    assert (calm.source, late.source) == ("model", "degraded")
    assert (calm.rationale, late.rationale) == ("because", "because")


def test_times_that_do_not_match_the_items_are_refused(make: Callable[[list[int]], Recommender]) -> None:
    """A time a history item or none at all; anything else is a caller's mistake."""
    with pytest.raises(UsageError, match="2 items but 1 times"):
        make([1]).recommend([Request(("i0", "i0"), (DAY,))])


def test_an_answer_says_how_much_of_it_repeats_the_history(make: Callable[[list[int]], Recommender]) -> None:
    """Two of four items were had before; none where the history is excluded; a cold answer says nothing."""
    recommender = make([5, 4, 3, 2, 1])
    history = (("i0", "i3"), (DAY, DAY))

    answers = recommender.recommend(
        [Request(*history, k=4), Request(*history, k=2, exclude_seen=True), Request((), (), k=1)]
    )

    assert [answer.stats.get("repeat_share") for answer in answers] == [0.5, 0.0, None]
