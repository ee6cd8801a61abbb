"""Us or the world: what moved, area by area and arm by arm, and what to suspect first.

Rows are areas in the order in which a fault travels: data, features, semantic IDs, decoder, outcome. Columns are the
arms, `all` (purchases, and what every arm shares), and `offline`: what the reference said of the same measure.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from monitoring.findings import ALL_ARMS, AREAS, LEVELS, Area, DriftVerdict, Finding, Level, Suspect, worst

SCHEMA_VERSION = 1
OFFLINE = "offline"
_MOVED: tuple[Level, ...] = ("warn", "alarm")


@dataclass(frozen=True, slots=True)
class Cell:
    """The worst measure of one area in one arm; under `offline` its reference."""

    area: Area
    column: str
    level: Level | None
    """None under `offline`, which is what the others are judged by."""
    name: str
    effect: float | None
    unit: str
    value: float | None
    n: int
    moved: int
    """Measures of the area that warn or alarm in this arm, of `measures`."""
    measures: int

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Triage:
    """The matrix, the suspects in order, and the answer to the first question."""

    level: Level
    window: str
    reference: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    suspects: tuple[Suspect, ...]
    answer: str
    next_steps: tuple[str, ...]

    def cell(self, area: Area, column: str) -> Cell | None:
        """Return one cell, None where nothing was measured."""
        return next((cell for cell in self.cells if (cell.area, cell.column) == (area, column)), None)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "level": self.level,
            "window": self.window,
            "reference": self.reference,
            "answer": self.answer,
            "columns": list(self.columns),
            "cells": [cell.as_dict() for cell in self.cells],
            "suspects": [suspect.model_dump(mode="json") for suspect in self.suspects],
            "next": list(self.next_steps),
        }


def triage(verdict: DriftVerdict) -> Triage:
    """Return the triage of one verdict."""
    arms = _arms(verdict)
    shared = [ALL_ARMS] if any(finding.arm == ALL_ARMS for finding in verdict.findings) else []
    cells = []
    for area in AREAS:
        own = [finding for finding in verdict.findings if finding.area == area]
        cells += [_cell(area, column, of) for column in (*shared, *arms) if (of := _of(own, column))]
        if own:
            cells.append(_offline(area, own))
    return Triage(
        level=verdict.level,
        window=verdict.window,
        reference=verdict.reference,
        columns=(*shared, *arms, OFFLINE),
        cells=tuple(cells),
        suspects=verdict.suspects,
        answer=_answer(verdict, arms),
        next_steps=tuple(_next(verdict, arms)),
    )


def alarming_arms(verdict: DriftVerdict) -> tuple[str, ...]:
    """Return the arms that alarm while another arm was measured and is flat: those that may be stopped by drift."""
    arms = _arms(verdict)
    flat = [arm for arm in arms if _state(verdict, arm) == "ok"]
    return tuple(arm for arm in arms if _state(verdict, arm) == "alarm" and flat)


def _arms(verdict: DriftVerdict) -> list[str]:
    named = dict.fromkeys([*verdict.bundle_ids, *(finding.arm for finding in verdict.findings)])
    return [arm for arm in named if arm != ALL_ARMS]


def _of(found: Iterable[Finding], arm: str) -> list[Finding]:
    return [finding for finding in found if finding.arm == arm]


def _cell(area: Area, column: str, found: list[Finding]) -> Cell:
    shown = max(found, key=_severity)
    return Cell(
        area=area,
        column=column,
        level=shown.level,
        name=shown.name,
        effect=shown.effect,
        unit=shown.unit,
        value=shown.value,
        n=shown.n,
        moved=sum(finding.level in _MOVED for finding in found),
        measures=len(found),
    )


def _offline(area: Area, found: list[Finding]) -> Cell:
    shown = max(found, key=_severity)
    return Cell(area, OFFLINE, None, shown.name, None, shown.unit, shown.reference_value, shown.reference_n, 0, 0)


def _severity(finding: Finding) -> tuple[int, float]:
    """Return what orders findings: the level, then how many times its limit the effect is."""
    over = finding.effect / finding.threshold if finding.effect is not None and finding.threshold else 0.0
    return LEVELS.index(finding.level), over


def _state(verdict: DriftVerdict, arm: str) -> Level:
    return worst([finding.level for finding in _of(verdict.findings, arm)])


def _answer(verdict: DriftVerdict, arms: list[str]) -> str:
    states = {arm: _state(verdict, arm) for arm in arms}
    moved = [arm for arm, state in states.items() if state in _MOVED]
    flat = [arm for arm, state in states.items() if state == "ok"]
    world = _state(verdict, ALL_ARMS) in _MOVED
    if not moved:
        if world:
            measured = "the answers did not" if flat else "the answers have too few rows to tell"
            return f"The world: what is bought moved, {measured}."
        return "Nothing moved." if verdict.level == "ok" else "Too few rows to tell."
    if flat:
        return f"Us: only {', '.join(moved)} moved, {', '.join(flat)} is flat. Suspect the bundle, not the users."
    if len(arms) == 1:
        by = (
            "what is bought moved too, so begin with the world"
            if world
            else "what is bought did not move, so begin here"
        )
        return f"One arm answers everybody, so arms tell nothing; {by}."
    if len(moved) < len(arms):
        return f"{', '.join(moved)} moved; the other arms have too few rows to compare with."
    shared = "the data first" if world else "features and catalogue first"
    return f"Every arm moved alike: what they share, {shared}, before any bundle."


def _next(verdict: DriftVerdict, arms: list[str]) -> Iterable[str]:
    for arm in alarming_arms(verdict):
        if arms and arm != arms[0]:
            yield f"sidrec drift triage --stop {arm}"
        else:
            yield "sidrec rollback --reason '…'"
    if any(suspect.area == "data" and suspect.level == "alarm" for suspect in verdict.suspects):
        yield "sidrec drift triage --queue-retrain"
    if verdict.level == "insufficient":
        yield "sidrec status"
    yield "sidrec ledger show"
