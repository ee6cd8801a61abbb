"""The ledger keeps every row, in order, unaltered, or says which one it did not keep."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sidrec.errors import BusyError, LedgerError, UsageError
from sidrec.release import store
from sidrec.release.ledger import GENESIS, Ledger
from sidrec.release.ledger_file import read_file, write_file
from sidrec.release.revision import Arm, BundleRef, Revision
from sidrec.release.row import canonical
from tests.postgres_world import new_database

ROOT = Path(__file__).parents[3]
# Five rows that the first version wrote, on 2026-11-29 at commit 4fb2577: two promotions that went live, one rollback.
FIRST_VERSION = ROOT / "tests" / "golden" / "ledger_v1.jsonl"


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
    with ledger.writing() as writer:
        for _ in range(rows):
            number = max((row.revision.revision for row in writer.rows), default=0) + 1
            writer.append("promote", who="ann", why="…", revision=revision(number), verdicts={})


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """An empty ledger of each kind."""
    if request.param == "sqlite":
        return Ledger(tmp_path / "ledger" / "ledger.db")
    url = new_database(request.getfixturevalue("server"), secrets.token_hex(8))
    monkeypatch.setenv("SIDREC_LEDGER_URL", url)
    return Ledger()


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    """An empty ledger in a file."""
    return Ledger(tmp_path / "ledger" / "ledger.db")


def sql(ledger: Ledger, *statements: str) -> list[Any]:
    """Do to the database what somebody with its password could, and return the last statement's rows."""
    engine = create_engine(ledger._store().url, poolclass=NullPool)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        return list(results[-1]) if results and results[-1].returns_rows else []


def without_guards(ledger: Ledger, *statements: str) -> None:
    """The same, by an owner of the tables who first switches the triggers off."""
    if isinstance(ledger.path, Path):
        names = [name for (name,) in sql(ledger, "SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        sql(ledger, *(f"DROP TRIGGER {name}" for name in names), *statements)
    else:
        sql(ledger, *(f"ALTER TABLE {name} DISABLE TRIGGER ALL" for name in TABLES), *statements)


TABLES = ("sidrec_ledger", "sidrec_ledger_head")


def test_an_empty_ledger_asks_for_nothing(book: Ledger) -> None:
    """Before the first row there is no desired and no live revision, and reading makes no file."""
    assert (book.rows(), book.desired(), book.live()) == ([], None, None)
    assert book.verify().head == GENESIS
    assert isinstance(book.path, Path)
    assert not book.path.parent.exists()


def test_rows_are_chained_and_stored_as_hashed(ledger: Ledger) -> None:
    """Each row names the hash of the one before; the SHA-256 of the stored bytes is the stored hash."""
    fill(ledger, 3)
    stored = sql(ledger, "SELECT seq, previous, hash, body FROM sidrec_ledger ORDER BY seq")
    for number, (seq, previous, digest, body) in enumerate(stored, start=1):
        row = json.loads(body)

        assert digest == hashlib.sha256(body.encode()).hexdigest()
        assert previous == row["previous"] == (stored[number - 2][2] if number > 1 else GENESIS)
        assert (seq, row["seq"], row["schema_version"]) == (number, number, 1)


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE sidrec_ledger SET body = replace(body, 'ann', 'eve') WHERE seq = 2",
        "DELETE FROM sidrec_ledger WHERE seq = 3",
        "DELETE FROM sidrec_ledger_head",
        "UPDATE sidrec_ledger_head SET seq = 2",
        "UPDATE sidrec_ledger_head SET seq = 4",
        "INSERT INTO sidrec_ledger SELECT 5, hash, previous, body FROM sidrec_ledger WHERE seq = 3",
        "INSERT INTO sidrec_ledger SELECT 4, 'x', 'y', body FROM sidrec_ledger WHERE seq = 3",
    ],
)
def test_the_database_refuses_what_is_no_append(ledger: Ledger, attack: str) -> None:
    """A row cannot be changed, deleted or put out of turn by anybody who writes to the database."""
    fill(ledger, 3)
    before = ledger.rows()

    with pytest.raises(DBAPIError, match="append-only"):
        sql(ledger, attack)
    assert ledger.rows() == before


