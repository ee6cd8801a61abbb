"""A shadow answers behind the arms: logged apart, never in a user's way, and whatever it skips is counted."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.triton.answering import Answerer, Served
from serving.triton.golden import check_shadow
from serving.triton.shadow import Shadow
from sidrec.bundle import Bundle
from sidrec.errors import ServingError
from sidrec.exposure import Exposure
from sidrec.recommender import Answer, Recommender, Request
from sidrec.release.revision import BundleRef
from tests.serving.triton.test_answering import request
from tests.serving.world import make_bundle, make_revision


class Gate(Recommender):
    """A recommender that answers once it is let through."""

    let = threading.Event()
    asked = threading.Event()

    def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
        self.asked.set()
        self.let.wait(5)
        if any("raise" in one.item_ids for one in requests):
            raise RuntimeError("no")
        return super().recommend(requests, beam_width=beam_width)


class Watched:
    """A shadow, the answers of the arms before it, and what it wrote and counted."""

    def __init__(self, bundle: Bundle, other: Bundle, deadline_ms: int) -> None:
        revision = make_revision(1, bundle, shadow=BundleRef.of(other), deadline_ms=deadline_ms)
        self.answerer = Answerer(revision, {bundle.bundle_id: Recommender.open(bundle.folder)}, None)
        self.rows: list[Exposure] = []
        self.counts: list[str] = []
        Gate.let.set()
        assert revision.shadow is not None
        gate = Gate.open(other.folder)
        self.shadow = Shadow(
            revision, revision.shadow, gate, write=self.rows.append, count=lambda outcome: self.counts.append(outcome)
        )

    def ask(self, *requests: Any) -> list[Served]:
        self.shadow.stand_back()
        served = [one for one in self.answerer.answer(list(requests)) if isinstance(one, Served)]
        self.shadow.offer(served)
        return served

    def wait(self, counted: int) -> None:
        until = time.monotonic() + 10
        while len(self.counts) < counted and time.monotonic() < until:
            time.sleep(0.002)
        assert len(self.counts) == counted


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("pair")
    return make_bundle(folder, name="a"), make_bundle(folder, name="b", newest=50)


@pytest.fixture
def watch(pair: tuple[Bundle, Bundle], request: pytest.FixtureRequest) -> Callable[..., Watched]:
    def start(deadline_ms: int = 5000) -> Watched:
        watched = Watched(*pair, deadline_ms)
        request.addfinalizer(Gate.let.set)
        request.addfinalizer(watched.shadow.close)
        request.addfinalizer(Gate.let.set)
        return watched

    return start


def test_the_shadow_s_answer_is_a_row_of_its_own(watch: Callable[..., Watched], pair: tuple[Bundle, Bundle]) -> None:
    """Same request, same history, the other bundle's items; in no arm and no experiment."""
    watched = watch()
    [served] = watched.ask(request(USER_ID="u", HISTORY=["i5"], K=3))
    watched.wait(1)
    [row] = watched.rows

    assert (row.request_id, row.user_id, row.history_length) == (served.request.request_id, "u", 1)
    assert (row.arm, row.bundle_id, row.experiment, row.k) == ("shadow", pair[1].bundle_id, None, 3)
    assert row.item_ids == ["i50", "i51", "i52"]
    assert list(served.answer.item_ids) == ["i0", "i1", "i2"]
    assert watched.counts == ["answered"]


def test_nothing_begins_while_a_batch_is_answered(watch: Callable[..., Watched]) -> None:
    """From `stand_back` to `offer` the queue waits."""
    watched = watch()
    Gate.let.clear()
    Gate.asked.clear()
    watched.ask(request(HISTORY=["i1"]), request(HISTORY=["i2"]))
    assert Gate.asked.wait(10)
    watched.shadow.stand_back()
    Gate.let.set()
    watched.wait(1)
    time.sleep(0.1)
    during = list(watched.counts)
    watched.shadow.offer([])
    watched.wait(2)

    assert during == ["answered"]


def test_what_is_late_is_skipped_and_counted(watch: Callable[..., Watched]) -> None:
    """A request whose deadline passed while it waited, and one that was degraded already, are not asked."""
    watched = watch(deadline_ms=100)
    Gate.let.clear()
    watched.ask(request(HISTORY=["i1"]), request(HISTORY=["i2"]))
    old = f'{{"sent_at_ms": {int(time.time() * 1000) - 90}}}'
    watched.ask(request(HISTORY=["i3"], CONTEXT=old))
    time.sleep(0.15)
    Gate.let.set()
    watched.wait(3)

    assert sorted(watched.counts) == ["answered", "skipped", "skipped"]
    assert len(watched.rows) == 1


def test_no_more_than_a_few_wait(watch: Callable[..., Watched]) -> None:
    """A shadow that hangs holds 64 requests, not the server's memory."""
    watched = watch()
    Gate.let.clear()
    watched.ask(*(request(HISTORY=["i1"]) for _ in range(80)))

    assert len(watched.counts) in (15, 16)  # one more where the thread has taken the first already
    watched.shadow.close()


def test_a_shadow_that_fails_goes_on(watch: Callable[..., Watched]) -> None:
    """The failure is counted, and the next request is answered."""
    watched = watch()
    watched.ask(request(HISTORY=["i1", "raise"]), request(HISTORY=["i1"]))
    watched.wait(2)

    assert watched.counts == ["failed", "answered"]


def test_a_shadow_that_answers_wrong_is_not_loaded(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    """Its golden requests are asked as an arm's are."""

    class Empty(Recommender):
        def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
            return super().recommend([Request(("none",), (), k=1)] * len(requests))

    check_shadow(Recommender.open(pair[1].folder), BundleRef.of(pair[1]))
    with pytest.raises(ServingError, match="arm shadow"):
        check_shadow(Empty.open(pair[1].folder), BundleRef.of(pair[1]))
