"""A verdict: what the three gates found about exactly one bundle, signed.

Deny by default: a verdict that is absent, unsigned, altered, expired, of another bundle, or that lacks one of the
three gates lets nothing pass.
"""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.errors import VerdictError
from sidrec.evaluation.gates import GateResult, overall
from sidrec.release import keys

SCHEMA_VERSION: Final = 1
Result = Literal["pass", "fail", "inconclusive"]
GateName = Literal["codebook", "quality", "serving"]
GATES: tuple[GateName, ...] = get_args(GateName)
# Signed beside the content, so that this signature can never stand for another kind of document.
_PURPOSE = b"sidrec verdict 1\n"
_ENVELOPE_KEYS = {"schema_version", "verdict", "key_id", "signature"}


class Verdict(BaseModel):
    """Every gate's answer about one bundle, and the sentence that sums them up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    bundle_id: str
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="The signature binds this, not the short id.")
    kind: str = Field(description="The system in the bundle.")
    result: Result
    sentence: str
    gates: tuple[GateResult, ...]
    metrics: dict[str, dict[str, float]] = Field(description="The bundle's own, by row set: all, novel.")
    floor: str = Field(description="Baseline that the recipe sets as the floor.")
    champion: str | None = Field(None, description="bundle_id that the quality gate compared with.")
    recipe_name: str
    recipe_sha256: str
    git_sha: str
    versions: dict[str, str]
    created_at: datetime
    expires_at: datetime = Field(description="Later than this, the data has moved on: judge the bundle again.")

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that said no."""
        return tuple(gate for gate in self.gates if gate.result == "fail")


def make_verdict(
    bundle: Bundle,
    gates: Sequence[GateResult],
    *,
    metrics: dict[str, dict[str, float]],
    champion: str | None,
    fresh_days: int,
    recipe_sha256: str,
    git_sha: str,
    versions: dict[str, str],
    now: datetime | None = None,
) -> Verdict:
    """Return the verdict of these gates over this bundle; a gate without any answer makes it a fail."""
    created = (now or datetime.now(UTC)).replace(microsecond=0)
    recipe = bundle.recipe
    return Verdict(
        bundle_id=bundle.bundle_id,
        bundle_sha256=bundle.sha256,
        kind=recipe.kind,
        result=join_gates(gates),
        sentence=sentence(bundle.bundle_id, gates, recipe.gates.floor),
        gates=tuple(gates),
        metrics=metrics,
        floor=recipe.gates.floor,
        champion=champion,
        recipe_name=recipe.name,
        recipe_sha256=recipe_sha256,
        git_sha=git_sha,
        versions=versions,
        created_at=created,
        expires_at=created + timedelta(days=fresh_days),
    )


def join_gates(gates: Iterable[GateResult]) -> Result:
    """Return fail if a gate failed or one of the three gave no answer, else inconclusive if any was, else pass."""
    answers = list(gates)
    return "fail" if missing_gates(answers) else overall(answers)


def missing_gates(gates: Iterable[GateResult]) -> list[GateName]:
    """Return which of the three gates gave no answer."""
    answered = {gate.gate for gate in gates}
    return [name for name in GATES if name not in answered]


def sentence(bundle_id: str, gates: Sequence[GateResult], floor: str) -> str:
    """Return one sentence a release owner can act on; the gate that decides speaks for itself."""
    result = join_gates(gates)
    passed = sum(gate.result == "pass" for gate in gates)
    missing = missing_gates(gates)
    if missing:
        return f"Fail: {bundle_id} was never asked about {' or '.join(missing)}; a missing gate is a failed one."
    if result == "pass":
        quality = next(gate for gate in gates if gate.gate == "quality")
        return f"Pass: {bundle_id} passed all {passed} checks against the floor {floor}; {quality.sentence}"
    deciding = [gate for gate in gates if gate.result == result]
    word = "Fail" if result == "fail" else "Inconclusive"
    reasons = " ".join(f"[{gate.gate}/{gate.name}] {gate.sentence}" for gate in deciding)
    return f"{word}: {bundle_id} passed {passed} of {len(gates)} checks. {reasons}"


