"""Whatever is altered between ledger and server is found by `verify` and by the next start, by name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import registry
from serving.audit import audit
from serving.deploy import deploy, prepare, prepare_start
from serving.triton.repository import read_revision, version_bundle
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.errors import LedgerUnreachableError, SidrecError, VerdictError
from sidrec.release.ledger import Ledger
from sidrec.release.promotion import promote
from tests.release_world import make_signed
from tests.serving.world import make_bundle


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a revision in Triton's repository, as it was deployed."""
    bundle = make_bundle(tmp_path / "made")
    make_signed(bundle, tmp_path / "verdict.json")
    registry.register(bundle.folder, tmp_path / "verdict.json")
    path = registry.verdict_path(bundle.bundle_id)
    promote(bundle, path, why="test", who="ann")
    deploy()
    return home.triton_repository_dir() / "recommend" / "1"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _another(version: Path) -> None:
    path = version / "revision.json"
    path.write_text(path.read_text().replace('"deadline_ms": 2', '"deadline_ms": 9', 1))
    assert '"deadline_ms": 9' in path.read_text()


ALTERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bundle's bytes": (lambda version: _flip(next(version.glob("bundles/*/weights*"))), "weights.safetensors"),
    "a bundle's manifest": (lambda version: _flip(next(version.glob("bundles/*/manifest.json"))), "manifest.json"),
    "a bundle's file lost": (lambda version: next(version.glob("bundles/*/decode.json")).unlink(), "decode.json"),
    "a verdict": (lambda version: _flip(next(version.glob("verdicts/*.json"))), "b-.*json"),
    "a revision's value": (_another, "revision.json"),
    "a revision cut short": (lambda version: (version / "revision.json").write_text("{"), "revision.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_what_is_altered_is_named(version: Path, what: str) -> None:
    """Both name the file; and the ledger, which was not touched, still verifies."""
    alter, named = ALTERED[what]
    rows = Ledger().rows()
    assert list(audit(rows)) == [1]
    alter(version)

    for check in (lambda: list(audit(rows)), lambda: prepare(Ledger())):
        with pytest.raises(SidrecError) as caught:
            check()
        assert re.search(named, f"{caught.value.message} {caught.value.evidence}")
    assert Ledger().rows() == rows


def test_a_server_loads_no_bundle_but_the_one_that_its_revision_binds(version: Path, tmp_path: Path) -> None:
    """Another sound bundle under the bound one's name is refused where the server opens it."""
    [ref] = read_revision(version).bundles
    other: Bundle = make_bundle(tmp_path / "other", newest=50)
    folder = version / "bundles" / ref.bundle_id
    folder.rename(tmp_path / "aside")
    other.folder.rename(folder)

    with pytest.raises(SidrecError, match=f"the revision binds {ref.sha256}"):
        version_bundle(version, ref)


@pytest.fixture
def unreachable(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A team's ledger whose database does not answer, where a revision was served before."""
    monkeypatch.setenv("SIDREC_LEDGER_URL", f"postgresql+psycopg://ann@/ledger?host={tmp_path}")
    return Ledger()


def test_a_server_starts_while_the_ledger_does_not_answer(unreachable: Ledger, version: Path) -> None:
    """With what was served last, bundles and verdicts checked; deploying something else waits for the ledger."""
    assert prepare_start(unreachable) == read_revision(version)
    with pytest.raises(LedgerUnreachableError):
        prepare(unreachable)
    _flip(next(version.glob("verdicts/*.json")))
    with pytest.raises(VerdictError):
        prepare_start(unreachable)


def test_without_a_ledger_nothing_starts_for_the_first_time(unreachable: Ledger, version: Path) -> None:
    """What was never served here is not guessed."""
    version.with_name("config.pbtxt").unlink()

    with pytest.raises(LedgerUnreachableError):
        prepare_start(unreachable)


def test_a_version_that_nobody_asked_for_is_found(version: Path) -> None:
    """A whole revision put beside the others by hand is none of the ledger's."""
    planted = version.with_name("7")
    planted.mkdir()
    (planted / "revision.json").write_text(read_revision(version).renumbered(7).model_dump_json())

    with pytest.raises(SidrecError, match="revision 7 in Triton's repository was never asked for"):
        list(audit(Ledger().rows()))
