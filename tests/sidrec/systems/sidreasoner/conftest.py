"""One small language model for all tests that do not change it."""

from typing import Any

import pytest

from sidrec.systems.sidreasoner.backbone import Backbone, load
from tests.sidrec.systems.sidreasoner.world import MODEL, titled, vocab_of


@pytest.fixture(scope="session")
def backbone(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    catalog = titled(world)
    return load(MODEL, vocab_of(catalog), catalog.titles * 3, tmp_path_factory.mktemp("tiny"), seed=0)
