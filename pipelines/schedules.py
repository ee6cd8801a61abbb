"""Which recurring runs there ought to be, read from `infra/schedules.yaml`, and what makes those of KFP so.

A recurring run cannot be changed, so another content is another one: its digest stands in its description, and an
equal one is left alone. Runs that we did not make are not ours to touch.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sidrec.errors import UsageError
from sidrec.settings import read_settings

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "infra" / "schedules.yaml"
COMPILED = ROOT / "infra" / "pipelines"
_MARK = "made by `sidrec schedule apply` from infra/schedules.yaml; digest "
_DIGEST = re.compile(re.escape(_MARK) + r"([0-9a-f]{64})")

Action = Literal["create", "replace", "delete", "enable", "disable", "hold", "held", "keep"]


class Schedule(BaseModel):
    """One pipeline with one recipe, at times of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Literal["training", "codebook_refresh"]
    recipe: Path
    cron: str = Field(description="Six fields: second, minute, hour, day of month, month, day of week; UTC.")
    champion: Literal["", "live"] = Field("", description="live: whatever serves when the schedule is applied.")
    enabled: bool = True

    @field_validator("cron")
    @classmethod
    def _six_fields(cls, cron: str) -> str:
        fields = cron.split()
        if len(fields) != 6 or not all(re.fullmatch(r"[0-9A-Za-z*/,?-]+", one) for one in fields):
            raise ValueError(f"KFP's cron has six fields, seconds first; seen {cron!r}")
        return cron


class Schedules(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    hold_after_failures: int = Field(ge=1)
    schedules: dict[str, Schedule]


def load_schedules(path: Path = DEFAULT) -> Schedules:
    """Return the file's schedules.

    Raises:
        UsageError: it is not there, or a value is missing, unknown or impossible.
    """
    return read_settings(path, Schedules, "schedules", next_step="--file infra/schedules.yaml")


@dataclass(frozen=True, slots=True)
class Desired:
    """One recurring run as it ought to be; `digest` covers all of it."""

    name: str
    pipeline_spec: dict[str, Any]
    parameters: dict[str, str]
    cron: str
    enabled: bool

    @property
    def digest(self) -> str:
        """SHA-256 over what a run of it would do, and when."""
        content = {"spec": self.pipeline_spec, "parameters": self.parameters, "cron": self.cron}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def description(self) -> str:
        """What KFP shows, and what this finds again."""
        return _MARK + self.digest


@dataclass(frozen=True, slots=True)
class Actual:
    """One recurring run that KFP has, and how its finished runs ended, newest first."""

    run_id: str
    name: str
    description: str
    enabled: bool
    ended: tuple[bool, ...] = ()

    @property
    def digest(self) -> str | None:
        """Of what it was made from; None for one that is not ours."""
        found = _DIGEST.search(self.description)
        return None if found is None else found.group(1)

    @property
    def failures(self) -> int:
        """How many runs have failed since the last that did not."""
        return next((index for index, ok in enumerate(self.ended) if ok), len(self.ended))


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do, or to know, about a schedule; `run_ids` are those it is about."""

    action: Action
    name: str
    why: str
    run_ids: tuple[str, ...] = ()


def desired(schedules: Schedules, *, champion: str, root: Path = ROOT, compiled: Path = COMPILED) -> list[Desired]:
    """Return the recurring runs that the file asks for.

    Args:
        champion: folder of the bundle that is live, "" for none; a refresh waits until there is one.

    Raises:
        UsageError: a recipe or a compiled pipeline is not there.
    """
    found = []
    for name, one in schedules.schedules.items():
        carried = champion if one.champion == "live" else ""
        waits = one.pipeline == "codebook_refresh" and not carried
        parameters = {"recipe": _read(root / one.recipe, name), "champion": carried}
        documents = list(yaml.load_all(_read(compiled / f"{one.pipeline}.yaml", name), Loader=yaml.CSafeLoader))
        spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]} if documents[1:] else documents[0]
        found.append(Desired(name, spec, parameters, one.cron, one.enabled and not waits))
    return found


def changes(wanted: Sequence[Desired], found: Iterable[Actual], *, hold_after: int) -> list[Change]:
    """Return what makes `found` what is `wanted`; of an equal world, only `keep` and `held`."""
    ours: dict[str, list[Actual]] = {}
    for actual in found:
        if actual.digest is not None:
            ours.setdefault(actual.name, []).append(actual)
    said = [_change(one, ours.pop(one.name, []), hold_after) for one in wanted]
    gone = [Change("delete", name, "not in the file", _ids(actual)) for name, actual in sorted(ours.items())]
    return [change for each in said for change in each] + gone


def _change(wanted: Desired, have: Sequence[Actual], hold_after: int) -> list[Change]:
    if not have:
        return [Change("create", wanted.name, "not there")]
    same = [one for one in have if one.digest == wanted.digest]
    if not same:
        return [Change("replace", wanted.name, "recipe, pipeline, times or champion differ", _ids(have))]
    kept, surplus = same[0], [one for one in have if one is not same[0]]
    more = [Change("delete", wanted.name, "a second one of the same name", _ids(surplus))] if surplus else []
    return [_state(wanted, kept, hold_after), *more]


def _state(wanted: Desired, kept: Actual, hold_after: int) -> Change:
    where = (kept.run_id,)
    if not wanted.enabled:
        action: Action = "disable" if kept.enabled else "keep"
        return Change(action, wanted.name, "the file disables it, or nothing is live to refresh", where)
    if kept.failures >= hold_after:
        action = "hold" if kept.enabled else "held"
        return Change(action, wanted.name, f"its last {kept.failures} runs failed", where)
    return Change("keep", wanted.name, "as the file says", where) if kept.enabled else _enable(wanted, where)


def _enable(wanted: Desired, where: tuple[str, ...]) -> Change:
    return Change("enable", wanted.name, "disabled by hand; the file says otherwise", where)


def _ids(runs: Sequence[Actual]) -> tuple[str, ...]:
    return tuple(run.run_id for run in runs)


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            f"schedule {name}: no file at {path}", next_step="python -m pipelines.compile, or mend infra/schedules.yaml"
        ) from error


def summary(said: Sequence[Change]) -> Mapping[str, int]:
    """Return how many of each action there are."""
    counted: dict[str, int] = {}
    for change in said:
        counted[change.action] = counted.get(change.action, 0) + 1
    return counted