def test_sqlite_replaces_no_row(book: Ledger) -> None:
    """`INSERT OR REPLACE`, which deletes without asking the delete trigger, is refused as well."""
    fill(book, 3)

    for seq, previous, digest in (("3", "previous", "hash"), ("4", "previous", "'x'"), ("4", "hash", "previous")):
        with pytest.raises(DBAPIError, match="append-only"):
            sql(
                book,
                f"INSERT OR REPLACE INTO sidrec_ledger SELECT {seq}, {previous}, {digest}, body "
                "FROM sidrec_ledger WHERE seq = 3",
            )
    assert len(book.rows()) == 3


def test_postgresql_truncates_nothing(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`TRUNCATE`, which asks no row trigger, is refused as well."""
    monkeypatch.setenv("SIDREC_LEDGER_URL", new_database(server, secrets.token_hex(8)))
    ledger = Ledger()
    fill(ledger, 1)

    with pytest.raises(DBAPIError, match="append-only"):
        sql(ledger, "TRUNCATE sidrec_ledger")


def test_an_account_that_may_only_append_is_enough(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the tables are there, the rights of docs/release.md suffice to append, and do not suffice to delete."""
    url = new_database(server, secrets.token_hex(8))
    monkeypatch.setenv("SIDREC_LEDGER_URL", url)
    fill(Ledger(), 1)
    role = f"app{secrets.token_hex(4)}"
    sql(
        Ledger(),
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT ON sidrec_ledger TO {role}",
        f"GRANT SELECT, UPDATE ON sidrec_ledger_head TO {role}",
    )
    monkeypatch.setenv("SIDREC_LEDGER_URL", url.replace("postgres@", f"{role}@"))
    app = Ledger()
    fill(app, 1)

    assert len(app.rows()) == 2
    with pytest.raises(DBAPIError, match="permission denied"):
        sql(app, "DELETE FROM sidrec_ledger")


def _rewrite(ledger: Ledger, first: int) -> list[str]:
    """Change a row and recompute every hash after it: a consistent chain that never was."""
    rows = sql(ledger, "SELECT seq, previous, hash, body FROM sidrec_ledger ORDER BY seq")
    previous, statements = rows[first - 1][1], []
    for seq, _, _, body in rows[first - 1 :]:
        changed = canonical(json.loads(body) | {"who": "eve", "previous": previous})
        digest = hashlib.sha256(changed.encode()).hexdigest()
        quoted = changed.replace("'", "''").replace(":", "\\:")
        statements.append(
            f"UPDATE sidrec_ledger SET body = '{quoted}', hash = '{digest}', previous = '{previous}' WHERE seq = {seq}"
        )
        previous = digest
    return [*reversed(statements), f"UPDATE sidrec_ledger_head SET hash = '{previous}'"]


def _set(column: str, value: str, seq: int) -> Callable[[Ledger], list[str]]:
    return lambda _: [f"UPDATE sidrec_ledger SET {column} = {value} WHERE seq = {seq}"]


ATTACKS: dict[str, tuple[Callable[[Ledger], list[str]], str]] = {
    "altered": (_set("body", "replace(body, 'ann', 'eve')", 2), "row 2 .* altered"),
    "spelt otherwise": (_set("body", "replace(body, ',', ', ')", 2), "row 2 .* altered"),
    "no JSON": (_set("body", "'x'", 2), "row 2 .* does not parse"),
    "another hash": (_set("hash", "'" + "f" * 64 + "'", 2), "row 2 .* altered"),
    "another previous": (_set("previous", "'" + "f" * 64 + "'", 2), "row 2 .* altered"),
    "renumbered": (_set("seq", "7", 5), "row 5 .* altered"),
    "moved": (lambda _: [f"UPDATE sidrec_ledger SET seq = {a} WHERE seq = {b}" for a, b in ((9, 2), (2, 3), (3, 9))],
              "row 2 .* its number is 3"),
    "deleted": (lambda _: ["DELETE FROM sidrec_ledger WHERE seq = 2"], "row 2 .* its number is 3"),
    "first deleted": (lambda _: ["DELETE FROM sidrec_ledger WHERE seq = 1"], "row 1 .* its number is 2"),
    "cut": (lambda _: ["DELETE FROM sidrec_ledger WHERE seq = 5"], "has 4 rows, its head remembers row 5"),
    "cut with its head": (
        lambda _: [
            "DELETE FROM sidrec_ledger WHERE seq = 5",
            "UPDATE sidrec_ledger_head SET seq = 4, hash = (SELECT hash FROM sidrec_ledger WHERE seq = 4)",
        ],
        "has 4 rows, this machine has seen row 5",
    ),
    "emptied": (
        lambda _: ["DELETE FROM sidrec_ledger", f"UPDATE sidrec_ledger_head SET seq = 0, hash = '{GENESIS}'"],
        "has 0 rows, this machine has seen row 5",
    ),
    "rewritten": (lambda ledger: _rewrite(ledger, 2), "row 5 .* history was rewritten"),
    "head moved": (lambda _: ["UPDATE sidrec_ledger_head SET seq = 4"], "its head remembers row 4"),
    "head lost": (lambda _: ["DELETE FROM sidrec_ledger_head"], "head is none"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_tampering_is_found_and_the_row_named(ledger: Ledger, attack: str) -> None:
    """Changed, moved, deleted, cut off, rewritten by an owner of the tables: found, named, and nobody goes on."""
    change, found = ATTACKS[attack]
    fill(ledger, 5)
    without_guards(ledger, *change(ledger))

    with pytest.raises(LedgerError, match=found):
        ledger.verify()
    with pytest.raises(LedgerError, match=found):
        fill(ledger, 1)


def test_any_changed_character_is_found(book: Ledger) -> None:
    """No single character of a stored row can change unnoticed."""
    fill(book, 2)
    [[body]] = sql(book, "SELECT body FROM sidrec_ledger WHERE seq = 2")
    without_guards(book)
    for place in range(0, len(body), 31):
        changed = body[:place] + chr(ord(body[place]) ^ 1) + body[place + 1 :]
        engine = create_engine(book._store().url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(store.ROWS.update().where(store.ROWS.c.seq == 2).values(body=changed))

        with pytest.raises(LedgerError, match="row 2"):
            book.verify()


def test_a_deleted_file_is_missed(book: Ledger) -> None:
    """A machine that has seen rows does not believe that there never were any."""
    fill(book, 2)
    assert isinstance(book.path, Path)
    book.path.unlink()

    with pytest.raises(LedgerError, match="has 0 rows, this machine has seen row 2"):
        book.desired()


def test_a_file_that_is_no_database_is_named(book: Ledger) -> None:
    """Garbage where the ledger lies is an error of the ledger, with the file."""
    assert isinstance(book.path, Path)
    book.path.parent.mkdir()
    book.path.write_bytes(b"no database" * 100)

    with pytest.raises(LedgerError, match="cannot be read") as caught:
        book.verify()
    assert caught.value.evidence == str(book.path)


def test_a_database_that_cannot_be_reached_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong address, a wrong scheme and a URL that is none are told apart; no password is shown."""
    monkeypatch.setenv("SIDREC_LEDGER_URL", f"postgresql://ann:secret@/ledger?host={tmp_path}")
    with pytest.raises(LedgerError, match="cannot be read") as caught:
        Ledger().rows()
    assert "secret" not in f"{caught.value} {caught.value.evidence}"

    monkeypatch.setenv("SIDREC_LEDGER_URL", "mysql://host/ledger")
    with pytest.raises(UsageError, match="SQLite or PostgreSQL"):
        Ledger().rows()
    monkeypatch.setenv("SIDREC_LEDGER_URL", "somewhere")
    with pytest.raises(UsageError, match="no database URL"):
        Ledger()


def test_writers_at_once_append_one_chain(ledger: Ledger) -> None:
    """Four writers that append at once wait for one another: one whole chain, every row of each."""

    def write() -> None:
        for _ in range(3):
            fill(ledger, 1)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [row.revision.revision for row in ledger.rows()] == list(range(1, 13))


def test_a_reader_never_waits_for_a_writer(ledger: Ledger) -> None:
    """What a writer has not finished is not seen, and does not hold up who reads."""
    fill(ledger, 1)
    with ledger.writing() as writer:
        writer.append("promote", who="ann", why="…", revision=revision(2), verdicts={})

        assert len(ledger.rows()) == 1
    assert len(ledger.rows()) == 2


def test_a_writer_waits_and_then_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a writer that does not end, the next one is told who is in the way."""
    fill(ledger, 1)
    monkeypatch.setattr(store, "WAIT_S", 1)
    store._engine.cache_clear()
    try:
        with ledger.writing(), pytest.raises(BusyError, match="locked for 1 s"), ledger.writing():
            pass
    finally:
        store._engine.cache_clear()


def test_what_fails_inside_is_not_stored(ledger: Ledger) -> None:
    """All rows of one body are stored, or none."""
    fill(ledger, 1)
    with contextlib.suppress(RuntimeError), ledger.writing() as writer:
        writer.append("promote", who="ann", why="…", revision=revision(2), verdicts={})
        raise RuntimeError

    assert len(ledger.rows()) == 1


def test_killed_writers_lose_nothing_that_was_acknowledged(book: Ledger) -> None:
    """A writer killed at any moment leaves a ledger that verifies and holds every row it said was stored."""
    code = (
        "import sys; from pathlib import Path; from tests.sidrec.release.test_ledger import fill;"
        "from sidrec.release.ledger import Ledger; ledger = Ledger(Path(sys.argv[1]))\n"
        "while True: fill(ledger, 1); print(len(ledger.rows()), flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(book.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(4)]
    child.kill()
    said += child.stdout.read().split()
    child.wait()

    assert len(book.rows()) >= int(said[-1]) >= 4


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
    assert second.time.tzinfo is not None


def test_going_live_is_recorded_once(book: Ledger) -> None:
    """A server that starts again with the same revision adds no row."""
    fill(book, 1)
    rows = [book.record_live(revision(1), who="deploy", why="started") for _ in range(3)]

    assert len({row.seq for row in rows}) == 1
    assert [row.action for row in book.rows()] == ["promote", "live"]


def test_nothing_goes_live_that_nobody_asked_for(book: Ledger) -> None:
    """A revision that is not in the ledger, or is there with other contents, cannot be recorded as live."""
    fill(book, 1)

    for stranger in (revision(2), revision(1).model_copy(update={"salt": "other"})):
        with pytest.raises(LedgerError, match="never promoted"):
            book.record_live(stranger, who="deploy", why="…")


def test_desired_is_the_last_decision(book: Ledger) -> None:
    """What is live, asked for and not approved, measured or taken down does not change what is to be served."""
    fill(book, 2)
    book.record_live(revision(1), who="deploy", why="…")
    with book.writing() as writer:
        about = {"who": "ann", "why": "…", "revision": revision(7), "verdicts": {}}
        writer.append("promote", pending_until=datetime.now(UTC), **about)  # type: ignore[arg-type]
        writer.append("drill", measured={"seconds_to_safe": 3.2}, **about)  # type: ignore[arg-type]
        writer.append("takedown", items=("i1",), **about)  # type: ignore[arg-type]

    desired = book.desired()

    assert desired is not None
    assert desired.revision == 2


def test_a_row_is_written_in_the_oldest_version_that_can_say_it(book: Ledger) -> None:
    """Older readers go on reading what they can; what they could not say is version 2, with all of its fields."""
    with book.writing() as writer:
        about = {"who": "ann", "why": "…", "revision": revision(1), "verdicts": {}}
        plain = writer.append("promote", **about)  # type: ignore[arg-type]
        ramp = writer.append("ramp", **about)  # type: ignore[arg-type]
        staged = writer.append("promote", stage="canary", **about)  # type: ignore[arg-type]

    assert [row.schema_version for row in (plain, ramp, staged)] == [1, 2, 2]
    assert "stage" not in json.loads(plain.body)
    assert json.loads(staged.body)["stage"] == "canary"
    assert book.rows() == [plain, ramp, staged]


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A state folder's ledger as the first version left it."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    for suffix in (".jsonl", ".head"):
        shutil.copyfile(FIRST_VERSION.with_suffix(suffix), folder / f"ledger{suffix}")
    return folder / "ledger.jsonl"


def test_a_ledger_of_the_first_version_is_taken_over_once(book: Ledger, first_version: Path) -> None:
    """Its rows keep their bytes and hashes, its files are put aside, and the chain goes on."""
    lines = first_version.read_text().splitlines()
    rows = book.rows()
    fill(book, 1)

    assert [row.line for row in rows] == lines
    assert [row.action for row in rows] == ["promote", "live", "promote", "live", "rollback"]
    assert rows[0].why == "Überlegt…"
    assert sorted(path.name for path in first_version.parent.glob("*.imported")) == [
        "ledger.head.imported",
        "ledger.jsonl.imported",
    ]
    assert book.rows()[:5] == rows
    assert book.rows()[5].previous == rows[4].hash


def test_a_cut_ledger_of_the_first_version_is_not_taken_over(book: Ledger, first_version: Path) -> None:
    """Its last row gone, or its head: refused as its own version would have."""
    whole = first_version.read_bytes()
    first_version.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(LedgerError, match="has 4 rows, its head remembers row 5"):
        book.rows()

    first_version.write_bytes(whole)
    first_version.with_suffix(".head").unlink()
    with pytest.raises(LedgerError, match="no head beside it"):
        book.rows()


def test_a_crash_between_taking_over_and_renaming_is_made_good(book: Ledger, first_version: Path) -> None:
    """Both ledgers there, and agreeing: the file is renamed. Not agreeing: neither is believed."""
    names = [first_version, first_version.with_suffix(".head")]
    whole = [path.read_bytes() for path in names]
    rows = book.rows()
    for path, data in zip(names, whole, strict=True):
        path.write_bytes(data)

    assert book.rows() == rows
    assert not first_version.exists()

    strange = Ledger(first_version.with_name("strange.db"))
    fill(strange, 2)
    write_file(first_version, strange.rows())
    names[1].write_text(json.dumps({"seq": 2, "hash": strange.verify().head}))

    with pytest.raises(LedgerError, match="two histories"):
        book.rows()


def test_an_export_is_checked_by_itself(ledger: Ledger, tmp_path: Path) -> None:
    """An export has every row, and a changed, a lost and a torn line in it are found."""
    fill(ledger, 3)
    path = tmp_path / "export.jsonl"
    write_file(path, ledger.rows())
    whole = path.read_text()

    assert read_file(path).rows == ledger.rows()

    path.write_text(whole.replace("ann", "eve", 1))
    with pytest.raises(LedgerError, match=r"row 1 .* altered"):
        read_file(path)
    path.write_text("".join(whole.splitlines(keepends=True)[::2]))
    with pytest.raises(LedgerError, match=r"row 2 .* its number is 3"):
        read_file(path)
    path.write_text(whole + '{"seq":4')
    assert read_file(path).torn == '{"seq":4'


def test_an_empty_ledger_takes_an_export(ledger: Ledger, tmp_path: Path) -> None:
    """A laptop's ledger moves to the team's database row by row, hash by hash; a ledger with rows takes nothing."""
    laptop = Ledger(tmp_path / "laptop.db")
    fill(laptop, 3)
    ledger.take(laptop.rows())

    assert ledger.verify() == laptop.verify()
    with pytest.raises(LedgerError, match="only an empty ledger"):
        ledger.take(laptop.rows())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_copy_in_a_folder_without_write_bits_is_read(book: Ledger) -> None:
    """An auditor reads a ledger from a folder that cannot be written."""
    fill(book, 2)
    assert isinstance(book.path, Path)
    book.path.parent.chmod(0o555)
    try:
        assert len(book.rows()) == 2
    finally:
        book.path.parent.chmod(0o755)
