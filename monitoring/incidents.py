"""What is wrong, since when, and who was told: one message when an incident starts, one when it is over.

An incident is open while its signal fires, however many runs see it. It is over once `recover_after` runs in a row
measured it and found nothing; a run that could not measure it changes nothing. Whoever was told of the start is told
of the end, and nobody else.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidrec import files, home
from sidrec.errors import CheckFailedError
from sidrec.process import exclusive

SCHEMA_VERSION: Final = 1
Level = Literal["warn", "alarm"]
Kind = Literal["start", "recovery"]
_WAIT_S = 30.0


class Signal(BaseModel):
    """One thing that is wrong now, in the words that a person who is woken up by it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(min_length=1, description="Equal for equal troubles; two incidents never share one.")
    level: Level
    what: str = Field(description="What moved, from what to what, over how much.")
    since: str = Field(description="First day or time at which it was seen.")
    arm: str | None = None
    bundle_id: str | None = None
    command: str = Field(description="What to run first.")
    runbook: str = Field(description="Where to read on.")
    order: tuple[str, ...] = Field(default=(), description="What to suspect, the likeliest first.")
    evidence: tuple[str, ...] = Field(default=(), description="Keys of the findings behind it.")


class Incident(BaseModel):
    """A signal that fired, and the targets that took its first message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signal: Signal
    opened_at: datetime
    quiet_runs: int = Field(default=0, ge=0)
    over_at: datetime | None = None
    told: tuple[str, ...] = ()


class State(BaseModel):
    """Every incident that is open, or whose end somebody is still owed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    incidents: dict[str, Incident] = Field(default_factory=dict)


class Notice(BaseModel):
    """One message: an incident's start, or its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    incident: Incident

    @property
    def title(self) -> str:
        """One line; a phone shows no more."""
        signal = self.incident.signal
        head = f"sidrec {signal.level}" if self.kind == "start" else "sidrec: over"
        return f"{head}: {signal.what}"

    @property
    def body(self) -> str:
        """What, since when, arm, bundle, first command, runbook: a line each."""
        incident, signal = self.incident, self.incident.signal
        end = [] if incident.over_at is None else [f"over: {_time(incident.over_at)}"]
        lines = [
            f"what: {signal.what}",
            f"since: {signal.since} (incident opened {_time(incident.opened_at)})",
            *end,
            f"arm: {signal.arm or 'all'}",
            f"bundle: {signal.bundle_id or 'none'}",
            *([f"suspects: {', then '.join(signal.order)}"] if signal.order else []),
            f"first: {signal.command}",
            f"runbook: {signal.runbook}",
        ]
        return "\n".join(lines)


def path() -> Path:
    """Return the state file of this installation."""
    return home.monitoring_dir() / "incidents.json"


def read() -> State:
    """Return the incidents as the last run left them.

    Raises:
        CheckFailedError: the file does not parse; nobody would be told of anything twice or at all.
    """
    if not path().exists():
        return State()
    try:
        return State.model_validate(files.read_json(path()))
    except (ValueError, ValidationError) as error:
        raise CheckFailedError(
            f"{path().name} does not parse: {str(error).splitlines()[0]}",
            evidence=path(),
            next_step="move the file away: every open incident is then told anew",
        ) from error


@contextmanager
def held() -> Iterator[None]:
    """Hold the incidents for one run, so that two runs at once do not both tell the same.

    Raises:
        BusyError: another run held them for half a minute.
    """
    with exclusive(home.monitoring_dir() / "incidents.lock", "the incidents", wait_s=_WAIT_S):
        yield


def observe(
    state: State, firing: Sequence[Signal], clear: Collection[str], *, now: datetime, recover_after: int
) -> State:
    """Return the incidents after one run's measurements.

    Args:
        firing: what is wrong; an open incident keeps its opening and takes the newest words.
        clear: keys that were measured and are well; a key in neither was not measured.
        recover_after: runs in a row that must find a key clear.
    """
    incidents = dict(state.incidents)
    for signal in firing:
        old = incidents.get(signal.key, Incident(signal=signal, opened_at=now))
        newest = signal.model_copy(update={"since": old.signal.since})
        incidents[signal.key] = old.model_copy(update={"signal": newest, "quiet_runs": 0, "over_at": None})
    for key in set(clear) & set(incidents) - {signal.key for signal in firing}:
        quiet = incidents[key].quiet_runs + 1
        over = incidents[key].over_at or (now if quiet >= recover_after else None)
        incidents[key] = incidents[key].model_copy(update={"quiet_runs": quiet, "over_at": over})
    return State(incidents=incidents)


def deliver(state: State, targets: Mapping[str, Level], send: Callable[[str, Notice], bool]) -> State:
    """Return the state after everything owed was sent; what a target did not take is owed to the next run.

    The state is written after each message, so a crash repeats one at most.

    Args:
        targets: the least level that each target wants to hear of.
        send: hands a notice to the target of a name and returns whether it took it.
    """
    for key, incident in sorted(state.incidents.items()):
        ended = incident.over_at is not None
        told = set(incident.told)
        owed = told & set(targets) if ended else _wanting(incident.signal.level, targets) - told
        notice = Notice(kind="recovery" if ended else "start", incident=incident)
        for name in sorted(owed):
            if send(name, notice):
                told ^= {name}
                state = _with(state, key, incident.model_copy(update={"told": tuple(sorted(told))}))
        # A target that is gone from the settings is owed nothing.
        if ended and not told & set(targets):
            state = State(incidents={other: one for other, one in state.incidents.items() if other != key})
    _write(state)
    return state


def _wanting(level: Level, targets: Mapping[str, Level]) -> set[str]:
    return {name for name, least in targets.items() if level == "alarm" or least == "warn"}


def _with(state: State, key: str, incident: Incident) -> State:
    changed = State(incidents={**state.incidents, key: incident})
    _write(changed)
    return changed


def _write(state: State) -> None:
    files.write_json_atomic(path(), state.model_dump(mode="json"))


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
