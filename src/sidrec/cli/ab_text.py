"""A read-out on the terminal, in the order in which it should be read: trust first, the sentence last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sidrec.experiment.effect import Effect
from sidrec.experiment.page import SIMULATED
from sidrec.experiment.plan import Plan
from sidrec.experiment.readout import Readout

_COLOURS = {"green": "green", "red": "red", "unmeasured": "yellow"}
_COLOURS |= {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def show(found: Readout, plan: Plan, codes: Sequence[Mapping[str, Any]], *, simulated: bool, page: Path | None) -> None:
    """Print the read-out; where the trust box is red, nothing but why."""
    console = Console(highlight=False, soft_wrap=True)
    if simulated:
        console.print(f"[yellow]{SIMULATED}[/]")
    console.print(f"{escape(found.experiment)}, {found.days:.3g} days")
    box = Table("trust", "", "seen")
    for check in found.trust:
        box.add_row(check.name, _word(check.light), escape(check.sentence))
    console.print(box)
    if found.primary is not None:
        _effect(console, found.primary, plan)
        _guardrails(console, found)
        _slices(console, found)
        _codes(console, codes)
        if found.attribution is not None:
            console.print(f"codebook or model: {escape(found.attribution.sentence)}")
    console.print(f"[bold]{escape(found.decision.sentence)}[/]")
    if page is not None:
        console.print(f"page: {escape(str(page))}")


def phases(steps: Sequence[Mapping[str, Any]], read: int) -> None:
    """Print the experiment's steps as the ledger has them, and which one is read."""
    console = Console(highlight=False, soft_wrap=True)
    for step in steps:
        shares = ", ".join(f"{escape(arm)} {share:.1%}" for arm, share in step["shares"].items())
        mark = " (read here)" if step["revision"] == read else ""
        console.print(f"revision {step['revision']}, {step['asked_at']:%Y-%m-%d %H:%M} UTC: {shares}{mark}")


def _effect(console: Console, primary: Effect, plan: Plan) -> None:
    relative = primary.relative is not None and primary.relative_always_valid is not None
    value, every, once = (
        (primary.relative, primary.relative_always_valid, primary.relative_interval)
        if relative
        else (primary.difference, primary.always_valid, primary.interval)
    )
    table = Table(
        escape(primary.metric), escape(plan.control), escape(plan.treatment), "change", "every look", "one look"
    )
    said = [_interval(one, relative=relative) for one in (every, once)]
    change = "" if value is None else f"{value:+.2%}" if relative else f"{value:+.4g}"
    table.add_row("effect", f"{primary.control:.4g}", f"{primary.treatment:.4g}", change, *said)
    console.print(table)
    console.print(
        f"{primary.users:,} users; worth shipping: {plan.minimum_effect:.1%}; CUPED took away "
        f"{primary.variance_reduction:.1%} of the variance"
    )


def _guardrails(console: Console, found: Readout) -> None:
    if not found.guardrails:
        return
    table = Table("guardrail", "", "seen")
    for one in found.guardrails:
        table.add_row(escape(one.effect.metric), _word(one.result), escape(one.sentence))
    console.print(table)


def _slices(console: Console, found: Readout) -> None:
    if not found.slices:
        return
    table = Table("slice", "users", "change", "every look", "corrected p", "shown")
    for one in found.slices:
        seen = one.effect
        change = "too few users" if seen is None else "" if seen.relative is None else f"{seen.relative:+.2%}"
        every = "" if seen is None else _interval(seen.relative_always_valid, relative=True)
        p_value = "" if one.adjusted_p is None else f"{one.adjusted_p:.2g}"
        name = escape(f"{one.column} = {one.value}")
        table.add_row(name, f"{one.users:,}", change, every, p_value, "yes" if one.differs else "no")
    console.print(table)


def _codes(console: Console, codes: Sequence[Mapping[str, Any]]) -> None:
    if not codes:
        return
    table = Table("semantic IDs", "level", "traffic", "used", "entropy", "perplexity", "largest code")
    for row in codes:
        for level in row["levels"]:
            used = f"{level['used']}" if level["size"] is None else f"{level['used']} of {level['size']}"
            traffic = "taken" if level["traffic"] == "bought" else level["traffic"]
            numbers = f"{level['entropy']:.2f} bits", f"{level['perplexity']:.1f}", f"{level['largest_share']:.1%}"
            table.add_row(escape(row["arm"]), str(level["level"]), traffic, used, *numbers)
    console.print(table)
    for row in codes:
        searches = "".join(f"; {escape(seen['name'])} {seen['mean']:.3g}" for seen in row["search"])
        console.print(
            f"{escape(row['arm'])}: {row['requests']:,} answers of {row['bundle_id']}, {row['cold_share']:.1%} cold, "
            f"{row['degraded_share']:.1%} degraded{searches}"
        )


def _interval(ends: tuple[float, float] | None, *, relative: bool) -> str:
    if ends is None:
        return "none yet"
    form = "+.2%" if relative else "+.4g"
    return escape(f"[{ends[0]:{form}}, {ends[1]:{form}}]")


def _word(value: str) -> str:
    return f"[{_COLOURS[value]}]{value}[/]"
