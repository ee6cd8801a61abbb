"""Whether a revision may follow another within one experiment: who was treated stays treated, by the same bundle.

Stopping an arm (share 0, or gone) sends its users to the champion; that is an end, not a ramp, and always allowed.
"""

from itertools import pairwise
from math import fsum

from sidrec.errors import UsageError
from sidrec.release.buckets import ROUNDING, Buckets, buckets
from sidrec.release.revision import Revision


def check_ramp(before: Revision, after: Revision) -> None:
    """Refuse a revision of the same experiment that moves a user out of an arm that goes on, or changes what it is.

    A revision without the experiment, or of another one, is not a ramp and passes.

    Raises:
        UsageError: another salt, plan, exclusion or exploration, another bundle behind an arm's name, or users who
            would change arms; it says how many.
    """
    if before.experiment is None or before.experiment != after.experiment:
        return
    if before.salt != after.salt:
        raise UsageError(
            f"experiment {after.experiment} has salt {before.salt!r}, this revision has {after.salt!r}: every user "
            "would be drawn anew",
            next_step="keep the salt, or start another experiment under another name",
        )
    if before.plan != after.plan:
        raise UsageError(
            f"experiment {after.experiment} began under the plan {digits(before.plan)}, this revision has "
            f"{digits(after.plan)}: a plan does not change once users were exposed",
            next_step="put the plan back, or start another experiment with the other one",
        )
    if (before.exclusion, before.exploration) != (after.exclusion, after.exploration):
        raise UsageError(
            f"experiment {after.experiment} draws its users from another part of everybody in this revision: "
            "who was in it would leave it, or come back",
            next_step="keep exclusion and exploration as they are while an experiment runs",
        )
    bundles = {arm.name: arm.bundle for arm in before.arms}
    if other := [arm for arm in after.arms if arm.share > 0 and bundles.get(arm.name, arm.bundle) != arm.bundle]:
        arm = other[0]
        raise UsageError(
            f"arm {arm.name} of experiment {after.experiment} is {bundles[arm.name].bundle_id}, this revision makes it "
            f"{arm.bundle.bundle_id}: one arm would be two things",
            next_step="start another experiment with the other bundle",
        )
    if moved := leaving(before, after):
        said = ", ".join(f"{name} {share:.2%}" for name, share in moved.items())
        raise UsageError(
            f"this revision moves users who were exposed out of arms that go on (share of all users: {said})",
            next_step="let shares only grow, keep every arm in its place (one that comes later stands there from the "
            "start with share 0), and with more than two challengers keep each within its part of the line; or start "
            "another experiment under another salt",
        )


def leaving(before: Revision, after: Revision) -> dict[str, float]:
    """Return, by challenger that goes on, the share of all users that it has before and another arm has after."""
    old, new = _line(before), _line(after)
    goes_on = {arm.name for arm in before.arms[1:]} & {arm.name for arm in after.arms if arm.share > 0}
    moved: dict[str, list[float]] = {}
    for low, high in pairwise(sorted({0.0, 1.0, *(end for end in (*old.ends, *new.ends) if 0 < end < 1)})):
        had, gets = before.arms[old.arm_at(low)].name, after.arms[new.arm_at(low)].name
        if had in goes_on and had != gets:
            moved.setdefault(had, []).append(high - low)
    return {name: total for name, parts in sorted(moved.items()) if (total := fsum(parts)) > ROUNDING}


def _line(revision: Revision) -> Buckets:
    return buckets(tuple(arm.share for arm in revision.arms))


def digits(plan: str | None) -> str:
    """Return what people read of a plan's SHA-256."""
    return "none" if plan is None else plan[:12]
