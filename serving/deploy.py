"""Makes Triton serve what the ledger asks for, without a failed request.

The ledger is the desired state; this writes the revision's version, lets the running server load it beside the old
one, asks it the golden requests, and only then records that it is live. A revision that does not load or answers
wrong leaves the old one serving. A standby goes first: what it refuses never reaches the server that is asked.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving import registry
from serving.state import read_admin_key, read_state, servers_of
from serving.triton import repository
from serving.triton.golden import check_wire
from serving.triton.server import load
from sidrec import contract, files, home
from sidrec.bundle import open_bundle
from sidrec.client import RecommendClient, UnavailableError
from sidrec.data.catalog import Catalog
from sidrec.errors import LedgerUnreachableError, ServingError, SidrecError
from sidrec.process import exclusive
from sidrec.release.ledger import Ledger, LedgerRow, decisions
from sidrec.release.promotion import authorise
from sidrec.release.revision import BundleRef, Revision
from sidrec.release.verdict import check_verdict

log = logging.getLogger(__name__)

_LOAD_S = 180.0
_BUSY_S = 300.0
_HEAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment found and did."""

    revision: int
    bundle_ids: tuple[str, ...]
    previous: int | None
    live: bool
    golden: int
    pruned: tuple[int, ...]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def deploy(*, who: str = "deploy", ledger: Ledger | None = None) -> Deployment:
    """Return how Triton came to match the ledger's desired revision.

    With no server running the repository is prepared, and `sidrec serve` does the rest.

    Raises:
        ServingError: nothing was ever promoted, or the revision does not load or answers wrong; the one before
            serves on.
        VerdictError: the verdict does not let this bundle serve.
        BundleError: a bundle does not verify.
    """
    book = ledger or Ledger()
    with exclusive(home.serving_dir() / "deploy.lock", "a deployment", wait_s=_BUSY_S):
        revision = prepare(book)
        state = read_state()
        root = home.triton_repository_dir()
        previous = repository.pointed_to(root)
        if state is None or state["health"] == "starting":
            repository.point_to(root, revision.revision)
            sentence = f"revision {revision.revision} is in the repository; no server runs, sidrec serve will load it"
            return Deployment(revision.revision, revision.bundle_ids, previous, False, 0, (), sentence)
        urls = [server["grpc"] for server in reversed(servers_of(state))]
        answered = switch(root, revision, previous, urls, admin_key=read_admin_key())
        where = " and ".join(reversed(urls))
        book.record_live(revision, who=who, why=f"{answered} golden requests answered by {where}")
        pruned = tuple(repository.prune(root))
        sentence = f"revision {revision.revision} is live at {where}: {answered} golden requests answered"
        return Deployment(revision.revision, revision.bundle_ids, previous, True, answered, pruned, sentence)


def prepare(ledger: Ledger) -> Revision:
    """Return the desired revision, after its version is in the repository; what is served does not change.

    Raises:
        ServingError: nothing was ever promoted.
        VerdictError: a verdict does not let its bundle serve.
        BundleError: a bundle does not verify.
    """
    rows = ledger.rows()
    row = _desired_row(ledger, rows)
    write(row, rows)
    return row.revision


def write(row: LedgerRow, rows: Sequence[LedgerRow]) -> None:
    """Put the version of a row into the repository, from what lies there where it does, else from the registry."""
    root = home.triton_repository_dir()

    def export(ref: BundleRef, target: Path, verdict: Path) -> None:
        named = row.verdicts.get(ref.bundle_id)
        for held_bundle, held_verdict in repository.held(root, ref):
            if files.sha256_file(held_verdict) == named:
                shutil.copytree(held_bundle, target)
                shutil.copyfile(held_verdict, verdict)
                return
        registry.export(ref.bundle_id, target)
        shutil.copyfile(registry.verdict_path(ref.bundle_id, named), verdict)

    repository.write_version(root, row.revision, export, lambda bundle, path: authorise(bundle, path, row, rows))


