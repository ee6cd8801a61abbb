"""What the answers of a batch depend on, without a server: arms, clocks, the store's word, the deadline, the model."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from serving.history import StoredHistory
from serving.triton.answering import Answerer, Refused, Served, answer_fault, exposure
from serving.triton.golden import check_revision
from serving.triton.parse import ParsedRequest, parse
from sidrec import contract
from sidrec.bundle import Bundle
from sidrec.data.catalog import Catalog
from sidrec.decoding.exploration import Exploration
from sidrec.errors import ServingError
from sidrec.exclusion import Exclusion
from sidrec.exposure import frame
from sidrec.recommender import Answer, Recommender, Request
from sidrec.release.revision import assign
from tests.serving.world import make_bundle, make_revision


def request(**values: Any) -> ParsedRequest:
    """A request as the wire brings it, absent tensors left out."""

    def read(name: str) -> Any:
        if name not in values:
            return None
        spec = next(spec for spec in contract.INPUTS if spec.name == name)
        row = values[name] if isinstance(values[name], list) else [values[name]]
        array = np.empty((1, len(row)), dtype=spec.numpy_dtype)
        array[0, :] = [one.encode() if isinstance(one, str) else one for one in row]
        return array

    return parse(read)


class Shelf:
    """Stored histories by user, and every read that was made."""

    def __init__(self, stored: dict[str, StoredHistory]) -> None:
        self.stored = stored
        self.reads: list[dict[str, Any]] = []

    def read(self, user_ids: Sequence[str], **options: Any) -> list[StoredHistory]:
        self.reads.append({"users": list(user_ids), **options})
        return [self.stored.get(user, StoredHistory((), (), None, "missing")) for user in user_ids]


class Moody(Recommender):
    """A recommender that fails, or answers wrong, where a history holds a certain item."""

    def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
        if any("raise" in request.item_ids for request in requests):
            raise RuntimeError("no")
        answers = super().recommend(requests, beam_width=beam_width)
        return [
            dataclasses.replace(answer, scores=answer.scores * np.float32("nan"))
            if "nan" in request.item_ids
            else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture
def make(bundle: Bundle) -> Callable[..., Answerer]:
    def answerer(histories: Any = None, cls: type[Recommender] = Recommender, **changes: Any) -> Answerer:
        revision = make_revision(1, bundle, **changes)
        return Answerer(revision, {bundle.bundle_id: cls.open(bundle.folder)}, histories)

    return answerer


@pytest.mark.parametrize(
    ("status", "source", "history_source"),
    [("fresh", "model", "store"), ("stale", "cold", "none"), ("missing", "cold", "none"), ("error", "cold", "none")],
)
def test_only_a_fresh_history_is_used(
    make: Callable[..., Answerer], status: Any, source: str, history_source: str
) -> None:
    """Stale, missing, or a store that fails: a cold answer that says so, never a guess."""
    items = (("i1",), (5,)) if status == "fresh" else ((), ())
    shelf = Shelf({"u": StoredHistory(*items, None if status in ("missing", "error") else 7, status)})

    [served] = make(shelf).answer([request(USER_ID="u")])

    assert isinstance(served, Served)
    assert (served.answer.source, served.history_source) == (source, history_source)


def test_one_read_serves_the_whole_batch(make: Callable[..., Answerer]) -> None:
    """Users without a history are read together, each at its own time; the others are not read at all."""
    shelf = Shelf({})
    make(shelf).answer(
        [
            request(USER_ID="a", CONTEXT='{"event_time": 10}'),
            request(USER_ID="b", HISTORY=["i1"]),
            request(),
            request(USER_ID="c", CONTEXT='{"event_time": 20}'),
        ]
    )

    assert [read["users"] for read in shelf.reads] == [["a", "c"]]
    assert (shelf.reads[0]["now"], shelf.reads[0]["until"]) == ([10, 20], [10, 20])


def test_the_event_time_is_refused_under_the_walls_clock(make: Callable[..., Answerer]) -> None:
    """A client does not choose the time there; its neighbour is answered at the wall's."""
    refused, served = make(clock="wall").answer([request(CONTEXT='{"event_time": 5}'), request(HISTORY=["i1"])])

    assert isinstance(refused, Refused)
    assert refused.invalid
    assert isinstance(served, Served)
    assert abs(served.event_time - time.time()) < 60


