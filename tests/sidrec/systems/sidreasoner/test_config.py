"""Settings load without torch, refuse what they do not know, and default to the paper's."""

import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from sidrec.systems.sidreasoner import config
from sidrec.systems.sidreasoner.config import (
    SIDReasonerActivationConfig,
    SIDReasonerAlignmentConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
    TeacherConfig,
    TinyConfig,
)

SECTIONS = (
    SIDReasonerActivationConfig,
    SIDReasonerAlignmentConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
    TeacherConfig,
    TinyConfig,
)


def test_settings_need_no_torch() -> None:
    code = f"import {config.__name__}, sys; print({{'torch', 'transformers', 'httpx'}} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_frozen_complete_and_strict(section: type[BaseModel]) -> None:
    """Every value has a default; an unknown key is an error."""
    made = section()
    name = next(iter(section.model_fields))

    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, name, None)
    with pytest.raises(ValidationError, match="Extra inputs"):
        section.model_validate({"unknown": 1})


def test_defaults_are_the_papers() -> None:
    """Those that the acceptance of a faithful run names."""
    alignment = SIDReasonerAlignmentConfig()

    assert SIDReasonerModelConfig().max_history == 10
    assert (SIDReasonerTrainingConfig().learning_rate, SIDReasonerTrainingConfig().epochs) == (3e-4, 10)
    assert (SIDReasonerActivationConfig().learning_rate, SIDReasonerActivationConfig().epochs) == (1e-5, 1)
    assert (alignment.group_size, alignment.kl_weight, alignment.clip, alignment.valid_reward) == (16, 1e-3, 0.2, 0.1)
    assert alignment.learning_rate == 5e-7


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_heads": 3, "num_key_heads": 2}, "not a multiple of num_key_heads"), ({"head_dim": 15}, "odd")],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TinyConfig.model_validate(change)


def test_no_setting_holds_a_key() -> None:
    """The environment does; the settings name the variable."""
    assert [name for name in TeacherConfig.model_fields if "key" in name] == ["api_key_env"]
