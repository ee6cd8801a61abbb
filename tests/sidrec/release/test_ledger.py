"""The ledger keeps every row, in order, unaltered, or says which one it did not keep."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidrec.errors import LedgerError
from sidrec.release.ledger import GENESIS, Ledger
from sidrec.release.revision import Arm, BundleRef, Revision

ROOT = Path(__file__).parents[3]


def revision(number: int) -> Revision:
    bundle = BundleRef(bundle_id="b-" + "0" * 12, sha256="0" * 64)
    return Revision(
        revision=number,
        arms=(Arm(name="champion", bundle=bundle, share=1.0),),
        salt="s",
        deadline_ms=1,
        history_deadline_ms=1,
        history_max_age_days=1,
        exposure_flush_s=1,
        clock="wall",
    )


def fill(ledger: Ledger, rows: int) -> None:
    for _ in range(rows):
        with ledger.writing() as writer:
            number = max((row.revision.revision for row in writer.rows), default=0) + 1
            writer.append("promote", who="ann", why="…", revision=revision(number), verdicts={})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger" / "ledger.jsonl")


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def test_an_empty_ledger_asks_for_nothing(ledger: Ledger) -> None:
    """Before the first row there is no desired and no live revision, and reading makes no file."""
    assert (ledger.rows(), ledger.desired(), ledger.live()) == ([], None, None)
    assert ledger.verify().head == GENESIS
    assert not ledger.path.parent.exists()


def test_rows_are_chained_and_numbered(ledger: Ledger) -> None:
    """Each row holds the hash of the one before; the file's hashes can be recomputed by hand."""
    import hashlib

    fill(ledger, 3)
    rows = [json.loads(line) for line in lines(ledger)]
    for number, row in enumerate(rows, start=1):
        body = json.dumps({k: v for k, v in row.items() if k != "hash"}, sort_keys=True, separators=(",", ":"))

        assert row["hash"] == hashlib.sha256(body.encode()).hexdigest()
        assert row["previous"] == (rows[number - 2]["hash"] if number > 1 else GENESIS)
        assert (row["seq"], row["schema_version"]) == (number, 1)


def _alter(rows: list[bytes]) -> list[bytes]:
    return [rows[0], rows[1].replace(b'"who":"ann"', b'"who":"eve"'), *rows[2:]]


