"""Frozen plans: what an experiment is about, in a file that names its own digest and that nothing rewrites.

`<SIDREC_HOME>/experiments/<experiment>/plan.json`. The experiment's revisions carry the digest and the salt made from
it, so the ledger says which plan they ran under, and a file that was changed afterwards is found out.
"""

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidrec import files, home
from sidrec.errors import CheckFailedError, UsageError
from sidrec.experiment.plan import Plan
from sidrec.process import exclusive

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = "plan.json"


class FrozenPlan(BaseModel):
    """A plan with its digest, and who froze it when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the plan's canonical JSON as it stands in the file.")
    who: str = Field(min_length=1)
    time: datetime
    plan: Plan

    @property
    def salt(self) -> str:
        """Salt of the experiment's arms: another one for every plan."""
        return f"{self.plan.experiment}/{self.sha256[:16]}"


def freeze(plan: Plan, *, who: str, time: datetime, started: bool, replace: bool = False) -> FrozenPlan:
    """Return the plan as it now stands in its file; freezing the same plan again changes nothing.

    Args:
        started: a revision of the experiment is in the ledger.
        replace: put it in the place of another plan of this experiment that has not started.

    Raises:
        UsageError: the name is no file name, another plan of the experiment is frozen, or an experiment of the same
            exclusion group has some of its users.
    """
    if not _NAME.fullmatch(plan.experiment):
        raise UsageError(
            f"experiment {plan.experiment!r} names a folder: expected letters, digits, '.', '_', '-', at most 64"
        )
    with exclusive(home.experiments_dir() / ".lock", "the folder of plans", wait_s=10):
        held = _held(plan.experiment)
        if held is not None:
            if held.plan == plan:
                return held
            _refuse_another(held, started=started, replace=replace)
        _refuse_shared_users(plan)
        value = plan.model_dump(mode="json", exclude_none=True)
        frozen = FrozenPlan(sha256=_digest(value), who=who, time=time, plan=plan)
        path = path_of(plan.experiment)
        files.write_json_atomic(path, {**frozen.model_dump(mode="json", exclude={"plan"}), "plan": value})
        path.chmod(0o444)
        return frozen


def open_frozen(experiment: str) -> FrozenPlan:
    """Return the frozen plan of an experiment, after its digest was found to hold.

    Raises:
        UsageError: none of this name is frozen.
        CheckFailedError: the file was changed.
    """
    found = _held(experiment) if _NAME.fullmatch(experiment) else None
    if found is None:
        known = ", ".join(sorted(path.parent.name for path in _paths())) or "none"
        raise UsageError(
            f"no plan of experiment {experiment!r} is frozen; there are: {known}", next_step="sidrec ab plan FILE"
        )
    return found


def path_of(experiment: str) -> Path:
    """Return the file of an experiment's frozen plan."""
    return home.experiments_dir() / experiment / _FILE


def _held(experiment: str) -> FrozenPlan | None:
    path = path_of(experiment)
    if not path.is_file():
        return None
    try:
        value = files.read_json(path)
        frozen = FrozenPlan.model_validate(value)
    except (ValueError, ValidationError) as error:
        raise CheckFailedError(f"{path.name} of experiment {experiment} does not parse", evidence=path) from error
    if frozen.sha256 != _digest(value["plan"]) or frozen.plan.experiment != experiment:
        raise CheckFailedError(
            f"the plan of experiment {experiment} was changed after it was frozen: its digest {frozen.sha256[:12]} "
            "does not hold",
            evidence=path,
            next_step="restore the file from a copy",
        )
    return frozen


def _refuse_another(held: FrozenPlan, *, started: bool, replace: bool) -> None:
    name = held.plan.experiment
    said = f"another plan of experiment {name} is frozen ({held.sha256[:12]}, {held.time:%Y-%m-%d}, by {held.who})"
    if started:
        raise UsageError(
            f"{said} and has started: a plan does not change once users were exposed",
            evidence=path_of(name),
            next_step="freeze the other plan as an experiment of another name",
        )
    if not replace:
        raise UsageError(said, evidence=path_of(name), next_step="--replace, as long as it has not started")


def _refuse_shared_users(plan: Plan) -> None:
    if plan.exclusion is None:
        return
    others = [_held(path.parent.name) for path in _paths() if path.parent.name != plan.experiment]
    for other in others:
        if other is not None and other.plan.exclusion is not None and plan.exclusion.meets(other.plan.exclusion):
            theirs = other.plan.exclusion
            raise UsageError(
                f"experiments {plan.experiment} and {other.plan.experiment} of group {theirs.group} would share users: "
                f"{plan.exclusion.low:g}..{plan.exclusion.high:g} and {theirs.low:g}..{theirs.high:g}",
                evidence=path_of(other.plan.experiment),
                next_step="take a piece that no experiment of the group ever had, or another group",
            )


def _paths() -> list[Path]:
    return sorted(home.experiments_dir().glob(f"*/{_FILE}"))


def _digest(plan: Any) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
