"""Settings files: what is wrong is named by place, and a secret is never repeated."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from sidrec.errors import RecipeError, UsageError
from sidrec.settings import read_settings


class Limits(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(default=7, gt=0)
    address: str = "none"


def test_an_empty_file_says_the_defaults(tmp_path: Path) -> None:
    """So a file of comments is no error."""
    (tmp_path / "limits.yaml").write_text("# nothing yet\n")

    assert read_settings(tmp_path / "limits.yaml", Limits, "limits") == Limits()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("days: 0", "days: Input should be greater than 0"),
        ("dayz: 1\nwords: 2", "dayz: Extra inputs .*; words: Extra inputs"),
        ("- 1", r"limits\.yaml is no limits: limits: Input should be a valid dictionary"),
        ("days: [", r"limits\.yaml is not YAML: while parsing"),
        (None, r"no limits in .*limits\.yaml: No such file"),
    ],
)
def test_every_fault_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    """With the error that the caller wants, and what to do."""
    if text is not None:
        (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(RecipeError, match=said) as error:
        read_settings(tmp_path / "limits.yaml", Limits, "limits", next_step="write them", refused=RecipeError)

    assert error.value.next_step == "write them"


@pytest.mark.parametrize("text", ["address: [hunter2]", "address: {hunter2", "hunter2"])
def test_a_secret_is_not_repeated(tmp_path: Path, text: str) -> None:
    """A fault of a file that may hold one is told by its place alone."""
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        read_settings(tmp_path / "limits.yaml", Limits, "limits", secret=True)

    assert "hunter2" not in str(error.value)