def test_the_event_clock_stands_at_the_bundles_as_of(make: Callable[..., Answerer], bundle: Bundle) -> None:
    """Without an event time, now is when the bundle was made of."""
    [served] = make().answer([request()])

    assert isinstance(served, Served)
    assert served.event_time == bundle.decode["as_of_time"]


@pytest.mark.parametrize("poison", ["raise", "nan"])
def test_a_request_that_breaks_the_model_fails_alone(make: Callable[..., Answerer], poison: str) -> None:
    """Whatever the model raises or returns, the neighbours get what they would have got without it."""
    batch = [request(HISTORY=["i1"], K=3), request(HISTORY=["i2", poison], K=3), request(HISTORY=["i3"], K=2)]
    outcomes = make(cls=Moody).answer(batch)
    alone = [make().answer([one])[0] for one in (batch[0], batch[2])]

    assert isinstance(outcomes[1], Refused)
    assert not outcomes[1].invalid
    assert "RuntimeError" not in outcomes[1].message
    for seen, expected in zip((outcomes[0], outcomes[2]), alone, strict=True):
        assert isinstance(seen, Served)
        assert isinstance(expected, Served)
        assert seen.answer.item_ids == expected.answer.item_ids


def test_the_arm_is_the_users_and_else_the_requests(bundle: Bundle, tmp_path: Path) -> None:
    """Sticky by user id; without one, by request id; who is outside the experiment's piece is logged without it."""
    other = make_bundle(tmp_path, newest=50)
    piece = Exclusion(group="checkout", low=0.0, high=0.8)
    revision = make_revision(1, bundle, other, exclusion=piece)
    opened = {one.bundle_id: Recommender.open(one.folder) for one in (bundle, other)}
    batch = [request(USER_ID=f"u{n}", CONTEXT=json.dumps({"request_id": f"r{n}"})) for n in range(40)]
    batch += [request(CONTEXT=json.dumps({"request_id": f"r{n}"})) for n in range(40)]

    outcomes = Answerer(revision, opened, None).answer(batch)

    for parsed, outcome in zip(batch, outcomes, strict=True):
        assert isinstance(outcome, Served)
        arm, counts, _ = assign(parsed.user_id or parsed.request_id, revision)
        assert outcome.arm == arm
        assert exposure(outcome, revision, 1.0).experiment == ("test" if counts else None)
        assert outcome.answer.item_ids[0] == ("i0" if arm.name == "control" else "i50")
    assert len({outcome.arm.name for outcome in outcomes if isinstance(outcome, Served)}) == 2


@pytest.mark.parametrize(
    ("age_ms", "deadline_ms", "width", "source"),
    [(0, 1000, 50, "model"), (400, 1000, 50, "model"), (600, 1000, 12, "degraded"), (10**9, 1000, 50, "model")],
)
def test_a_late_request_gets_a_quarter_of_the_beams(
    make: Callable[..., Answerer], age_ms: int, deadline_ms: int, width: int, source: str
) -> None:
    """More than half of the deadline gone; an impossible lateness is a wrong clock."""
    sent = int(time.time() * 1000) - age_ms
    context = json.dumps({"sent_at_ms": sent, "deadline_ms": deadline_ms})

    [served] = make().answer([request(HISTORY=["i1"], CONTEXT=context)])

    assert isinstance(served, Served)
    assert (served.answer.source, served.answer.beam_width) == (source, width)


