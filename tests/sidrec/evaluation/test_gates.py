"""The quality gate passes, fails and stays undecided exactly where DESIGN says."""

from typing import Any

import pytest
from pydantic import ValidationError

from sidrec.evaluation.bootstrap import Difference
from sidrec.evaluation.gates import GateResult, champion_gate, floor_gate, overall


def difference(interval: tuple[float, float], relative_interval: tuple[float, float] = (0.0, 0.0)) -> Difference:
    return Difference(
        candidate=0.09,
        reference=0.08,
        mean=0.01,
        interval=interval,
        relative=0.125,
        relative_interval=relative_interval,
        row_sd=0.1,
        n=1171,
    )


@pytest.mark.parametrize(
    ("interval", "result"),
    [((0.0001, 0.02), "pass"), ((0.0, 0.02), "fail"), ((-0.01, 0.02), "fail"), ((-0.02, -0.01), "fail")],
)
def test_floor_gate_needs_the_whole_interval_above_zero(interval: tuple[float, float], result: str) -> None:
    """Only a lower bound above zero passes."""
    gate = floor_gate(difference(interval), metric="novel NDCG@10", floor="ease")

    assert gate.result == result


@pytest.mark.parametrize(
    ("interval", "result"),
    [
        ((-0.029, 0.02), "pass"),
        ((0.01, 0.02), "pass"),
        ((-0.031, 0.02), "inconclusive"),
        ((-0.03, -0.01), "inconclusive"),
        ((-0.05, -0.03), "inconclusive"),
        ((-0.05, -0.031), "fail"),
    ],
)
def test_champion_gate_compares_the_relative_interval_with_delta(interval: tuple[float, float], result: str) -> None:
    """Lower bound above -δ passes, upper bound below -δ fails, the rest is undecided; borders count as undecided."""
    gate = champion_gate(
        difference((0, 0), interval), metric="novel NDCG@10", name="non_inferior", non_inferiority=0.03
    )

    assert gate.result == result


def test_sentence_names_both_values_the_interval_and_the_rows() -> None:
    """A release owner reads the decision without opening another file."""
    gate = floor_gate(difference((0.005, 0.015)), metric="novel NDCG@10", floor="global_popularity")

    assert gate.sentence == (
        "novel NDCG@10 is 0.0900 against 0.0800 of global_popularity: +0.0100 [+0.0050, +0.0150] on 1,171 rows; "
        "the bundle beats the floor."
    )


def gate(result: Any) -> GateResult:
    return GateResult(gate="quality", name="x", result=result, threshold=0, observed=0, n=1, sentence="x")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], "fail"),
        (["pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail", "pass"], "fail"),
    ],
)
def test_worst_gate_decides_and_no_gate_is_a_fail(results: list[str], expected: str) -> None:
    """Deny by default: an empty list of gates never passes."""
    assert overall([gate(result) for result in results]) == expected


def test_gate_result_survives_json() -> None:
    """What a report stores loads back equal, and an unknown key is refused."""
    result = floor_gate(difference((0.005, 0.015)), metric="m", floor="ease", slices={"tail_items": 0.01})

    assert GateResult.model_validate_json(result.model_dump_json()) == result
    with pytest.raises(ValidationError):
        GateResult.model_validate({**result.model_dump(), "extra": 1})