def prepare_start(ledger: Ledger) -> Revision:
    """Return what a server that starts is to serve, after its version is in the repository.

    That is the desired revision; where the ledger's database does not answer, the one that was served last here, for a
    restart must not wait for a database. The next deployment makes good what was decided meanwhile.

    Raises:
        LedgerUnreachableError: it does not answer, and nothing was served here before.
        SidrecError: as `prepare`; or what was served last does not verify any more.
    """
    try:
        return prepare(ledger)
    except LedgerUnreachableError as error:
        root = home.triton_repository_dir()
        number = repository.pointed_to(root)
        if number is None:
            raise
        version = root / contract.MODEL_NAME / str(number)
        revision = repository.read_revision(version)
        for ref in revision.bundles:
            check_verdict(repository.verdict_file(version, ref), repository.version_bundle(version, ref), fresh=False)
        log.warning("event=ledger_unreachable serving=%d reason=%r", number, error.message)
        return revision


def confirm_live(revision: Revision, *, urls: Sequence[str], who: str, ledger: Ledger | None = None) -> int:
    """Record that servers just started serve `revision`, after they answered the golden requests; return how many.

    Raises:
        ServingError: an answer breaks its rule.
    """
    answered = sum(_golden(home.triton_repository_dir(), revision, url) for url in urls)
    why = f"{answered} golden requests answered by {' and '.join(urls)}"
    try:
        (ledger or Ledger()).record_live(revision, who=who, why=why)
    except LedgerUnreachableError as error:
        log.warning("event=live_not_recorded revision=%d reason=%r", revision.revision, error.message)
    return answered


def _desired_row(ledger: Ledger, rows: Sequence[LedgerRow]) -> LedgerRow:
    decided = decisions(rows)
    if not decided:
        raise ServingError(
            "nothing was promoted yet, so there is nothing to serve",
            evidence=ledger.path,
            next_step="sidrec run, then sidrec promote BUNDLE --first --reason '…'",
        )
    return decided[-1]


def switch(root: Path, revision: Revision, previous: int | None, urls: Sequence[str], *, admin_key: str) -> int:
    """Load the revision while the old one serves, and return how many golden requests were answered.

    Raises:
        ServingError: it does not load or answers wrong; every server was sent back to `previous`.
    """
    repository.point_to(root, revision.revision)
    try:
        return sum(_load(root, revision, url, admin_key) for url in urls)
    except SidrecError as error:
        if previous is None or previous == revision.revision:
            raise
        repository.point_to(root, previous)
        for url in urls:
            with contextlib.suppress(ServingError):  # one that is gone starts with what the config says
                load(url, admin_key, timeout_s=_LOAD_S)
        raise ServingError(
            f"revision {revision.revision} was refused, revision {previous} serves on: {error.message}",
            evidence=error.evidence or home.serving_dir() / "triton.log",
            next_step="sidrec rollback --reason '…' makes the ledger agree",
        ) from error


def _load(root: Path, revision: Revision, url: str, admin_key: str) -> int:
    """Make one server serve the revision and return how many golden requests it answered.

    A server that dies meanwhile, or is being healed, is asked again: it starts with what the config says now, so that
    going back works while the revision before keeps dying.
    """
    deadline = time.monotonic() + _HEAL_S
    restarts = _restarts(url)
    while True:
        while _health(url) == "healing" and _restarts(url) <= restarts + 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            load(url, admin_key, timeout_s=_LOAD_S)
            return _golden(root, revision, url)
        except UnavailableError:
            # The first restart is of what died; one more, and it does not start with what the config says now.
            if time.monotonic() > deadline or _restarts(url) > restarts + 1:
                raise
            time.sleep(0.5)


def _health(url: str) -> str | None:
    found = _server(url)
    return None if found is None else str(found["health"])


def _restarts(url: str) -> int:
    found = _server(url)
    return 0 if found is None else int(found["restarts"])


def _server(url: str) -> dict[str, Any] | None:
    state = read_state()
    return None if state is None else next((own for own in servers_of(state) if own["grpc"] == url), None)


def _golden(root: Path, revision: Revision, url: str) -> int:
    version = root / contract.MODEL_NAME / str(revision.revision)

    def catalog_of(bundle_id: str) -> tuple[Catalog, int]:
        bundle = open_bundle(version / "bundles" / bundle_id, verify=False)
        return Catalog.read(bundle.path("catalogue.parquet")), int(bundle.decode["as_of_time"])

    with RecommendClient(url, timeout_s=10.0, retries=0) as client:
        return len(check_wire(client.recommend, revision, catalog_of))
