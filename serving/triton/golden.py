"""Requests whose answers are known to be right or wrong by rule; asked before a revision takes traffic.

The same requests go to a revision inside the server while it loads, over the wire after a deployment, and to the
packaged bundle in `check_serving`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.triton.answering import Answerer, Refused, Served
from serving.triton.parse import ParsedRequest
from sidrec.clock import DAY_S
from sidrec.data.catalog import Catalog
from sidrec.errors import ServingError
from sidrec.recommender import Recommender, Request
from sidrec.release.revision import SHADOW, Arm, BundleRef, Revision, assign

_TRIES = 100_000
K = 10


@dataclass(frozen=True, slots=True)
class Golden:
    """One request and the rule that its answer must keep."""

    name: str
    user_id: str | None
    history: tuple[str, ...]
    history_time: tuple[int, ...]
    exclude_seen: bool
    sources: tuple[str, ...]

    def request(self, request_id: str) -> dict[str, Any]:
        """Return the request as the client's keyword arguments; it leaves no row in the exposure log."""
        return {
            "user_id": self.user_id,
            "history": self.history,
            "history_time": self.history_time,
            "k": K,
            "exclude_seen": self.exclude_seen,
            "context": {"request_id": request_id, "canary": True},
        }


def goldens(catalog: Catalog, as_of: int) -> list[Golden]:
    """Return the golden requests of a catalogue: known histories, an unknown user, nobody at all."""
    best = np.argsort(-catalog.popularity, kind="stable")[:4]
    items = tuple(catalog.item_ids[index] for index in best.tolist())
    times = tuple(as_of - DAY_S * days for days in (30, 30, 7, 7)[: len(items)])
    warm = ("model", "degraded")
    return [
        Golden("known history", None, items, times, False, warm),
        Golden("known history without times", None, items, (), False, warm),
        Golden("known history, seen excluded", None, items, times, True, warm),
        Golden("unknown items", None, ("no such item",), (), False, ("cold",)),
        Golden("unknown user", "no such user", (), (), False, ("cold",)),
        Golden("nobody", None, (), (), False, ("cold",)),
    ]


def request_ids(revision: Revision) -> Iterator[tuple[Arm, str]]:
    """Yield, for each arm with a share, a request id that the sticky hash sends there when no user is named."""
    for arm in revision.arms:
        if arm.share > 0:
            ids = (f"golden-{number}" for number in range(_TRIES))
            yield arm, next(one for one in ids if assign(one, revision).arm == arm)


def check_revision(answerer: Answerer) -> list[Served]:
    """Ask every arm every golden request, without a server, and return the answers.

    Raises:
        ServingError: an answer breaks its rule; the arm, the request and the fault are named.
    """
    answers = []
    for arm, request_id in request_ids(answerer.revision):
        recommender = answerer.recommenders[arm.bundle.bundle_id]
        golden = goldens(recommender.catalog, recommender.as_of_time)
        requests = [
            ParsedRequest(
                user_id=None,  # a golden user must not hash to another arm; the store is read after this check
                history=one.history,
                history_time=one.history_time,
                k=K,
                exclude_seen=one.exclude_seen,
                request_id=request_id,
                surface=None,
                event_time=None,
                sent_at_ms=None,
                deadline_ms=None,
                canary=True,
                rationale=False,
            )
            for one in golden
        ]
        for one, outcome in zip(golden, answerer.answer(requests), strict=True):
            if isinstance(outcome, Refused):
                raise ServingError(f"arm {arm.name} ({arm.bundle.bundle_id}), {one.name}: {outcome.message}")
            check(one, outcome.answer.item_ids, outcome.answer.source, recommender.catalog.index_of, arm)
            answers.append(outcome)
    return answers


def check_shadow(recommender: Recommender, ref: BundleRef) -> None:
    """Ask the shadow's bundle every golden request, without a server.

    Raises:
        ServingError: an answer breaks its rule.
    """
    shadow = Arm(name=SHADOW, bundle=ref, share=0.0)
    golden = goldens(recommender.catalog, recommender.as_of_time)
    queries = [Request(one.history, one.history_time, k=K, exclude_seen=one.exclude_seen) for one in golden]
    for one, answer in zip(golden, recommender.recommend(queries), strict=True):
        check(one, answer.item_ids, answer.source, recommender.catalog.index_of, shadow)


def check(golden: Golden, item_ids: Sequence[str], source: str, known: Collection[str], arm: Arm) -> None:
    """Check one answer against its rule.

    Raises:
        ServingError: it breaks the rule.
    """
    fault = None
    unknown = [item for item in item_ids if item not in known]
    if not item_ids:
        fault = "no items at all"
    elif len(set(item_ids)) != len(item_ids):
        fault = "an item stands twice"
    elif unknown:
        fault = f"{unknown[0]!r} is not in the catalogue"
    elif source not in golden.sources:
        fault = f"source {source}, expected {' or '.join(golden.sources)}"
    elif golden.exclude_seen and set(golden.history) & set(item_ids):
        fault = f"{min(set(golden.history) & set(item_ids))!r} was excluded and came back"
    if fault is not None:
        raise ServingError(f"arm {arm.name} ({arm.bundle.bundle_id}), golden request '{golden.name}': {fault}")


def check_wire(
    ask: Callable[..., Any], revision: Revision, catalog_of: Callable[[str], tuple[Catalog, int]]
) -> list[tuple[Golden, Any]]:
    """Ask a server every golden request for every arm and return the answers.

    Args:
        ask: the client's `recommend`.
        catalog_of: bundle id -> its catalogue and as-of time.

    Raises:
        ServingError: an answer breaks its rule, or another revision, arm or bundle gave it.
    """
    answers = []
    for arm, request_id in request_ids(revision):
        catalog, as_of = catalog_of(arm.bundle.bundle_id)
        for golden in goldens(catalog, as_of):
            answer = ask(**golden.request(request_id))
            # A named user is bucketed by name, so only the others say which arm they reached.
            expected = arm if golden.user_id is None else assign(golden.user_id, revision).arm
            seen = (answer.model_version, answer.arm, answer.bundle_id)
            wanted = (str(revision.revision), expected.name, expected.bundle.bundle_id)
            if seen != wanted:
                raise ServingError(f"golden request '{golden.name}' was answered by {seen}, expected {wanted}")
            known = catalog if expected == arm else catalog_of(expected.bundle.bundle_id)[0]
            check(golden, answer.item_ids, answer.source, known.index_of, expected)
            answers.append((golden, answer))
    return answers