def sign_verdict(verdict: Verdict, path: Path) -> None:
    """Write the verdict and its signature as one JSON file.

    Raises:
        VerdictError: a number in it is not finite, so the JSON would not read back as it was signed.
    """
    for gate in verdict.gates:
        numbers = [gate.threshold, gate.observed, *(gate.interval or ()), *gate.slices.values()]
        if not all(math.isfinite(number) for number in numbers):
            raise VerdictError(f"gate {gate.gate}/{gate.name} holds a number that is not finite: {gate.sentence}")
    body = verdict.model_dump(mode="json")
    key = keys.signing_key()
    signature = key.sign(_message(body))
    envelope = {
        "schema_version": SCHEMA_VERSION,
        "verdict": body,
        "key_id": keys.key_id(key.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }
    files.write_json_atomic(path, envelope)


def read_verdict(path: Path) -> Verdict:
    """Return a verdict whose signature holds; it may be a failing or an old one, of any bundle.

    Raises:
        VerdictError: there is none, it is unsigned, altered, of another key or schema, or contradicts its own gates.
    """
    if not path.is_file():
        raise VerdictError(f"no verdict at {path}", evidence=path, next_step="sidrec run")
    try:
        envelope = json.loads(path.read_bytes())
    except ValueError as error:
        raise VerdictError(f"{path.name} does not parse: {error}", evidence=path) from error
    if not isinstance(envelope, dict) or "signature" not in envelope:
        raise VerdictError("the verdict is not signed", evidence=path, next_step="sidrec run")
    if envelope.get("schema_version") != SCHEMA_VERSION or set(envelope) != _ENVELOPE_KEYS:
        raise VerdictError(
            f"the verdict has schema_version {envelope.get('schema_version')!r} and fields {sorted(envelope)},"
            f" this sidrec reads {SCHEMA_VERSION} and {sorted(_ENVELOPE_KEYS)}",
            evidence=path,
        )
    _check_signature(envelope, path)
    try:
        verdict = Verdict.model_validate(envelope["verdict"])
    except ValidationError as error:
        raise VerdictError(f"the verdict is signed but no verdict: {error}", evidence=path) from error
    if verdict.result != join_gates(verdict.gates):
        raise VerdictError(
            f"the verdict says {verdict.result}, its gates say {join_gates(verdict.gates)}", evidence=path
        )
    return verdict


def check_verdict(path: Path, bundle: Bundle, *, now: datetime | None = None, fresh: bool = True) -> Verdict:
    """Return the verdict if it is signed, of exactly this bundle and fresh; what it says is the caller's to judge.

    Args:
        fresh: False accepts an expired one: what was promoted while fresh may be started again later.

    Raises:
        VerdictError: any of these does not hold.
    """
    verdict = read_verdict(path)
    if (verdict.bundle_id, verdict.bundle_sha256) != (bundle.bundle_id, bundle.sha256):
        raise VerdictError(
            f"the verdict is about {verdict.bundle_id} ({verdict.bundle_sha256[:16]}…),"
            f" the bundle is {bundle.bundle_id} ({bundle.sha256[:16]}…)",
            evidence=path,
            next_step="sidrec run judges this bundle",
        )
    moment = now or datetime.now(UTC)
    if fresh and moment > verdict.expires_at:
        raise VerdictError(
            f"the verdict on {verdict.bundle_id} expired on {verdict.expires_at:%Y-%m-%d %H:%M} UTC",
            evidence=path,
            next_step="sidrec run judges it again on today's data",
        )
    return verdict


def signer(path: Path) -> str:
    """Return the id of the key that a verdict's file names; whether it signed is `read_verdict`'s to say."""
    return str(json.loads(path.read_bytes())["key_id"])


def _check_signature(envelope: dict[str, Any], path: Path) -> None:
    trusted = keys.trusted_keys()
    key = trusted.get(str(envelope["key_id"]))
    if key is None:
        raise VerdictError(
            f"the verdict is signed by key {envelope['key_id']}, this installation trusts {', '.join(trusted)}",
            evidence=path,
            next_step="sidrec keys trust FILE with the signer's public key, if you trust it",
        )
    try:
        key.verify(base64.b64decode(envelope["signature"], validate=True), _message(envelope["verdict"]))
    except (InvalidSignature, ValueError, TypeError) as error:
        raise VerdictError(
            "the verdict was altered after it was signed: the signature does not hold", evidence=path
        ) from error


def _message(body: Any) -> bytes:
    """Return the bytes that are signed: one spelling of the verdict, after what it is for."""
    return _PURPOSE + json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
