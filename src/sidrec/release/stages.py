"""The four places a bundle may have, and the revision that puts it there.

Shadow: decodes each request beside the champion and answers nobody. Canary: answers a small share, watched by
guardrails. Challenger: an arm of share 0, or of a given one, for an experiment. Champion: answers everybody.
"""

from sidrec.bundle import Bundle
from sidrec.errors import UsageError
from sidrec.release.revision import Arm, BundleRef, Revision, single_arm
from sidrec.release.row import Stage


def revision_for(stage: Stage, bundle: Bundle, base: Revision | None, number: int, share: float) -> Revision:
    """Return the revision that follows `base` with the bundle in its place.

    Args:
        share: of users, for a canary or a challenger.

    Raises:
        UsageError: there is no champion to stand beside, the bundle has this or a better place already, or an
            experiment runs that it would disturb.
    """
    if stage == "champion":
        return single_arm(number, bundle)
    if base is None:
        raise UsageError(
            f"nothing answers yet, so there is nothing to be {stage} of",
            next_step=f"sidrec promote {bundle.bundle_id} --first --reason '…'",
        )
    ref = BundleRef.of(bundle)
    held = next((arm for arm in base.arms if arm.bundle == ref), None)
    if held is not None:
        raise UsageError(
            f"{bundle.bundle_id} is arm {held.name} of revision {base.revision} already ({held.share:.0%} of users)",
            next_step="sidrec ab ramp changes its share; sidrec promote --to champion gives it everybody",
        )
    if stage == "shadow":
        return base.model_copy(update={"revision": number, "shadow": ref})
    if base.experiment is not None:
        raise UsageError(
            f"experiment {base.experiment} runs; a {stage} beside it would move its users",
            next_step=f"sidrec ab stop {base.experiment} --reason '…', or wait for its end",
        )
    name = f"{stage}-{bundle.bundle_id}"
    arms = (
        base.arms[0].model_copy(update={"share": 1.0 - share}),
        Arm(name=stage, bundle=ref, share=share),
    )
    shadow = None if base.shadow == ref else base.shadow
    # Bucketed on its own: another canary's users are not this one's.
    changes = {"revision": number, "arms": arms, "experiment": name, "salt": name, "shadow": shadow}
    return Revision.model_validate({**base.model_dump(), **{key: _plain(value) for key, value in changes.items()}})


def settled(base: Revision, number: int) -> Revision:
    """Return the revision in which the champion of `base` alone answers, under the same budget, without a shadow."""
    return Revision(
        revision=number,
        arms=(base.arms[0].model_copy(update={"name": "champion", "share": 1.0}),),
        experiment=None,
        salt="champion",
        beam_width=base.beam_width,
        deadline_ms=base.deadline_ms,
        history_deadline_ms=base.history_deadline_ms,
        history_max_age_days=base.history_max_age_days,
        exposure_flush_s=base.exposure_flush_s,
        clock=base.clock,
        shadow=None,
    )


def without_arm(base: Revision, name: str, number: int) -> Revision:
    """Return the revision in which an arm answers nobody: its users are the champion's.

    With its only challenger gone the experiment is over; others go on, and keep their users.
    """
    others = [arm for arm in base.arms[1:] if arm.name != name]
    if not any(arm.share > 0 for arm in others):
        return settled(base, number)
    stopped = next(arm for arm in base.arms if arm.name == name)
    shares = {base.arms[0].name: base.arms[0].share + stopped.share, name: 0.0}
    arms = tuple(arm.model_copy(update={"share": shares.get(arm.name, arm.share)}) for arm in base.arms)
    return base.model_copy(update={"revision": number, "arms": arms})


def answering(revision: Revision) -> frozenset[str]:
    """Return the hashes of the bundles that do something: answer a share of users, or shadow."""
    arms = {arm.bundle.sha256 for arm in revision.arms if arm.share > 0}
    return frozenset(arms | ({revision.shadow.sha256} if revision.shadow else set()))


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [arm.model_dump() for arm in value]
    return value.model_dump() if isinstance(value, BundleRef) else value
