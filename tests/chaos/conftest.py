"""A supervised server in this SIDREC_HOME; every chaos test hurts one of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from serving.front import kept
from serving.supervisor import Supervisor
from serving.triton.server import free_port
from sidrec import home
from sidrec.bundle import Bundle
from tests.serving.conftest import publish
from tests.serving.world import make_bundle, make_revision

# What a chaos test may take to heal; the seven seconds are `sidrec bench recover`'s.
CEILING_S = 60.0


@contextmanager
def supervised() -> Iterator[Supervisor]:
    """Run what the repository points to under a supervisor, in a thread of its own, for the body."""
    supervisor = Supervisor(grpc_port=free_port())
    with kept(supervisor, threading.Event()) as wait:
        wait()
        yield supervisor


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Supervisor]]:
    """Return what serves a small bundle, with changes to its revision."""

    @contextmanager
    def start(*, item_id: str = "i{}", instances: int = 1, **changes: object) -> Iterator[Supervisor]:
        bundle: Bundle = make_bundle(tmp_path / "made", item_id=item_id)
        publish(home.triton_repository_dir(), make_revision(1, bundle, **changes), bundle, instances=instances)
        with supervised() as supervisor:
            yield supervisor

    return start
