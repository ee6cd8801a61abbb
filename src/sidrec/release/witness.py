"""What a machine remembers of the ledger: the newest row that it ever saw.

A chain cannot notice that its end was cut off, and whoever owns the database can rewrite all of it. So every machine
that reads keeps number and hash of the newest row in a file of its own, and from then on believes no chain without it.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sidrec import files
from sidrec.errors import LedgerError
from sidrec.release.row import GENESIS, LedgerRow


class Seen(NamedTuple):
    """Number and hash of a row; 0 before the first."""

    seq: int
    hash: str


def read_witness(path: Path) -> Seen:
    """Return the newest row that this machine ever saw.

    Read it before the rows: a row that another process appends in between is then newer, not missing.

    Raises:
        LedgerError: the witness does not parse.
    """
    if not path.exists():
        return Seen(0, GENESIS)
    try:
        value = files.read_json(path)
        return Seen(int(value["seq"]), str(value["hash"]))
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path.name} does not parse", evidence=path) from error


def check_witness(path: Path, seen: Seen, rows: Sequence[LedgerRow]) -> None:
    """Refuse a chain that lacks the row that this machine saw last.

    Raises:
        LedgerError: rows were cut off or history was rewritten since.
    """
    if seen.seq > len(rows):
        raise LedgerError(
            f"the ledger has {len(rows)} rows, this machine has seen row {seen.seq}: rows were cut off, or an old copy"
            " was put back",
            evidence=path,
            next_step="restore the ledger from a copy that has them",
        )
    if seen.seq and rows[seen.seq - 1].hash != seen.hash:
        raise LedgerError(
            f"row {seen.seq} of the ledger is broken: this machine has seen it as {seen.hash[:12]}…, it is"
            f" {rows[seen.seq - 1].hash[:12]}… now; history was rewritten",
            evidence=path,
            next_step="restore the ledger from a copy",
        )


def remember(path: Path, rows: Sequence[LedgerRow]) -> None:
    """Keep the newest row where it is newer than the one kept."""
    if len(rows) > read_witness(path).seq:
        # Where nothing may be written, a reader checks all the same and remembers nothing.
        with contextlib.suppress(OSError):
            files.write_json_atomic(path, {"schema_version": 1, "seq": len(rows), "hash": rows[-1].hash})
