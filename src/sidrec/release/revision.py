"""A revision: the immutable document that says which bundle answers whom, and how.

One revision is one version of the served model. Nothing in it changes; a change is the next revision.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from sidrec.bundle import Bundle
from sidrec.clock import ClockMode
from sidrec.decoding.exploration import Exploration
from sidrec.exclusion import Exclusion
from sidrec.release.buckets import buckets, point_of

SCHEMA_VERSION: Final = 1
SHADOW: Final = "shadow"
"""What the log calls the shadow; no arm may have this name."""
_LATER = ("plan", "exclusion", "exploration")


class BundleRef(BaseModel):
    """Exactly one bundle: the id that people read and the full hash that binds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle_id: str = Field(pattern=r"^b-[0-9a-f]{12}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _id_is_of_the_hash(self) -> Self:
        if not self.sha256.startswith(self.bundle_id.removeprefix("b-")):
            raise ValueError(f"bundle_id {self.bundle_id} is not the address of {self.sha256}")
        return self

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return the reference to an opened bundle."""
        return cls(bundle_id=bundle.bundle_id, sha256=bundle.sha256)


class Arm(BaseModel):
    """One bundle and the share of users that it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    bundle: BundleRef
    share: float = Field(ge=0, le=1)


class Revision(BaseModel):
    """Which arms answer, with what budget, on which clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    revision: int = Field(ge=1, description="Version of the served model; never used twice.")
    arms: tuple[Arm, ...] = Field(min_length=1, description="The first is the champion (control).")
    experiment: str | None = Field(None, description="Name of the experiment; needed for more than one arm.")
    salt: str = Field(description="Keeps one experiment's buckets independent of another's.")
    beam_width: int | None = Field(None, ge=1, description="Decode budget; None takes the bundle's own.")
    deadline_ms: int = Field(ge=1, description="Budget of a request; nearer than half of it, fewer beams.")
    history_deadline_ms: int = Field(ge=1, description="A feature read that takes longer is a cold answer.")
    history_max_age_days: int = Field(ge=1, description="An older feature row is stale: the answer is cold.")
    exposure_flush_s: float = Field(gt=0)
    clock: ClockMode
    shadow: BundleRef | None = Field(None, description="Also decodes each request; its answer is logged, never sent.")
    plan: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the experiment's frozen plan."
    )
    exclusion: Exclusion | None = Field(default=None, description="Whom the experiment may have; None is everybody.")
    exploration: Exploration | None = Field(default=None, description="Users whose answers are drawn; None is nobody.")

    @model_serializer(mode="wrap")
    def _say_only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A document from before these fields keeps its bytes, and with them its hash in the ledger.
        value: dict[str, Any] = handler(self)
        return {name: one for name, one in value.items() if one is not None or name not in _LATER}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = math.fsum(arm.share for arm in self.arms)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of a revision's arms sum to 1, these sum to {total:.6g}")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms have names of their own, seen {', '.join(names)}")
        if SHADOW in names:
            raise ValueError(f"{SHADOW!r} is no arm's name: the log says so of what was never sent")
        if len(self.arms) > 1 and not self.experiment:
            raise ValueError(f"{len(self.arms)} arms belong to an experiment; name it")
        return self

    @property
    def bundle_ids(self) -> tuple[str, ...]:
        """Ids of the arms' bundles, champion first, then the shadow's; each once."""
        return tuple(dict.fromkeys(ref.bundle_id for ref in self.bundles))

    @property
    def bundles(self) -> tuple[BundleRef, ...]:
        """References to every bundle that this revision loads."""
        shadow = () if self.shadow is None else (self.shadow,)
        return (*(arm.bundle for arm in self.arms), *shadow)

    @property
    def contents_sha256(self) -> str:
        """Hex SHA-256 of everything but the number: equal for a revision and a rollback to it."""
        text = json.dumps(self.model_dump(mode="json", exclude={"revision"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def renumbered(self, revision: int) -> Self:
        """Return the same contents under another number."""
        return type(self).model_validate({**self.model_dump(), "revision": revision})


def single_arm(revision: int, bundle: Bundle) -> Revision:
    """Return the revision in which one bundle answers everybody, served as its recipe says."""
    recipe = bundle.recipe
    serving = recipe.serving
    return Revision(
        revision=revision,
        arms=(Arm(name="champion", bundle=BundleRef.of(bundle), share=1.0),),
        experiment=None,
        salt="champion",
        beam_width=None,
        deadline_ms=serving.deadline_ms,
        history_deadline_ms=serving.history_deadline_ms,
        history_max_age_days=recipe.features.max_age_days,
        exposure_flush_s=serving.exposure_flush_s,
        clock=serving.clock,
        shadow=None,
    )


def arm_for(user_id: str, salt: str, arms: Sequence[Arm]) -> Arm:
    """Return the arm that answers this user: the same one for ever under one salt and one set of shares.

    Only the salted hash of the id decides; `buckets` says which part of its range is whose. `assign` is what the server
    and everything offline ask: a revision may also keep users out of its experiment.
    """
    return arms[buckets(tuple(arm.share for arm in arms)).arm_at(point_of(user_id, salt))]


class Assignment(NamedTuple):
    """What a revision does with a user."""

    arm: Arm
    counts: bool
    """Whether the user is one of the experiment's."""
    explores: bool
    """Whether the answers are drawn."""


def assign(user_id: str, revision: Revision) -> Assignment:
    """Return the arm that answers a user, and whether they count in its experiment; the one rule, online and offline.

    Who explores, or stands outside the experiment's piece of its exclusion group, gets the champion and does not
    count.
    """
    champion, exploration, exclusion = revision.arms[0], revision.exploration, revision.exclusion
    if exploration is not None and point_of(user_id, f"{revision.salt}/exploration") < exploration.share:
        return Assignment(champion, counts=False, explores=True)
    if exclusion is not None and not exclusion.holds(point_of(user_id, exclusion.salt)):
        return Assignment(champion, counts=False, explores=False)
    return Assignment(arm_for(user_id, revision.salt, revision.arms), counts=True, explores=False)
