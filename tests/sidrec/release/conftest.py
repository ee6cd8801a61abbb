"""One PostgreSQL server for the tests of a team's ledger; each takes a database of its own."""

from collections.abc import Iterator

import pytest

from tests.postgres_world import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url