def test_the_revisions_own_budget_is_no_degradation(make: Callable[..., Answerer]) -> None:
    """Fewer beams by decision of the release owner are the model's answer."""
    [served] = make(beam_width=7).answer([request(HISTORY=["i1"])])

    assert isinstance(served, Served)
    assert (served.answer.source, served.answer.beam_width) == ("model", 7)


def test_thinking_may_take_what_is_left_of_half_the_deadline(make: Callable[..., Answerer], bundle: Bundle) -> None:
    """On the monotonic clock; a request that waited has less, one that is late has nothing."""
    answerer = make(deadline_ms=1000)
    seen: list[float] = []

    class Watched(Recommender):
        def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
            seen.extend(one.think_until or 0.0 for one in requests)
            return super().recommend(requests, beam_width=beam_width)

    answerer.recommenders[bundle.bundle_id] = Watched.open(bundle.folder)
    now, wall = time.monotonic(), time.time() * 1000
    for waited in (0, 300, 800):
        answerer.answer([request(HISTORY=["i3"], CONTEXT=json.dumps({"sent_at_ms": int(wall - waited)}))])

    assert [until - now for until in seen] == [pytest.approx(left, abs=0.15) for left in (0.5, 0.2, 0.0)]


def test_a_takedown_reaches_warm_and_cold_answers(make: Callable[..., Answerer]) -> None:
    """The list is out of both, and an empty one puts the items back."""
    answerer = make()
    answerer.set_takedown(["i0", "no such item"])
    during = answerer.answer([request(HISTORY=["i5"], K=1), request(K=1)])
    answerer.set_takedown([])
    after = answerer.answer([request(HISTORY=["i5"], K=1), request(K=1)])

    assert [one.answer.item_ids for one in during if isinstance(one, Served)] == [("i1",), ("i1",)]
    assert [one.answer.item_ids for one in after if isinstance(one, Served)] == [("i0",), ("i0",)]


CATALOG = Catalog.build(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "popularity": [3, 2, 1],
            "recent_popularity": [3, 2, 1],
            "first_sold": [date(2010, 1, 1)] * 3,
        }
    ),
    np.arange(9, dtype=np.int32).reshape(3, 3),
)
GOOD = Answer(("a", "b"), np.array([-1, -2], np.float32), CATALOG.codes[:2], "model", 5, 5, 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"item_ids": ("a", "a")}, "twice"),
        ({"item_ids": ("a", "")}, "'' is not in the catalogue"),
        ({"item_ids": ("a", "d")}, "'d' is not in the catalogue"),
        ({"item_ids": ("a", "b", "c")}, "3 items"),
        ({"scores": np.array([-1, np.nan], np.float32)}, "finite"),
        ({"scores": np.array([-2, -1], np.float32)}, "descend"),
        ({"scores": np.array([-1, -2], np.float64)}, "float64"),
        ({"semantic_ids": np.zeros((2, 4), np.int32)}, "semantic ids"),
        ({"semantic_ids": np.zeros((2, 3), np.int64)}, "semantic ids"),
        ({"semantic_ids": CATALOG.codes[1:3]}, "not those of the items"),
    ],
)
def test_every_answer_is_checked_before_it_leaves(change: dict[str, Any], word: str | None) -> None:
    """Triton passes on whatever it is given, so nothing wrong may reach it."""
    fault = answer_fault(dataclasses.replace(GOOD, **change), k=2, catalog=CATALOG)

    assert (fault is None) if word is None else (word in str(fault))


def test_a_revision_whose_model_answers_wrong_is_not_loaded(make: Callable[..., Answerer], bundle: Bundle) -> None:
    """The golden requests are asked before the revision takes traffic."""

    class Broken(Recommender):
        def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
            answers = super().recommend(requests, beam_width=beam_width)
            return [dataclasses.replace(answer, scores=-answer.scores) for answer in answers]

    check_revision(make())
    with pytest.raises(ServingError, match=bundle.bundle_id):
        check_revision(make(cls=Broken))


