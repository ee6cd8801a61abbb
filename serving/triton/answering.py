"""A batch of parsed requests becomes answers, one each, in order; no request can spoil its neighbour's.

The arm is decided first, before the history is read, so that nothing about the request can choose its arm.
"""

import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from serving.triton.drawing import Shown, best, drawn
from serving.triton.parse import ParsedRequest
from sidrec import clock
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.exposure import Exposure
from sidrec.recommender import Answer, Recommender, Request
from sidrec.release.revision import Arm, Assignment, Revision, assign

log = logging.getLogger(__name__)

HistorySource = Literal["request", "store", "none"]

_DEGRADED_SHARE = 4
_MAX_PLAUSIBLE_LATENESS = 10


class StoredHistory(Protocol):
    """What the feature store knows about one user."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Items, oldest first."""

    @property
    def times(self) -> tuple[int, ...]:
        """Unix seconds of each item."""

    @property
    def age_s(self) -> int | None:
        """Age of the row, None where there is none."""

    @property
    def status(self) -> str:
        """One of fresh, stale, missing, error."""


class Histories(Protocol):
    """Reads the histories of several users at once and never takes longer than asked."""

    def read(
        self,
        user_ids: Sequence[str],
        *,
        now: Sequence[int],
        deadline_ms: float,
        until: Sequence[int | None] | None,
    ) -> Sequence[StoredHistory]:
        """Return one stored history a user, in order, without what happened after `until`."""


@dataclass(frozen=True, slots=True)
class Served:
    """One request with the answer it got, and from what; no `feature_status` where the store was not asked."""

    request: ParsedRequest
    arm: Arm
    answer: Answer
    query: Request
    """What the bundle was asked."""
    event_time: int
    history_source: HistorySource
    history_length: int
    feature_age_s: int | None
    group_size: int
    feature_status: str | None = None
    counts: bool = True
    """Whether the user is one of the experiment's."""
    ranks: list[int] | None = None
    propensities: list[float] | None = None
    """Of a drawn answer: each item's place among the candidates, and its chance to be shown."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request without an answer; `invalid` says whose fault it is."""

    message: str
    invalid: bool


@dataclass(slots=True)
class _Pending:
    request: ParsedRequest
    assignment: Assignment
    num_candidates: int
    now: int
    items: tuple[str, ...]
    times: tuple[int, ...]
    history_source: HistorySource
    think_until: float | None = None
    feature_age_s: int | None = None
    feature_status: str | None = None

    @property
    def arm(self) -> Arm:
        return self.assignment.arm

    def query(self) -> Request:
        request = self.request
        return Request(
            self.items,
            self.times,
            k=self.num_candidates,
            exclude_seen=request.exclude_seen,
            now=self.now,
            think_until=self.think_until,
        )


