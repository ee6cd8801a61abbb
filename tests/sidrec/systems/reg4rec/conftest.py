"""REG4Rec on the tiny world that all systems share."""

from typing import Any

import pytest

from sidrec.systems.config import RepeatConfig
from sidrec.systems.reg4rec.config import (
    Reg4RecAlignmentConfig,
    Reg4RecModelConfig,
    Reg4RecSearchConfig,
    Reg4RecTrainingConfig,
)
from sidrec.systems.reg4rec.train import Reg4RecSystem


def system_of(**change: dict[str, Any]) -> Reg4RecSystem:
    """Return a small system; each section may be changed by name."""
    model = {"dim": 16, "ff_dim": 32, "encoder_layers": 1, "decoder_layers": 1, "num_categories": 8}
    training = {"epochs": 2, "batch_users": 16, "targets_per_basket": 2, "checkpoint_minutes": 60}
    alignment = {"rounds": 2, "users_per_round": 32, "batch_users": 16, "group_size": 8}
    return Reg4RecSystem(
        Reg4RecModelConfig(**model | change.get("model", {})),
        Reg4RecTrainingConfig(**training | change.get("training", {})),
        Reg4RecAlignmentConfig(**alignment | change.get("alignment", {})),
        RepeatConfig(**change.get("repeat", {})),
        Reg4RecSearchConfig(**change.get("search", {})),
    )


@pytest.fixture
def system() -> Reg4RecSystem:
    return system_of()
