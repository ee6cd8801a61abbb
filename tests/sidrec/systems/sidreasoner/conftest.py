"""One small language model for all tests that do not change it."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from sidrec.systems.sidreasoner.backbone import Backbone, load
from tests.sidrec.systems.sidreasoner.world import MODEL, titled, vocab_of


@pytest.fixture(scope="session")
def backbone(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    catalog = titled(world)
    return load(MODEL, vocab_of(catalog), catalog.titles * 3, tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def lively(backbone: Backbone) -> Backbone:
    """The small model with weights large enough that items differ clearly."""
    model = copy.deepcopy(backbone.model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return replace(backbone, model=model)
