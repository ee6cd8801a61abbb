"""One message when an incident starts, one when it is over, whatever happens between."""

from datetime import UTC, datetime, timedelta

import pytest

from monitoring import incidents
from monitoring.incidents import Level, Notice, Signal, State
from sidrec.errors import CheckFailedError

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)


def signal(level: Level = "alarm", key: str = "k", since: str = "2026-01-01") -> Signal:
    return Signal(key=key, level=level, what="codes collapsed", since=since, command="sidrec drift triage", runbook="r")


class Post:
    """A post office: takes every message, or none."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.open = True

    def __call__(self, name: str, notice: Notice) -> bool:
        if self.open:
            self.sent.append((name, notice.kind, notice.incident.signal.key))
        return self.open


def run(
    post: Post,
    firing: list[Signal],
    clear: set[str] | None = None,
    *,
    targets: dict[str, Level] | None = None,
    now: datetime = NOW,
) -> State:
    """Make one run as the watch does, over the state on disk."""
    state = incidents.observe(incidents.read(), firing, clear or set(), now=now, recover_after=2)
    return incidents.deliver(state, targets or {"oncall": "alarm"}, post)


def test_any_number_of_runs_tells_of_start_and_end_once() -> None:
    """Fifty runs that see it and fifty that do not: two messages."""
    post = Post()
    for number in range(50):
        run(post, [signal()], now=NOW + timedelta(hours=number))
    for number in range(50, 100):
        run(post, [], {"k"}, now=NOW + timedelta(hours=number))

    assert post.sent == [("oncall", "start", "k"), ("oncall", "recovery", "k")]
    assert not incidents.read().incidents


def test_one_quiet_run_is_no_end() -> None:
    """A signal that comes back after one quiet run is still the same incident, with its first opening and day."""
    post = Post()
    run(post, [signal()])
    run(post, [], {"k"}, now=NOW + timedelta(hours=1))
    state = run(post, [signal(since="2026-01-04")], now=NOW + timedelta(hours=2))

    assert post.sent == [("oncall", "start", "k")]
    assert (state.incidents["k"].opened_at, state.incidents["k"].signal.since) == (NOW, "2026-01-01")


def test_a_run_that_could_not_measure_changes_nothing() -> None:
    """Too few rows are no recovery, however often."""
    post = Post()
    run(post, [signal()])
    for _ in range(5):
        run(post, [])

    assert list(incidents.read().incidents) == ["k"]
    assert len(post.sent) == 1


def test_what_a_target_did_not_take_is_owed_to_the_next_run() -> None:
    """A dead webhook loses no message, and gets each once when it is back."""
    post = Post()
    post.open = False
    run(post, [signal()])
    post.open = True
    run(post, [signal()])
    run(post, [signal()])

    assert post.sent == [("oncall", "start", "k")]


def test_an_end_is_told_only_to_who_heard_of_the_start() -> None:
    """A target that was never reached hears nothing of an incident that is over."""
    post = Post()
    post.open = False
    run(post, [signal()])
    run(post, [], {"k"})
    post.open = True
    run(post, [], {"k"})

    assert not incidents.read().incidents
    assert not post.sent


def test_a_warning_that_becomes_an_alarm_reaches_who_waits_for_alarms() -> None:
    """Each target hears once: the one for warnings at the warning, the one for alarms at the alarm."""
    post, targets = Post(), {"tickets": "warn", "oncall": "alarm"}
    for level in ("warn", "warn", "alarm", "alarm"):
        run(post, [signal(level)], targets=targets)

    assert post.sent == [("tickets", "start", "k"), ("oncall", "start", "k")]


def test_a_target_that_left_the_settings_holds_no_incident_open() -> None:
    """An end that nobody can be told of is an end."""
    post = Post()
    run(post, [signal()])
    for _ in range(2):
        run(post, [], {"k"}, targets={"other": "alarm"})

    assert not incidents.read().incidents


def test_a_crash_between_two_messages_repeats_neither() -> None:
    """What was sent is on disk before the next message goes out."""
    sent: list[str] = []

    def send(name: str, notice: Notice) -> bool:
        if sent:
            raise KeyboardInterrupt
        sent.append(notice.incident.signal.key)
        return True

    both = incidents.observe(State(), [signal(key="a"), signal(key="b")], set(), now=NOW, recover_after=2)
    with pytest.raises(KeyboardInterrupt):
        incidents.deliver(both, {"oncall": "alarm"}, send)
    post = Post()
    run(post, [signal(key="a"), signal(key="b")])

    assert (sent, post.sent) == (["a"], [("oncall", "start", "b")])


def test_a_message_says_what_since_when_where_and_what_to_do() -> None:
    """Every line that a person needs at night is in it."""
    state = incidents.observe(State(), [signal()], set(), now=NOW, recover_after=2)
    notice = Notice(kind="start", incident=state.incidents["k"])

    assert notice.title == "sidrec alarm: codes collapsed"
    assert notice.body.splitlines() == [
        "what: codes collapsed",
        "since: 2026-01-01 (incident opened 2026-01-05 03:00 UTC)",
        "arm: all",
        "bundle: none",
        "first: sidrec drift triage",
        "runbook: r",
    ]


def test_a_broken_state_file_is_an_error_with_a_way_out() -> None:
    """It is never taken for an empty one, which would tell everything anew."""
    incidents.path().parent.mkdir(parents=True)
    incidents.path().write_text("{")

    with pytest.raises(CheckFailedError, match="does not parse") as error:
        incidents.read()

    assert "move the file away" in str(error.value.next_step)
