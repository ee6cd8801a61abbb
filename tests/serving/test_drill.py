"""A drill goes a rollback's way, changes nothing that is asked for, and leaves its seconds in the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import deploy as deployment
from serving import drill as drilling
from serving import registry
from serving.drill import drill
from serving.triton import repository
from sidrec import home
from sidrec.errors import LedgerError, ServingError, UsageError
from sidrec.release.ledger import Ledger
from sidrec.release.promotion import promote
from sidrec.release.revision import Revision
from tests.release_world import make_signed
from tests.serving.world import make_bundle


class Servers:
    """Servers that do what they are told at once; what each was told to load is kept."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"health": "ready", "grpc": "primary:1", "restarts": 0}
        self.state["standby"] = {"health": "ready", "grpc": "standby:1", "restarts": 0}
        self.loaded: list[tuple[str, int | None]] = []
        self.refuses: int | None = None

    def load(self, url: str, key: str, *, timeout_s: float) -> None:
        self.loaded.append((url, repository.pointed_to(home.triton_repository_dir())))

    def golden(self, root: Path, revision: Revision, url: str) -> int:
        if revision.revision == self.refuses:
            raise ServingError("an item stands twice")
        return 6


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    for module in (deployment, drilling):
        monkeypatch.setattr(module, "read_state", lambda: made.state)
        monkeypatch.setattr(module, "read_admin_key", lambda: "key")
    monkeypatch.setattr(deployment, "load", made.load)
    monkeypatch.setattr(deployment, "_golden", made.golden)
    return made


@pytest.fixture
def ask(tmp_path: Path, servers: Servers) -> Callable[..., None]:
    """Promote a new bundle and deploy it."""

    def promote_one(newest: int, **options: Any) -> None:
        bundle = make_bundle(tmp_path / "made", name=f"b{newest}", newest=newest)
        make_signed(bundle, tmp_path / f"{newest}.json")
        registry.register(bundle.folder, tmp_path / f"{newest}.json")
        promote(bundle, registry.verdict_path(bundle.bundle_id), why="test", who="ann", **options)
        deployment.deploy(who="ann")
        servers.loaded.clear()

    return promote_one


def test_a_drill_on_the_standby_meets_no_caller(servers: Servers, ask: Callable[..., None]) -> None:
    """Only the standby goes back and forward; nothing else is asked for, and nothing else was live."""
    ask(0)
    ask(50)
    before = Ledger().rows()
    done = drill(who="ann")
    rows = Ledger().rows()

    assert servers.loaded == [("standby:1", 1), ("standby:1", 2)]
    assert repository.pointed_to(home.triton_repository_dir()) == 2
    assert [row.action for row in rows[len(before) :]] == ["drill"]
    assert rows[-1].measured is not None
    assert rows[-1].measured["ok"] == 1.0
    assert rows[-1].measured["seconds_to_safe"] == done.seconds_to_safe > 0
    assert Ledger().desired() == before[-1].revision
    assert "revision 1 answered its golden requests on the standby" in done.sentence


def test_without_a_standby_it_must_be_wanted(servers: Servers, ask: Callable[..., None]) -> None:
    """Then callers meet the previous bundle for a moment, and `live` says when."""
    ask(0)
    ask(50)
    servers.state["standby"] = None
    with pytest.raises(UsageError, match="there is no standby"):
        drill(who="ann")
    assert servers.loaded == []
    drill(who="ann", on_primary=True)
    rows = Ledger().rows()

    assert servers.loaded == [("primary:1", 1), ("primary:1", 2)]
    assert [(row.action, row.revision.revision) for row in rows[-3:]] == [("live", 1), ("live", 2), ("drill", 2)]


def test_an_experiment_s_users_are_not_moved_by_a_drill(servers: Servers, ask: Callable[..., None]) -> None:
    """On the primary an experiment forbids it; on a standby it does not."""
    ask(0)
    ask(50, to="canary")
    assert drill(who="ann").back_to == 1
    servers.state["standby"] = None

    with pytest.raises(UsageError, match=r"experiment canary-b-.* runs"):
        drill(who="ann", on_primary=True)


def test_a_drill_that_fails_is_written_down(servers: Servers, ask: Callable[..., None]) -> None:
    """The present revision serves on, and the row says that a rollback would have failed, and why."""
    ask(0)
    ask(50)
    servers.refuses = 1
    with pytest.raises(ServingError, match=r"the drill failed, a rollback would have: .* an item stands twice"):
        drill(who="ann")
    row = Ledger().rows()[-1]

    assert servers.loaded[-1] == ("standby:1", 2)
    assert repository.pointed_to(home.triton_repository_dir()) == 2
    assert (row.action, row.measured) == ("drill", {"ok": 0.0})
    assert "an item stands twice" in row.why


def test_there_must_be_something_to_go_back_to(servers: Servers, ask: Callable[..., None]) -> None:
    """With one revision only, with no server, and where servers lag behind the ledger: each says so."""
    ask(0)
    with pytest.raises(LedgerError, match="nothing to drill"):
        drill(who="ann")
    ask(50)
    repository.point_to(home.triton_repository_dir(), 1)
    with pytest.raises(ServingError, match="do not serve what the ledger asks for"):
        drill(who="ann")
    servers.state["health"] = "starting"
    with pytest.raises(ServingError, match="no server is ready"):
        drill(who="ann")