class Answerer:
    """Answers as one revision says.

    Args:
        recommenders: by bundle id, every bundle of the revision's arms.
        histories: the feature store's reader; None where there is no store, then a bare user id is a cold user.
    """

    def __init__(
        self, revision: Revision, recommenders: Mapping[str, Recommender], histories: Histories | None
    ) -> None:
        self.revision = revision
        self.recommenders = dict(recommenders)
        self._histories = histories

    def set_takedown(self, item_ids: Iterable[str]) -> None:
        """Keep exactly these items out of every arm's answers from the next batch on."""
        blocked = list(item_ids)
        for recommender in self.recommenders.values():
            recommender.set_takedown(blocked)

    def answer(self, requests: Sequence[ParsedRequest]) -> list[Served | Refused]:
        """Return an outcome a request, in order."""
        started = time.monotonic()
        outcomes: dict[int, Served | Refused] = {}
        pending: dict[int, _Pending] = {}
        for index, request in enumerate(requests):
            assignment = assign(request.user_id or request.request_id, self.revision)
            arm = assignment.arm
            as_of = self.recommenders[arm.bundle.bundle_id].as_of_time
            try:
                now = clock.now(self.revision.clock, request.event_time, as_of)
            except UsageError as error:
                outcomes[index] = Refused(error.message, invalid=True)
                continue
            source: HistorySource = "request" if request.history else "none"
            # A drawn answer is drawn from more than is shown.
            explored = self.revision.exploration if assignment.explores else None
            wanted = request.k if explored is None else max(request.k, explored.candidates)
            pending[index] = _Pending(request, assignment, wanted, now, request.history, request.history_time, source)
        self._read_histories(list(pending.values()))
        groups: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        for index, one in pending.items():
            # Half of what the request may take is for the search; what is left of it now is for thinking.
            left_s = self._left_s(one, started)
            one.think_until = time.monotonic() + max(0.0, left_s)
            groups[one.arm.bundle.bundle_id, self._beam_width(one, left_s)].append(index)
        for (bundle_id, width), members in groups.items():
            group = [pending[index] for index in members]
            for index, outcome in zip(members, self._recommend(bundle_id, width, group), strict=True):
                outcomes[index] = outcome
        return [outcomes[index] for index in range(len(requests))]

    def _read_histories(self, pending: Sequence[_Pending]) -> None:
        """Fill in the histories that requests did not bring, by one read for the whole batch."""
        waiting = [one for one in pending if one.history_source == "none" and one.request.user_id is not None]
        if self._histories is None or not waiting:
            return
        found = self._histories.read(
            [one.request.user_id or "" for one in waiting],
            now=[one.now for one in waiting],
            deadline_ms=self.revision.history_deadline_ms,
            # A replayed request must not see what was bought after it; one without a time sees all there is.
            until=[one.request.event_time for one in waiting],
        )
        for one, stored in zip(waiting, found, strict=True):
            one.feature_age_s, one.feature_status = stored.age_s, stored.status
            if stored.status == "fresh" and stored.item_ids:
                one.items, one.times, one.history_source = stored.item_ids, stored.times, "store"

    def _left_s(self, one: _Pending, started: float) -> float:
        """Return the seconds until half of the request's deadline is gone, below 0 where it is."""
        deadline_ms = min(one.request.deadline_ms or self.revision.deadline_ms, self.revision.deadline_ms)
        gone_ms = (time.monotonic() - started) * 1000
        if one.request.sent_at_ms is not None:
            waited_ms = time.time() * 1000 - one.request.sent_at_ms
            # Far beyond the deadline it is the sender's clock that is wrong: no reason to degrade it for ever.
            if 0 < waited_ms < _MAX_PLAUSIBLE_LATENESS * deadline_ms:
                gone_ms = max(gone_ms, waited_ms)
        return (deadline_ms / 2 - gone_ms) / 1000

    def _beam_width(self, one: _Pending, left_s: float) -> int | None:
        """Return the revision's beam width, or a quarter of it once more than half of the deadline is gone."""
        full = self.revision.beam_width
        if left_s >= 0:
            return full
        own = self.recommenders[one.arm.bundle.bundle_id].beam_width
        return max(1, min(full or own, own) // _DEGRADED_SHARE)

    def _recommend(self, bundle_id: str, width: int | None, group: Sequence[_Pending]) -> list[Served | Refused]:
        recommender = self.recommenders[bundle_id]
        try:
            answers = recommender.recommend([one.query() for one in group], beam_width=width)
            if len(answers) != len(group):
                raise RuntimeError(f"{len(group)} requests got {len(answers)} answers")
        except UsageError as error:
            if len(group) == 1:
                return [Refused(error.message, invalid=True)]
            return [self._recommend(bundle_id, width, [one])[0] for one in group]
        except Exception:
            # The boundary: whatever a model raises is logged here and answered as an error, alone, so that the
            # request that broke it does not take its batch with it.
            log.exception("event=recommend_failed bundle=%s requests=%d", bundle_id, len(group))
            if len(group) == 1:
                return [Refused("the model failed on this request", invalid=False)]
            return [self._recommend(bundle_id, width, [one])[0] for one in group]
        return [
            self._served(one, answer, recommender, width, len(group))
            for one, answer in zip(group, answers, strict=True)
        ]

    def _served(
        self, one: _Pending, answer: Answer, recommender: Recommender, width: int | None, group_size: int
    ) -> Served | Refused:
        if answer.source == "degraded" and width == self.revision.beam_width:
            # The revision's own budget is not a degradation, though it be below the bundle's.
            answer = dataclasses.replace(answer, source="model")
        shown = self._shown(one, answer)
        answer = shown.answer
        fault = answer_fault(answer, one.request.k, recommender.catalog)
        if fault is not None:
            log.error("event=bad_answer bundle=%s fault=%s", recommender.bundle_id, fault)
            return Refused("the model's answer broke the contract", invalid=False)
        return Served(
            request=one.request,
            arm=one.arm,
            answer=answer,
            query=one.query(),
            event_time=one.now,
            history_source=one.history_source,
            history_length=len(one.items),
            feature_age_s=one.feature_age_s,
            group_size=group_size,
            feature_status=one.feature_status,
            counts=one.assignment.counts,
            ranks=shown.ranks,
            propensities=shown.propensities,
        )

    def _shown(self, one: _Pending, answer: Answer) -> Shown:
        exploration = self.revision.exploration if one.assignment.explores else None
        if exploration is None:
            return Shown(answer)
        if not np.isfinite(answer.scores).all():
            return best(answer, one.request.k)  # nothing to draw by; the check of the answer says so
        return drawn(answer, one.request.k, exploration, request_id=one.request.request_id, salt=self.revision.salt)


def answer_fault(answer: Answer, k: int, catalog: Catalog) -> str | None:
    """Return what is wrong with an answer, None if nothing is."""
    items = answer.item_ids
    strangers = [item for item in items if item not in catalog.index_of]
    if strangers:
        return f"{strangers[0]!r} is not in the catalogue"
    if len(items) > k:
        return f"{len(items)} items for k = {k}"
    if len(set(items)) != len(items):
        return "an item stands twice"
    scores = answer.scores
    if scores.dtype != np.float32 or scores.shape != (len(items),):
        return f"scores are {scores.dtype} {scores.shape}"
    if not np.isfinite(scores).all() or bool((np.diff(scores) > 0).any()):
        return "scores are not finite, or do not descend"
    codes = answer.semantic_ids
    if codes.dtype != np.int32 or codes.shape != (len(items), catalog.num_codes):
        return f"semantic ids are {codes.dtype} {codes.shape}"
    if not np.array_equal(codes, catalog.codes[[catalog.index_of[item] for item in items]]):
        return "semantic ids are not those of the items"
    return None


def exposure(served: Served, revision: Revision, latency_ms: float) -> Exposure:
    """Return the row that the exposure log keeps of an answer."""
    request, answer = served.request, served.answer
    return Exposure(
        request_id=request.request_id,
        user_id=request.user_id,
        wall_time_ms=int(time.time() * 1000),
        event_time=served.event_time,
        arm=served.arm.name,
        bundle_id=served.arm.bundle.bundle_id,
        revision=revision.revision,
        experiment=revision.experiment if served.counts else None,
        surface=request.surface,
        k=request.k,
        exclude_seen=request.exclude_seen,
        history_source=served.history_source,
        history_length=served.history_length,
        known_items=answer.known_items,
        item_ids=list(answer.item_ids),
        semantic_ids=answer.semantic_ids.tolist(),
        scores=answer.scores.tolist(),
        source=answer.source,
        feature_age_s=served.feature_age_s,
        latency_ms=latency_ms,
        beam_width=answer.beam_width,
        valid_beams=answer.valid_beams,
        group_size=served.group_size,
        stats=[{"name": name, "value": value} for name, value in answer.stats.items()],
        ranks=served.ranks,
        propensities=served.propensities,
    )
