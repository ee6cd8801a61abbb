"""What stands between a passing verdict and users: each check says what it saw, or nothing.

A second person may overrule any of them, by name; the row keeps the names. None of them asks a server or a network.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from sidrec.bundle import Bundle
from sidrec.data.catalog import Catalog
from sidrec.errors import PromotionError, UsageError
from sidrec.release.policy import Policy
from sidrec.release.row import LedgerRow, Stage
from sidrec.release.verdict import Verdict

CHECKS: Final = ("schema", "churn", "champion", "canary", "dwell", "halted")


class Objection(NamedTuple):
    """One check that says no."""

    check: str
    sentence: str
    next_step: str


@dataclass(frozen=True, slots=True)
class ClientSchema:
    """What a client can notice of the bundle that answers, beside better or worse items."""

    semantic_id_width: int
    clock: str


def client_schema(bundle: Bundle) -> ClientSchema:
    """Return what clients of this bundle rely on."""
    width = bundle.decode.get("num_codes")
    if width is None:
        width = Catalog.read(bundle.path("catalogue.parquet")).num_codes
    return ClientSchema(semantic_id_width=int(width), clock=bundle.recipe.serving.clock)


def objections(
    bundle: Bundle,
    verdict: Verdict,
    *,
    stage: Stage,
    rows: Sequence[LedgerRow],
    champion: Bundle | None,
    policy: Policy,
    now: datetime,
) -> Iterator[Objection]:
    """Yield every check that says no to this place, in the order of `CHECKS`; an experiment starts challengers."""
    if champion is not None and stage != "shadow":
        yield from _schema(bundle, champion)
    yield from _churn(verdict, policy.churn_budget)
    if policy.judged_against_champion:
        yield from _champion(verdict, rows)
    if stage == "champion":
        yield from _trial(bundle, rows, policy, now)


def overruled(
    said: Iterable[Objection], overrides: Collection[str], *, doubtful: bool, evidence: Path
) -> tuple[str, ...]:
    """Return the names of the checks that said no and were overruled.

    Args:
        overrides: names of checks that may say no.
        doubtful: whether a second person stands behind the move, or will have to.
        evidence: the verdict.

    Raises:
        UsageError: no check has such a name, or nobody else stands behind overruling one.
        PromotionError: checks say no that nobody overruled; each says why.
    """
    if unknown := sorted(set(overrides) - set(CHECKS)):
        raise UsageError(f"no check is called {unknown[0]}", next_step=f"--override {' | '.join(CHECKS)}")
    found = list(said)
    if left := [one for one in found if one.check not in overrides]:
        flags = " ".join(f"--override {one.check}" for one in left)
        raise PromotionError(
            "refused. " + " ".join(f"[{one.check}] {one.sentence}." for one in left),
            evidence=evidence,
            next_step=f"{left[0].next_step}; or with a second person: {flags} --second-approver NAME",
        )
    names = tuple(one.check for one in found)
    if names and not doubtful:
        raise UsageError(f"overruling {', '.join(names)} takes a second person", next_step="--second-approver NAME")
    return names


def tried_since(rows: Sequence[LedgerRow], sha256: str) -> datetime | None:
    """Return since when a bundle has answered as a canary without a break; None while it does not."""
    began: datetime | None = None
    for row in rows:
        if row.action == "live":
            answers = any(arm.bundle.sha256 == sha256 and arm.share > 0 for arm in row.revision.arms[1:])
            began = (began or row.time) if answers else None
    return began


def _schema(bundle: Bundle, champion: Bundle) -> Iterator[Objection]:
    new, old = client_schema(bundle), client_schema(champion)
    changes = []
    if new.semantic_id_width != old.semantic_id_width:
        changes.append(f"SEMANTIC_ID has {new.semantic_id_width} codes an item, not {old.semantic_id_width}")
    if new.clock != old.clock:
        wants = "refuses `event_time`" if new.clock == "wall" else "takes its time from `event_time`"
        changes.append(f"its clock is {new.clock}, not {old.clock}: it {wants}")
    if changes:
        yield Objection(
            "schema",
            f"clients of {champion.bundle_id} would see another contract: {'; '.join(changes)}",
            "tell the clients' owners, then --override schema",
        )


def _churn(verdict: Verdict, budget: float | None) -> Iterator[Objection]:
    gate = next((gate for gate in verdict.gates if (gate.gate, gate.name) == ("codebook", "churn")), None)
    if gate is None or budget is None or gate.observed <= budget:
        return
    yield Objection(
        "churn",
        f"{gate.observed:.1%} of the traffic would see another semantic ID, the policy's budget is {budget:.1%}",
        "sidrec sid diff shows whose; a refresh with a smaller lifecycle.churn_budget, or --override churn",
    )


def _champion(verdict: Verdict, rows: Sequence[LedgerRow]) -> Iterator[Objection]:
    present = next((row.revision.arms[0].bundle.bundle_id for row in reversed(rows) if row.decides), None)
    if present in (None, verdict.bundle_id, verdict.champion):
        return
    compared = verdict.champion or "no champion"
    yield Objection(
        "champion",
        f"the verdict compared {verdict.bundle_id} with {compared}, the champion is {present}",
        "sidrec run judges it again, against this champion",
    )


def _trial(bundle: Bundle, rows: Sequence[LedgerRow], policy: Policy, now: datetime) -> Iterator[Objection]:
    of = [row for row in rows if row.decides and row.bundle == bundle.bundle_id]
    canary = next((row for row in reversed(of) if row.stage == "canary"), None)
    if canary is None:
        if policy.require_canary and any(row.decides for row in rows):
            yield Objection(
                "canary",
                f"{bundle.bundle_id} was never a canary, and the policy asks for one",
                f"sidrec promote {bundle.bundle_id} --to canary --reason '…'",
            )
        return
    halt = next((row for row in reversed(of) if row.action == "stop" and row.measured and row.seq > canary.seq), None)
    if halt is not None:
        yield Objection(
            "halted",
            f"its canary was stopped on {halt.time:%Y-%m-%d %H:%M} UTC (row {halt.seq}): {halt.why}",
            f"mend it, then sidrec promote {bundle.bundle_id} --to canary --reason '…'",
        )
        return
    began = tried_since(rows, bundle.sha256)
    hours = 0.0 if began is None else (now - began).total_seconds() / 3600
    if hours < policy.canary_hours:
        seen = "is not live as a canary" if began is None else f"has been live as a canary for {hours:.1f} h"
        yield Objection(
            "dwell",
            f"{bundle.bundle_id} {seen}, the policy asks for {policy.canary_hours:g} h",
            "wait, and let sidrec guard watch it",
        )