def test_a_served_request_becomes_a_row_of_the_log(make: Callable[..., Answerer]) -> None:
    """Every column is filled with the type of the schema."""
    answerer = make(Shelf({"u": StoredHistory(("i1", "x"), (5, 6), 7, "fresh")}))
    [served] = answerer.answer([request(USER_ID="u", K=2, CONTEXT='{"surface": "home"}')])
    assert isinstance(served, Served)

    [row] = frame([exposure(served, answerer.revision, 1.5)]).to_dicts()

    assert (row["user_id"], row["surface"], row["k"], row["revision"]) == ("u", "home", 2, 1)
    assert (row["history_source"], row["history_length"], row["known_items"], row["feature_age_s"]) == (
        "store",
        2,
        1,
        7,
    )
    assert (row["beam_width"], row["group_size"], row["latency_ms"]) == (50, 1, 1.5)


def test_what_the_search_says_is_in_the_row(make: Callable[..., Answerer]) -> None:
    """By its own names, whichever system it is, beside how much of the answer repeats its history."""

    class Talking(Recommender):
        def recommend(self, requests: Any, *, beam_width: int | None = None) -> list[Answer]:
            answers = super().recommend(requests, beam_width=beam_width)
            return [dataclasses.replace(answer, stats={"order_entropy": 0.25}) for answer in answers]

    repeats = {"name": "repeat_share", "value": 0.5}
    for cls, said in ((Talking, [{"name": "order_entropy", "value": 0.25}]), (Recommender, [repeats])):
        answerer = make(cls=cls)
        [served] = answerer.answer([request(HISTORY=["i1"], K=2)])
        assert isinstance(served, Served)

        assert frame([exposure(served, answerer.revision, 1.5)])["stats"].to_list() == [said]


def test_an_exploring_user_gets_a_drawn_answer(make: Callable[..., Answerer]) -> None:
    """Some of the best 20, best first, with place and chance in the row; the same again when it is asked again."""
    answerer = make(exploration=Exploration(share=0.5, temperature=5.0, candidates=20), deadline_ms=60_000)
    batch = [request(USER_ID=f"u{n}", HISTORY=["i1"], K=5, CONTEXT=f'{{"request_id": "r{n}"}}') for n in range(40)]
    rows = [exposure(one, answerer.revision, 1.0) for one in answerer.answer(batch) if isinstance(one, Served)]
    again = [exposure(one, answerer.revision, 1.0) for one in answerer.answer(batch) if isinstance(one, Served)]
    exploring = [row for row in rows if assign(str(row.user_id), answerer.revision).explores]
    plain = [row for row in rows if row not in exploring]

    assert [row.item_ids for row in rows] == [row.item_ids for row in again]
    assert len(exploring) > 5
    assert all(row.propensities is None and row.item_ids == [f"i{n}" for n in range(5)] for row in plain)
    for row in exploring:
        assert row.ranks is not None
        assert row.item_ids == [f"i{rank}" for rank in row.ranks]
        assert len(row.propensities or []) == 5
        assert row.scores == sorted(row.scores, reverse=True)
    assert len({tuple(row.item_ids) for row in exploring}) > 5


@pytest.mark.parametrize("history", [[], ["i1"]])
def test_nothing_is_drawn_from_a_cold_or_a_degraded_answer(make: Callable[..., Answerer], history: list[str]) -> None:
    """They are no model's whole answer: the best items, no chances."""
    answerer = make(exploration=Exploration(share=0.5, temperature=5.0, candidates=20))
    user = next(f"u{n}" for n in range(99) if assign(f"u{n}", answerer.revision).explores)
    late = json.dumps({"sent_at_ms": int(time.time() * 1000) - 1900})
    [served] = answerer.answer([request(USER_ID=user, HISTORY=history, K=3, CONTEXT=late)])
    assert isinstance(served, Served)

    assert served.answer.source == ("degraded" if history else "cold")
    assert (served.answer.item_ids, served.propensities) == (("i0", "i1", "i2"), None)
