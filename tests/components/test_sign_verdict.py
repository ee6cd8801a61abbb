"""The verdict is what the three gates say, and nothing they were not asked."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.sign_verdict.run import run, still_holds
from sidrec import files, home
from sidrec.bundle import Bundle
from sidrec.errors import BundleError, VerdictError
from sidrec.evaluation.gates import GateResult
from sidrec.recipe import recipe_hash
from sidrec.release.verdict import check_verdict
from tests.release_world import gate, make_bundle, make_signed, recipe


class Case:
    """The inputs of one `sign_verdict` step; every gate passes until one is told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle: Bundle = make_bundle(folder / "packaged")
        self.report: dict[str, Any] = {
            "metrics": {"all": {"ndcg@10": 0.25, "name": "x"}, "novel": {"ndcg@10": 0.04}},
            "gates": [gate("quality").model_dump(mode="json")],
        }
        self.serving: dict[str, Any] = {"gates": [gate("serving").model_dump(mode="json")]}

    def run(self) -> dict[str, Any]:
        evaluation, check = self.folder / "evaluation", self.folder / "serving_check"
        files.write_json_atomic(evaluation / "report.json", self.report)
        files.write_json_atomic(check, self.serving)
        inputs = {"bundle": self.bundle.folder, "evaluation": evaluation, "serving_check": check}
        return run(recipe(), inputs, self.folder)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def dumped(*gates: GateResult) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in gates]


def test_three_passing_gates_pass(case: Case) -> None:
    """All gates pass: a signed pass over this bundle's full hash, with its metrics, recipe and floor."""
    summary = case.run()
    verdict = check_verdict(case.folder / "verdict", case.bundle)

    assert (summary["verdict"], verdict.result) == ("pass", "pass")
    assert [one.gate for one in verdict.gates] == ["codebook", "quality", "serving"]
    assert verdict.metrics == {"all": {"ndcg@10": 0.25}, "novel": {"ndcg@10": 0.04}}
    assert verdict.recipe_sha256 == recipe_hash(recipe())
    assert verdict.floor == "global_popularity"
    assert verdict.expires_at - verdict.created_at == timedelta(days=30)


@pytest.mark.parametrize(
    ("quality", "serving", "expected"),
    [
        ("fail", "pass", "fail"),
        ("inconclusive", "pass", "inconclusive"),
        ("inconclusive", "fail", "fail"),
        ("pass", "inconclusive", "inconclusive"),
    ],
)
def test_the_worst_answer_decides(case: Case, quality: Any, serving: Any, expected: str) -> None:
    """Fail beats inconclusive beats pass; the file is written whatever it says."""
    case.report["gates"] = dumped(gate("quality"), gate("quality", quality, check="other"))
    case.serving["gates"] = dumped(gate("serving", serving))

    assert case.run()["verdict"] == expected
    assert check_verdict(case.folder / "verdict", case.bundle).result == expected


MISSING: list[tuple[Callable[[Case], object], str]] = [
    (lambda case: case.report.pop("gates"), "quality"),
    (lambda case: case.report.update(gates=[]), "quality"),
    (lambda case: case.serving.update(gates=[]), "serving"),
]


@pytest.mark.parametrize(("leave_out", "named"), MISSING)
def test_a_gate_without_an_answer_fails_closed(case: Case, leave_out: Callable[[Case], object], named: str) -> None:
    """A gate that was never asked is a failed one, and the sentence says which."""
    leave_out(case)
    summary = case.run()

    assert summary["verdict"] == "fail"
    assert f"never asked about {named}" in summary["sentence"]


STRANGE: list[tuple[Callable[[Case], object], str]] = [
    (lambda case: case.report.update(gates=dumped(gate("serving"))), "answers for quality, not for"),
    (lambda case: case.report.update(bundle_id="b-000000000000"), "is about b-000000000000"),
    (lambda case: case.serving.update(gates=[{"gate": "serving"}]), "holds no gate results"),
    (lambda case: case.serving.update(gates=[dumped(gate("serving"))[0] | {"result": "ok"}]), "no gate results"),
]


@pytest.mark.parametrize(("spoil", "match"), STRANGE)
def test_answers_of_others_are_refused(case: Case, spoil: Callable[[Case], object], match: str) -> None:
    """An evaluation cannot answer for serving, nor for another bundle, nor in words of its own."""
    spoil(case)

    with pytest.raises(VerdictError, match=match):
        case.run()
    assert not (case.folder / "verdict").exists()


def test_a_changed_bundle_gets_no_verdict(case: Case) -> None:
    """A byte changed between packaging and signing stops the step, and the file is named."""
    path = case.bundle.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        case.run()


def test_an_old_verdict_is_made_again(tmp_path: Path) -> None:
    """The step's result is reused while it is fresh and trusted, not when expired, nor under another key."""
    bundle = make_bundle(tmp_path)
    make_signed(bundle, tmp_path / "verdict")
    fresh = still_holds(tmp_path)
    make_signed(bundle, tmp_path / "verdict", now=datetime.now(UTC) - timedelta(days=31))
    expired = still_holds(tmp_path)
    make_signed(bundle, tmp_path / "verdict")
    for path in home.keys_dir().iterdir():
        path.unlink()
    from sidrec.release import keys

    keys.signing_key()
    rekeyed = still_holds(tmp_path)

    assert (fresh, expired, rekeyed) == (True, False, False)
