"""What a drift verdict, or a silent pipeline, means for whoever is on call: signals, incidents, messages.

One incident is one suspect (a cause and an arm) of one reference, not one metric: a fault moves many.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from monitoring import alerts, findings, heartbeat, incidents, textfile
from monitoring.alerts import AlertConfig, Target
from monitoring.findings import DriftVerdict, Finding, Suspect
from monitoring.incidents import Level, Notice, Signal, State
from sidrec.errors import UsageError


@dataclass(frozen=True, slots=True)
class Told:
    """What one run told whom, and what it could not."""

    sent: tuple[str, ...]
    failed: tuple[str, ...]
    """Targets that have an address and did not take a message; the next run tries again."""
    absent: tuple[str, ...]
    """Targets without an address."""
    open: tuple[str, ...]

    def as_dict(self) -> dict[str, list[str]]:
        """Return the lines as plain data."""
        return {name: list(lines) for name, lines in asdict(self).items()}


def of_report(folder: Path, config: AlertConfig, *, now: datetime) -> Told:
    """Return what was told after a report, which is nothing of one over no traffic at all."""
    if (folder / findings.DRIFT).exists():
        return of_verdict(findings.read(folder), config, now=now)
    heartbeat.beat("monitoring", now=now)
    textfile.publish(None)
    return Told(sent=(), failed=(), absent=(), open=())


def of_verdict(verdict: DriftVerdict, config: AlertConfig, *, now: datetime) -> Told:
    """Return what was told after a drift verdict; leave the stamp of a success unless a message failed."""
    firing = signals(verdict, config)
    told = _tell(
        firing,
        lambda state: clear(verdict, state, {signal.key for signal in firing}),
        config,
        now=now,
        recover_after=config.recover_after,
    )
    if not told.failed:
        heartbeat.beat("monitoring", now=now)
    textfile.publish(verdict)
    return told


def of_heartbeats(config: AlertConfig, *, now: datetime) -> Told:
    """Return what was told about pipelines that should have succeeded by now; one success ends the incident."""
    firing = heartbeat.silent(config.heartbeats, runbook=config.runbooks, now=now)
    well = {heartbeat.key(pipeline) for pipeline in config.heartbeats} - {signal.key for signal in firing}
    told = _tell(firing, lambda state: well, config, now=now, recover_after=1)
    textfile.publish(None)
    return told


def signals(verdict: DriftVerdict, config: AlertConfig) -> list[Signal]:
    """Return one signal a suspect that warns or alarms, and one a finding that none of them explains."""
    order = tuple(f"{suspect.cause} ({suspect.area}, {suspect.arm})" for suspect in verdict.suspects)
    explained = {key for suspect in verdict.suspects for key in suspect.findings}
    of_suspects = [_suspected(one, verdict, order, config) for one in verdict.suspects if _tells(one.level)]
    rest = [one for one in verdict.findings if _tells(one.level) and one.key not in explained]
    return of_suspects + [_unexplained(one, verdict, config) for one in rest]


def clear(verdict: DriftVerdict, state: State, firing: Collection[str]) -> set[str]:
    """Return the open drift incidents that this verdict measured and found well, or whose arm is gone.

    What had too few rows, or was left out, was not measured.
    """
    measured = {finding.key for finding in verdict.findings if finding.level != "insufficient"}
    arms = {findings.ALL_ARMS, *verdict.bundle_ids, *(finding.arm for finding in verdict.findings)}
    own = {key: one.signal for key, one in state.incidents.items() if key.startswith(f"drift:{verdict.reference}:")}
    return {
        key
        for key, signal in own.items()
        if key not in firing and (set(signal.evidence) <= measured or (signal.arm or findings.ALL_ARMS) not in arms)
    }


def addresses(config: AlertConfig) -> tuple[dict[str, Target], tuple[str, ...]]:
    """Return the targets that have an address, and a line for each that has none."""
    there = {target.name: target for target in config.targets if target.url() is not None}
    absent = tuple(
        f"target {target.name} has no address: {target.source} holds none"
        for target in config.targets
        if target.name not in there
    )
    return there, absent


def _tell(
    firing: Sequence[Signal],
    well: Callable[[State], Collection[str]],
    config: AlertConfig,
    *,
    now: datetime,
    recover_after: int,
) -> Told:
    targets, absent = addresses(config)
    sent: list[str] = []
    failed: list[str] = []

    def send(name: str, notice: Notice) -> bool:
        try:
            taken = alerts.send(targets[name], notice)
            why = "it did not take the message"
        except UsageError as error:
            taken, why = False, error.message
        if taken:
            sent.append(f"{name}: {notice.title}")
        else:
            failed.append(f"{name}: {why}; the next run tries again")
        return taken

    with incidents.held():
        state = incidents.read()
        state = incidents.observe(state, firing, well(state), now=now, recover_after=recover_after)
        state = incidents.deliver(state, {name: target.level for name, target in targets.items()}, send)
    still = tuple(one.signal.what for one in state.incidents.values() if one.over_at is None)
    return Told(sent=tuple(sent), failed=tuple(failed), absent=absent, open=still)


def _suspected(suspect: Suspect, verdict: DriftVerdict, order: tuple[str, ...], config: AlertConfig) -> Signal:
    anchor = suspect.cause.replace("_", "-")
    return Signal(
        key=f"drift:{verdict.reference}:{suspect.cause}@{suspect.arm}",
        level=_level(suspect.level),
        what=f"{suspect.cause.replace('_', ' ')}: {suspect.sentence}",
        since=str(suspect.since or verdict.first_day),
        arm=_arm(suspect.arm),
        bundle_id=_bundles(suspect.arm, verdict),
        command="sidrec drift triage",
        runbook=f"{config.runbooks}#{anchor}",
        order=order,
        evidence=suspect.findings,
    )


def _unexplained(finding: Finding, verdict: DriftVerdict, config: AlertConfig) -> Signal:
    return Signal(
        key=f"drift:{verdict.reference}:{finding.key}",
        level=_level(finding.level),
        what=finding.sentence,
        since=str(finding.since or verdict.first_day),
        arm=_arm(finding.arm),
        bundle_id=finding.bundle_id or _bundles(finding.arm, verdict),
        command="sidrec drift triage",
        runbook=f"{config.runbooks}#shifted",
        evidence=(finding.key,),
    )


def _tells(level: findings.Level) -> bool:
    return level in ("warn", "alarm")


def _level(level: findings.Level) -> Level:
    return "alarm" if level == "alarm" else "warn"


def _arm(arm: str) -> str | None:
    return None if arm == findings.ALL_ARMS else arm


def _bundles(arm: str, verdict: DriftVerdict) -> str | None:
    named = [verdict.bundle_ids[arm]] if arm in verdict.bundle_ids else sorted(set(verdict.bundle_ids.values()))
    return ", ".join(named) or None
