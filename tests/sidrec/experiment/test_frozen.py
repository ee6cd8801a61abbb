"""A frozen plan stands: nothing rewrites it, a changed file is found out, and a group's experiments share nobody."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sidrec import files
from sidrec.errors import CheckFailedError, UsageError
from sidrec.exclusion import Exclusion
from sidrec.experiment.frozen import FrozenPlan, freeze, open_frozen, path_of
from tests.experiment_world import plan

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def frozen(*, started: bool = False, replace: bool = False, **changes: Any) -> FrozenPlan:
    return freeze(plan(**changes), who="ann", time=NOW, started=started, replace=replace)


def piece(low: float, high: float, group: str = "checkout") -> Exclusion:
    return Exclusion(group=group, low=low, high=high)


def test_what_is_frozen_comes_back() -> None:
    """Plan, author, digest and salt; the file may only be read."""
    made = frozen()

    assert open_frozen("codes") == made
    assert made.salt == f"codes/{made.sha256[:16]}"
    assert path_of("codes").stat().st_mode & 0o777 == 0o444


def test_freezing_again_changes_nothing() -> None:
    """The same plan keeps its first author and time."""
    first = frozen()

    assert freeze(plan(), who="bob", time=datetime(2027, 1, 1, tzinfo=UTC), started=True) == first


def test_another_plan_takes_its_place_only_before_the_start() -> None:
    """Refused unless asked for, and refused for good once users were exposed; another plan has another salt."""
    first = frozen()
    with pytest.raises(UsageError, match="another plan of experiment codes is frozen"):
        frozen(minimum_effect=0.01)
    second = frozen(minimum_effect=0.01, replace=True)
    with pytest.raises(UsageError, match="has started: a plan does not change"):
        frozen(minimum_effect=0.001, replace=True, started=True)

    assert open_frozen("codes") == second
    assert second.salt != first.salt


def test_a_changed_file_is_found_out() -> None:
    """A least effect that was edited to suit the result does not open."""
    frozen()
    path = path_of("codes")
    value = files.read_json(path)
    value["plan"]["minimum_effect"] = 0.001
    path.chmod(0o644)
    files.write_json_atomic(path, value)

    with pytest.raises(CheckFailedError, match="was changed after it was frozen"):
        open_frozen("codes")


@pytest.mark.parametrize(
    ("theirs", "shared"),
    [
        (piece(0.0, 0.5), True),
        (piece(0.4, 0.6), True),
        (piece(0.5, 1.0), False),
        (piece(0.0, 1.0, group="mail"), False),
    ],
)
def test_experiments_of_one_group_share_no_piece(theirs: Exclusion, shared: bool) -> None:
    """Pieces that overlap are refused and both are named; pieces side by side, or of another group, are not."""
    frozen(exclusion=piece(0.0, 0.5))
    if not shared:
        assert frozen(experiment="beams", exclusion=theirs).plan.exclusion == theirs
        return
    with pytest.raises(UsageError, match=r"experiments beams and codes of group checkout would share users"):
        frozen(experiment="beams", exclusion=theirs)


@pytest.mark.parametrize("name", ["a/b", "..", "", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    """No name leads out of the folder of plans; the one that is not there lists those that are."""
    if name:
        with pytest.raises(UsageError, match="names a folder"):
            frozen(experiment=name)
    frozen()
    with pytest.raises(UsageError, match="there are: codes"):
        open_frozen(name)
