"""A row of the ledger, its one spelling, and the chain that rows make.

The hash of a row is the SHA-256 of its canonical JSON without the hash: the exact bytes that are stored. Version 1 has
the fields of the first ledgers; version 2 adds what stages, approvals, takedowns and drills need. A row is written as
version 1 wherever version 1 can say it, and a stored row is never rewritten.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidrec.release.revision import Revision

GENESIS: Final = "0" * 64
Action = Literal["promote", "approve", "ramp", "stop", "rollback", "takedown", "live", "drill"]
Stage = Literal["shadow", "canary", "challenger", "champion"]

_DECISIONS: Final = frozenset({"promote", "approve", "ramp", "stop", "rollback"})
_FIRST_ACTIONS: Final = frozenset({"promote", "rollback", "live"})
_SECOND_FIELDS: Final = ("stage", "approves", "pending_until", "overrides", "measured", "items")


class LedgerRow(BaseModel):
    """One decision, or the fact that a server now follows one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2]
    seq: int = Field(ge=1)
    time: datetime
    action: Action
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)
    bundle: str = Field(description="bundle_id of the first arm; of a promotion or an approval, of what it is about.")
    verdicts: dict[str, str] = Field(description="bundle_id -> SHA-256 of the verdict file that allowed it.")
    second_approver: str | None = Field(None, description="Who else stands behind a doubtful verdict or an override.")
    restores: int | None = Field(None, description="rollback: the revision whose contents came back.")
    revision: Revision
    stage: Stage | None = Field(None, description="promote, approve: what the bundle is to be; None is champion.")
    approves: int | None = Field(None, description="approve: number of the row that asked.")
    pending_until: datetime | None = Field(None, description="promote, ramp: asks only, and no longer than until then.")
    overrides: tuple[str, ...] = Field((), description="Checks that said no and were overruled.")
    measured: dict[str, float] | None = Field(None, description="drill, stop: the figures behind the row.")
    items: tuple[str, ...] | None = Field(None, description="takedown: the whole list from now on.")
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _says_what_its_version_can(self) -> Self:
        if self.schema_version == 1 and _needs_second(self.action, self.__dict__):
            raise ValueError("a row of version 1 has no such action or field")
        return self

    @property
    def body(self) -> str:
        """The bytes that are hashed and stored."""
        return canonical({key: value for key, value in self._fields().items() if key != "hash"})

    @property
    def line(self) -> str:
        """The row's one spelling in an export."""
        return canonical(self._fields())

    @property
    def decides(self) -> bool:
        """Whether servers ought to serve this row's revision from here on, until another one decides."""
        return self.action in _DECISIONS and self.pending_until is None

    def _fields(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json")
        return fields if self.schema_version == 2 else {k: v for k, v in fields.items() if k not in _SECOND_FIELDS}


class BrokenChainError(ValueError):
    """A row does not parse, does not follow, or was altered; the text names it."""


def seal(fields: dict[str, Any]) -> LedgerRow:
    """Return the row of these fields, in the oldest version that can say them, with its hash."""
    version = 2 if _needs_second(fields["action"], fields) else 1
    unsealed = LedgerRow.model_validate({**fields, "schema_version": version, "hash": GENESIS})
    return unsealed.model_copy(update={"hash": sha256(unsealed.body)})


def read_row(number: int, line: str, previous: str) -> LedgerRow:
    """Return the row that one line of an export holds, after its place and its hash were checked.

    Raises:
        BrokenChainError: it does not parse, is not the next, or was altered.
    """
    fields = _object(number, line)
    digest = str(fields.pop("hash", ""))
    row = read_stored(number, canonical(fields), digest, previous)
    if canonical({**fields, "hash": digest}) != line:
        raise _altered(number)
    return row


def read_stored(number: int, body: str, digest: str, previous: str) -> LedgerRow:
    """Return the row of a stored body and its hash, after its place and the hash were checked.

    Raises:
        BrokenChainError: it does not parse, is not the next, or was altered.
    """
    try:
        row = LedgerRow.model_validate({**_object(number, body), "hash": digest})
    except ValidationError as error:
        raise _broken(number, f"it does not parse ({str(error).splitlines()[0]})") from error
    if row.seq != number:
        raise _broken(number, f"its number is {row.seq}; a row was deleted, inserted or moved")
    if row.previous != previous:
        raise _broken(number, f"it follows {row.previous[:12]}…, the row before it is {previous[:12]}…")
    # The bytes too: a row has one spelling, so a second one was written by somebody else.
    if digest != sha256(body) or row.body != body:
        raise _altered(number)
    return row


def read_chain(lines: Iterable[str]) -> list[LedgerRow]:
    """Return the rows of an export, oldest first, after the whole chain was checked."""
    rows: list[LedgerRow] = []
    for number, line in enumerate(lines, start=1):
        rows.append(read_row(number, line, rows[-1].hash if rows else GENESIS))
    return rows


def decisions(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Return the rows that say what ought to be served, oldest first."""
    return [row for row in rows if row.decides]


def next_revision(rows: Sequence[LedgerRow]) -> int:
    """Return a number that no row's revision has."""
    return max((row.revision.revision for row in rows), default=0) + 1


def canonical(value: Any) -> str:
    """Return the one spelling of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    """Return the hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _needs_second(action: str, fields: dict[str, Any]) -> bool:
    return action not in _FIRST_ACTIONS or any(fields.get(name) not in (None, ()) for name in _SECOND_FIELDS)


def _object(number: int, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _broken(number, f"it does not parse ({error})") from error
    if not isinstance(value, dict):
        raise _broken(number, "it does not parse (no JSON object)")
    return value


def _broken(number: int, why: str) -> BrokenChainError:
    return BrokenChainError(f"row {number} of the ledger is broken: {why}")


def _altered(number: int) -> BrokenChainError:
    return _broken(number, "its hash does not hold; it was altered")