def _alter_and_rehash(rows: list[bytes]) -> list[bytes]:
    import hashlib

    row = json.loads(rows[1]) | {"who": "eve"}
    body = json.dumps({k: v for k, v in row.items() if k != "hash"}, sort_keys=True, separators=(",", ":"))
    row["hash"] = hashlib.sha256(body.encode()).hexdigest()
    return [rows[0], json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n", *rows[2:]]


def _rewrite_all(rows: list[bytes]) -> list[bytes]:
    """Recompute every hash after a change: a consistent chain that never was."""
    import hashlib

    out, previous = [], GENESIS
    for line in rows:
        row = json.loads(line) | {"who": "eve", "previous": previous}
        body = json.dumps({k: v for k, v in row.items() if k != "hash"}, sort_keys=True, separators=(",", ":"))
        row["hash"] = previous = hashlib.sha256(body.encode()).hexdigest()
        out.append(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return out


ATTACKS: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (_alter, "row 2 .* altered"),
    (_alter_and_rehash, "row 3 .* follows"),
    (_rewrite_all, "row 5 .* history was rewritten"),
    (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "row 2 .* its number is 3"),
    (lambda rows: [rows[0], *rows[2:]], "row 2 .* its number is 3"),
    (lambda rows: rows[1:], "row 1 .* its number is 2"),
    (lambda rows: [*rows[:2], rows[1], *rows[2:]], "row 3 .* its number is 2"),
    (lambda rows: rows[:-1], "has 4 rows, its head remembers row 5"),
    (lambda rows: [], "has 0 rows, its head remembers row 5"),
    (lambda rows: [rows[0], b"\n", *rows[1:]], "row 2 .* does not parse"),
    (lambda rows: [rows[0], rows[1].replace(b":", b": ", 1), *rows[2:]], "row 2 .* altered"),
    (lambda rows: [*rows[:-1], rows[-1][:-1]], "has 4 rows, its head remembers row 5"),
]


@pytest.mark.parametrize(("attack", "found"), ATTACKS)
def test_tampering_is_found_and_the_row_named(
    ledger: Ledger, attack: Callable[[list[bytes]], list[bytes]], found: str
) -> None:
    """Changed, moved, deleted, doubled, cut off: each is found, named, and stops every reader and writer."""
    fill(ledger, 5)
    ledger.path.write_bytes(b"".join(attack(lines(ledger))))

    with pytest.raises(LedgerError, match=found):
        ledger.verify()
    with pytest.raises(LedgerError, match=found):
        ledger.desired()
    with pytest.raises(LedgerError, match=found):
        fill(ledger, 1)


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found(ledger: Ledger, data: st.DataObject) -> None:
    """No single bit of the file can change unnoticed."""
    if not ledger.path.exists():
        fill(ledger, 3)
    good = ledger.path.read_bytes()
    raw = bytearray(good)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        ledger.path.write_bytes(bytes(raw))
        with pytest.raises(LedgerError):
            ledger.verify()
    finally:
        ledger.path.write_bytes(good)


def test_a_lost_head_is_found(ledger: Ledger) -> None:
    """Without its head, a ledger could be cut unnoticed; so it is not believed."""
    fill(ledger, 2)
    ledger.head_path.unlink()

    with pytest.raises(LedgerError, match="has 2 rows, its head remembers row 0"):
        ledger.verify()


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_append_is_reported_and_set_aside(ledger: Ledger, kept: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed append left is reported by every check, kept in a file by the next append, and no row is lost."""
    fill(ledger, 3)
    whole = lines(ledger)
    with ledger.path.open("ab") as file:
        file.write(whole[-1].replace(b'"seq":3', b'"seq":4')[:kept])
    check = ledger.verify()
    torn = ledger.path.read_bytes()[len(b"".join(whole)) :]

    assert check.torn is not None
    assert check.torn.encode() == torn
    assert len(check.rows) == 3

    fill(ledger, 1)
    [aside] = ledger.path.parent.glob("ledger.torn-after-3-*")

    assert aside.read_bytes() == torn
    assert str(aside) in capsys.readouterr().err
    assert [row.seq for row in ledger.rows()] == [1, 2, 3, 4]
    assert ledger.verify().torn is None


def test_a_row_written_before_its_head_stands(ledger: Ledger) -> None:
    """An append killed between row and head has happened: the row is on disk and whole."""
    fill(ledger, 2)
    head = ledger.head_path.read_bytes()
    fill(ledger, 1)
    ledger.head_path.write_bytes(head)

    assert [row.seq for row in ledger.rows()] == [1, 2, 3]

    fill(ledger, 1)

    assert [row.seq for row in ledger.rows()] == [1, 2, 3, 4]


def test_many_processes_append_one_chain(ledger: Ledger) -> None:
    """Four processes that append at once leave one whole chain with every row of each."""
    code = (
        "import sys; from pathlib import Path; from tests.sidrec.release.test_ledger import fill;"
        "from sidrec.release.ledger import Ledger; fill(Ledger(Path(sys.argv[1])), 5)"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(ledger.path)], cwd=ROOT) for _ in range(4)]

    assert [child.wait(timeout=60) for child in children] == [0] * 4
    assert [row.revision.revision for row in ledger.rows()] == list(range(1, 21))


def test_killed_writers_lose_nothing_that_was_acknowledged(ledger: Ledger, tmp_path: Path) -> None:
    """A writer killed at any moment leaves a ledger that verifies and holds every row it said was on disk."""
    code = (
        "import sys; from pathlib import Path; from tests.sidrec.release.test_ledger import fill;"
        "from sidrec.release.ledger import Ledger; ledger = Ledger(Path(sys.argv[1]))\n"
        "while True: fill(ledger, 1); print(len(ledger.rows()), flush=True)"
    )
    acknowledged = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(ledger.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(4):
            acknowledged = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split()
        child.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged

        assert len(ledger.rows()) >= acknowledged


def test_live_answers_for_a_time(ledger: Ledger) -> None:
    """`live(at)` is the last revision that had gone live by then, whatever was asked for since."""
    fill(ledger, 1)
    first = ledger.record_live(revision(1), who="deploy", why="golden requests answered")
    fill(ledger, 1)
    second = ledger.record_live(revision(2), who="deploy", why="golden requests answered")

    assert ledger.live(first.time - timedelta(microseconds=1)) is None
    assert ledger.live(first.time) == first
    assert ledger.live(second.time - timedelta(microseconds=1)) == first
    assert ledger.live() == second
    assert isinstance(second.time, datetime)
    assert second.time.tzinfo is not None


def test_going_live_is_recorded_once(ledger: Ledger) -> None:
    """A server that starts again with the same revision adds no row."""
    fill(ledger, 1)
    rows = [ledger.record_live(revision(1), who="deploy", why="started") for _ in range(3)]

    assert len({row.seq for row in rows}) == 1
    assert [row.action for row in ledger.rows()] == ["promote", "live"]


def test_nothing_goes_live_that_nobody_asked_for(ledger: Ledger) -> None:
    """A revision that is not in the ledger, or is there with other contents, cannot be recorded as live."""
    fill(ledger, 1)

    for stranger in (revision(2), revision(1).model_copy(update={"salt": "other"})):
        with pytest.raises(LedgerError, match="never promoted"):
            ledger.record_live(stranger, who="deploy", why="…")


def test_desired_is_the_last_decision(ledger: Ledger) -> None:
    """What is live does not change what is asked for."""
    fill(ledger, 2)
    ledger.record_live(revision(1), who="deploy", why="…")

    desired = ledger.desired()

    assert desired is not None
    assert desired.revision == 2


def test_a_copy_without_its_lock_can_be_read(ledger: Ledger) -> None:
    """An auditor reads ledger and head from a folder that cannot be written."""
    fill(ledger, 2)
    ledger.path.with_suffix(".lock").unlink()
    os.chmod(ledger.path.parent, 0o555)
    try:
        assert len(ledger.rows()) == 2
    finally:
        os.chmod(ledger.path.parent, 0o755)
