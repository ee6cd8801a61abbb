"""Which verb a run applies to the codebook, and the sentence that says why."""

from dataclasses import dataclass
from typing import Any, Literal

from sidrec.codebook.artefact import Artefact
from sidrec.codebook.config import LifecycleConfig, Verb
from sidrec.codebook.items import MergedItems
from sidrec.errors import CheckFailedError
from sidrec.quantization.config import CodebookConfig

Training = Literal["carry", "fine_tune", "scratch"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A verb, its reason, and how the model follows."""

    verb: Verb
    reason: str
    training: Training

    def as_dict(self) -> dict[str, str]:
        """Return the decision as it is written into a run."""
        return {"verb": self.verb, "reason": self.reason, "training": self.training}


def decide(
    parent: Artefact | None,
    merged: MergedItems | None,
    *,
    lineage: str,
    codebook: CodebookConfig,
    lifecycle: LifecycleConfig,
    alarm: dict[str, Any] | None,
) -> Decision:
    """Return what to do with the parent's codebook.

    Args:
        merged: the parent's items and the new table's; None without a parent.
        lineage: digest of the embedder of this run.
        codebook: the recipe's settings; others than the parent's mean another codebook.
        alarm: of the health report on the items that an append would add; `raised` and `sentence`.

    Raises:
        CheckFailedError: the recipe forces a verb that this parent does not allow.
    """
    barred = obstacle(parent, lineage, codebook)
    forced = lifecycle.verb
    if forced == "fit" or (barred and forced == "auto"):
        return Decision("fit", barred or "the recipe asks for a new codebook", "scratch")
    if barred:
        raise CheckFailedError(
            f"lifecycle.verb is {forced}, and {barred}",
            next_step="set lifecycle.verb to auto or fit, and train from scratch",
        )
    assert parent is not None
    assert merged is not None
    added, removed, back = _changes(parent, merged)
    changes = f"{added:,} new items, {removed:,} removed, {back:,} back"
    if forced != "auto":
        if forced == "none" and added:
            raise CheckFailedError(
                f"lifecycle.verb is none, and there are {changes}", next_step="set lifecycle.verb to auto or append"
            )
        return Decision(forced, f"the recipe asks for it; {changes}", _training(forced))
    if not added + removed + back:
        return Decision("none", f"nothing is new among {merged.published:,} items", "carry")
    if alarm is not None and alarm["raised"]:
        return Decision("refresh", f"{changes}; {alarm['sentence']}", "fine_tune")
    appended = parent.codebook.appended + added
    share = appended / len(merged.table)
    if share > lifecycle.max_appended_share:
        reason = (
            f"{changes}; {appended:,} items ({share:.1%}) were never fitted, "
            f"above the {lifecycle.max_appended_share:.0%} that may wait"
        )
        return Decision("refresh", reason, "fine_tune")
    return Decision("append", f"{changes}; {share:.1%} of the items were never fitted", "carry")


def obstacle(parent: Artefact | None, lineage: str, config: CodebookConfig) -> str:
    """Return why the parent's codebook cannot be carried on, "" where it can."""
    if parent is None:
        return "no codebook is live: this is the first of its lineage"
    if parent.codebook.lineage != lineage:
        return (
            f"the embedder is another one ({lineage[:12]}…) than the codebook was fitted on "
            f"({parent.codebook.lineage[:12]}…): a new lineage"
        )
    asked, had = config.model_dump(include=set(CodebookConfig.model_fields)), parent.codebook.config.model_dump()
    changed = sorted(name for name in had if asked[name] != had[name])
    if changed:
        shown = ", ".join(f"codebook.{name} {had[name]!r} -> {asked[name]!r}" for name in changed)
        return f"the recipe's codebook is another one: {shown}"
    return ""


def _changes(parent: Artefact, merged: MergedItems) -> tuple[int, int, int]:
    was, now = ~parent.catalog.removed, merged.sold[: merged.published]
    return len(merged.new), int((was & ~now).sum()), int((~was & now).sum())


def _training(verb: Verb) -> Training:
    return "fine_tune" if verb == "refresh" else "carry"
