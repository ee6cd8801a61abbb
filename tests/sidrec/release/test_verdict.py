"""A verdict lets through exactly what was judged, by whom it was judged, while it is fresh."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.bundle import Bundle
from sidrec.errors import VerdictError
from sidrec.evaluation.gates import GateResult
from sidrec.release import keys
from sidrec.release.verdict import check_verdict, join_gates, read_verdict, sign_verdict
from tests.release_world import GATES, gate, make_bundle, make_signed

RESULTS = ("pass", "fail", "inconclusive")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "made")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdict.json"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    envelope = json.loads(path.read_text())
    change(envelope)
    path.write_text(json.dumps(envelope))


def test_reads_back_as_signed(bundle: Bundle, path: Path) -> None:
    """A signed verdict reads back equal, whatever the layout of the JSON around it."""
    verdict = make_signed(bundle, path)
    edit(path, lambda envelope: None)

    assert check_verdict(path, bundle) == verdict
    assert verdict.result == "pass"
    assert bundle.bundle_id in verdict.sentence


EDITS: list[Callable[[dict[str, Any]], object]] = [
    lambda e: e["verdict"].update(result="pass", sentence="Pass."),
    lambda e: e["verdict"]["gates"][0].update(result="pass"),
    lambda e: e["verdict"]["gates"][1].update(observed=0.51),
    lambda e: e["verdict"]["gates"].pop(),
    lambda e: e["verdict"].update(expires_at="2999-01-01T00:00:00Z"),
    lambda e: e["verdict"].update(bundle_sha256="f" * 64),
    lambda e: e["verdict"].update(extra=1),
    lambda e: e.update(signature=base64.b64encode(bytes(64)).decode()),
    lambda e: e.update(signature="?"),
    lambda e: e.update(signature=7),
    lambda e: e.update(verdict=[]),
]


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_verdict_is_refused(bundle: Bundle, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Any edit after signing is found by the signature."""
    make_signed(bundle, path, [gate("codebook", "fail"), gate("quality"), gate("serving")])
    edit(path, change)

    with pytest.raises(VerdictError, match="altered after it was signed"):
        check_verdict(path, bundle)


def test_an_unsigned_or_absent_verdict_is_refused(bundle: Bundle, path: Path) -> None:
    """No signature, no verdict."""
    with pytest.raises(VerdictError, match="no verdict at"):
        check_verdict(path, bundle)
    make_signed(bundle, path)
    edit(path, lambda envelope: envelope.pop("signature"))
    with pytest.raises(VerdictError, match="not signed"):
        check_verdict(path, bundle)
    path.write_text("{")
    with pytest.raises(VerdictError, match="does not parse"):
        check_verdict(path, bundle)


def test_a_verdict_of_another_bundle_is_refused(bundle: Bundle, path: Path, tmp_path: Path) -> None:
    """A good verdict says nothing about a bundle with other bytes."""
    other = make_bundle(tmp_path / "other", seed=1)
    make_signed(other, path)

    with pytest.raises(VerdictError, match=f"about {other.bundle_id} .* the bundle is {bundle.bundle_id}"):
        check_verdict(path, bundle)


def test_another_signer_is_refused(bundle: Bundle, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict signed with somebody else's key is refused, and both keys are named."""
    trusted = keys.key_id(keys.signing_key().public_key())
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SIDREC_HOME", str(tmp_path / "elsewhere"))
        make_signed(bundle, path)
        stranger = keys.key_id(keys.signing_key().public_key())

    with pytest.raises(VerdictError, match=f"signed by key {stranger}, this installation trusts {trusted}"):
        check_verdict(path, bundle)


def test_a_stranger_who_claims_the_trusted_key_is_refused(
    bundle: Bundle, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's name in the file is only a label."""
    trusted = keys.key_id(keys.signing_key().public_key())
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SIDREC_HOME", str(tmp_path / "elsewhere"))
        make_signed(bundle, path)
    edit(path, lambda envelope: envelope.update(key_id=trusted))

    with pytest.raises(VerdictError, match="altered"):
        check_verdict(path, bundle)


def test_it_expires(bundle: Bundle, path: Path) -> None:
    """A verdict is good until its last second and not after; what was promoted while fresh may still be read."""
    signed = datetime(2020, 1, 1, tzinfo=UTC)
    make_signed(bundle, path, now=signed, fresh_days=30)

    check_verdict(path, bundle, now=signed + timedelta(days=30))
    check_verdict(path, bundle, fresh=False)
    with pytest.raises(VerdictError, match="expired on 2020-01-31"):
        check_verdict(path, bundle, now=signed + timedelta(days=30, seconds=1))
    with pytest.raises(VerdictError, match="expired"):
        check_verdict(path, bundle)


@given(st.lists(st.tuples(st.sampled_from(GATES), st.sampled_from(RESULTS)), max_size=8))
@settings(max_examples=200)
def test_join_agrees_with_the_rule_spelled_out(answers: list[tuple[Any, Any]]) -> None:
    """Pass needs all three gates and nothing but passes; one fail, or one gate missing, is a fail."""
    result = join_gates([gate(name, answer) for name, answer in answers])
    results = [answer for _, answer in answers]
    complete = all(any(name == wanted for name, _ in answers) for wanted in GATES)

    expected = "fail" if not complete or "fail" in results else "inconclusive" if "inconclusive" in results else "pass"
    assert result == expected


@pytest.mark.parametrize("missing", GATES)
def test_a_missing_gate_fails_and_is_named(bundle: Bundle, path: Path, missing: str) -> None:
    """What was never asked is not passed."""
    verdict = make_signed(bundle, path, [gate(name) for name in GATES if name != missing])

    assert verdict.result == "fail"
    assert f"never asked about {missing}" in verdict.sentence


def test_the_sentence_names_the_gate_that_decides(bundle: Bundle, path: Path) -> None:
    """A reader of the sentence knows which check said no and what it saw."""
    gates = [gate("codebook"), gate("quality", "fail", check="beats_global_popularity"), gate("serving")]

    sentence = make_signed(bundle, path, gates).sentence

    assert sentence.startswith(f"Fail: {bundle.bundle_id}")
    assert "quality/beats_global_popularity" in sentence
    assert "quality says fail." in sentence


def test_a_result_that_contradicts_its_gates_is_refused_though_signed(bundle: Bundle, path: Path) -> None:
    """Even the holder of the key cannot sign a pass over a failing gate."""
    verdict = make_signed(bundle, path, [gate("codebook", "fail"), gate("quality"), gate("serving")])
    sign_verdict(verdict.model_copy(update={"result": "pass"}), path)

    with pytest.raises(VerdictError, match="says pass, its gates say fail"):
        read_verdict(path)


@pytest.mark.parametrize(
    "bad", [gate("quality", observed=float("nan")), gate("quality", interval=(float("-inf"), 1.0))]
)
def test_numbers_that_json_cannot_hold_are_refused(bundle: Bundle, path: Path, bad: GateResult) -> None:
    """A gate that observed NaN or an infinity is named, not signed."""
    with pytest.raises(VerdictError, match="quality/check holds a number that is not finite"):
        make_signed(bundle, path, [gate("codebook"), bad, gate("serving")])
    assert not path.exists()
