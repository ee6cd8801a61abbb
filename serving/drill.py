"""How long going back takes: done for real, on the servers that run, and written down.

The revision that a rollback would ask for is loaded and asked its golden requests, then the present one again. What is
asked for never changes. With a standby only that one goes back and forth, and callers meet nothing; without one,
callers meet the previous bundle for a moment, so it must be wanted, and no experiment may run.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

from serving import deploy
from serving.state import STANDBY, read_admin_key, read_state
from serving.triton import repository
from sidrec import home
from sidrec.errors import LedgerError, ServingError, SidrecError, UsageError
from sidrec.process import exclusive
from sidrec.release.ledger import Ledger, decisions
from sidrec.release.rollback import previous_good
from sidrec.release.row import LedgerRow

_BUSY_S = 300.0


@dataclass(frozen=True, slots=True)
class Drill:
    """What a drill measured."""

    server: str
    present: int
    back_to: int
    seconds_to_safe: float
    seconds_forward: float
    row: int

    @property
    def sentence(self) -> str:
        """The measurement as one sentence."""
        return (
            f"revision {self.back_to} answered its golden requests on the {self.server} {self.seconds_to_safe:.1f} s"
            f" after it was asked for; revision {self.present} is back after another {self.seconds_forward:.1f} s"
            f" (ledger row {self.row})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self) | {"sentence": self.sentence}


def drill(*, who: str, on_primary: bool = False, ledger: Ledger | None = None) -> Drill:
    """Return how many seconds the servers took to go back, and forward again; both are in the ledger's new row.

    Args:
        on_primary: without a standby, go back and forth on the server that callers ask.

    Raises:
        UsageError: there is no standby and `on_primary` was not said, or an experiment's users would be moved.
        LedgerError: there is nothing to go back to.
        ServingError: no server runs, it does not serve what is asked for, or the way back does not work: the present
            revision serves on, and the ledger's row says so.
    """
    book = ledger or Ledger()
    with exclusive(home.serving_dir() / "deploy.lock", "a deployment", wait_s=_BUSY_S):
        rows = book.rows()
        present, target = _moves(book, rows)
        server, url = _server(on_primary, present)
        root = home.triton_repository_dir()
        if repository.pointed_to(root) != present.revision.revision:
            raise ServingError("the servers do not serve what the ledger asks for", next_step="sidrec deploy")
        key = read_admin_key()
        try:
            began = time.monotonic()
            deploy.write(target, rows)
            deploy.switch(root, target.revision, present.revision.revision, [url], admin_key=key)
            safe = time.monotonic()
            if server != STANDBY:
                book.record_live(target.revision, who=who, why="drill: back")
            deploy.switch(root, present.revision, None, [url], admin_key=key)
            ended = time.monotonic()
        except SidrecError as error:
            repository.point_to(root, present.revision.revision)
            _record(book, present, who, f"the way back failed: {error.message}", {"ok": 0.0})
            raise ServingError(
                f"the drill failed, a rollback would have: {error.message}",
                evidence=error.evidence,
                next_step="sidrec deploy, then look at the server's log",
            ) from error
        if server != STANDBY:
            book.record_live(present.revision, who=who, why="drill: forward")
        repository.prune(root)
        measured = {"ok": 1.0, "seconds_to_safe": round(safe - began, 3), "seconds_forward": round(ended - safe, 3)}
        why = f"on the {server}: back to revision {target.revision.revision} and forward again"
        row = _record(book, present, who, why, measured)
        return Drill(
            server=server,
            present=present.revision.revision,
            back_to=target.revision.revision,
            seconds_to_safe=measured["seconds_to_safe"],
            seconds_forward=measured["seconds_forward"],
            row=row.seq,
        )


def _moves(book: Ledger, rows: list[LedgerRow]) -> tuple[LedgerRow, LedgerRow]:
    decided, target = decisions(rows), previous_good(rows)
    if not decided or target is None:
        raise LedgerError(
            "there is no earlier revision to go back to, so there is nothing to drill",
            evidence=book.path,
            next_step="sidrec ledger show",
        )
    return decided[-1], target


def _server(on_primary: bool, present: LedgerRow) -> tuple[str, str]:
    state = read_state()
    if state is None or state["health"] != "ready":
        raise ServingError("no server is ready to be drilled", next_step="sidrec serve --standby")
    if (standby := state.get(STANDBY)) is not None:
        return STANDBY, str(standby["grpc"])
    if not on_primary:
        raise UsageError(
            "there is no standby: callers would meet the previous bundle for a moment",
            next_step="sidrec serve --standby, or sidrec rollback drill --on-primary where that may be",
        )
    if present.revision.experiment is not None:
        raise UsageError(
            f"experiment {present.revision.experiment} runs: its users would meet another arm",
            next_step="sidrec serve --standby, or drill once it is over",
        )
    return "primary", str(state["grpc"])


def _record(book: Ledger, present: LedgerRow, who: str, why: str, measured: dict[str, float]) -> LedgerRow:
    with book.writing() as writer:
        return writer.append(
            "drill", who=who, why=why, revision=present.revision, verdicts=present.verdicts, measured=measured
        )
