"""A ledger of the first versions, a file of one row a line with a head beside it, on its way into the database.

Its rows are stored, then its files are put aside. Whatever dies in between leaves both, and they agree.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sidrec.errors import LedgerError
from sidrec.release.ledger_file import read_file
from sidrec.release.row import LedgerRow


def found(path: Path, stored: Sequence[LedgerRow]) -> list[LedgerRow] | None:
    """Return the rows of the file, None where there is no file.

    Args:
        stored: what the database has; nothing, or the same history.

    Raises:
        LedgerError: the file is broken or may have been cut, or the database has another history.
    """
    if not path.exists():
        return None
    rows = read_file(path).rows
    if rows and not path.with_suffix(".head").exists():
        raise LedgerError(
            f"{path.name} has {len(rows)} rows and no head beside it: it may have been cut", evidence=path
        )
    if stored and [row.hash for row in rows] != [row.hash for row in stored[: len(rows)]]:
        raise LedgerError(
            f"{path.name} and the database are two histories: something older wrote to the file once it was taken over",
            evidence=path,
            next_step=f"compare them with sidrec ledger show --file {path}, then move the file away",
        )
    return rows


def put_aside(path: Path, *, now_in: Path | str) -> None:
    """Rename the file and its head, and say where its rows are."""
    for one in (path, path.with_suffix(".head")):
        if one.exists():
            one.replace(one.with_name(f"{one.name}.imported"))
    print(f"ledger: the rows of {path} are now in {now_in}", file=sys.stderr)
