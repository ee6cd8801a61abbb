"""What tests of releases share: verdicts on a module's bundles, and one PostgreSQL server for a team's ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidrec.bundle import Bundle
from tests.postgres_world import postgres
from tests.release_world import make_signed


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A server of which each test takes a database of its own."""
    with postgres() as url:
        yield url


@pytest.fixture
def verdicts(bundles: list[Bundle], tmp_path: Path) -> list[Path]:
    """A signed verdict that passes for each of the module's `bundles`."""
    paths = [tmp_path / f"{bundle.bundle_id}.json" for bundle in bundles]
    for bundle, path in zip(bundles, paths, strict=True):
        make_signed(bundle, path)
    return paths
