"""`sidrec ab`: how large an experiment must be, and what it shows; its moves are in `ab_run`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidrec import files, home
from sidrec.cli import ab_preread, ab_run
from sidrec.cli.ab_same import aa
from sidrec.cli.ab_simulate import simulate
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from sidrec.experiment.plan import Plan
    from sidrec.experiment.readout import Readout
    from sidrec.release.revision import Revision

ab = typer.Typer(help="Experiments: plan, start, ramp, stop, read-out.", no_args_is_help=True)

PlanFile = Annotated[Path, typer.Argument(help="The experiment's plan, YAML (docs/experimentation.md).")]
Exposures = Annotated[Path | None, typer.Option(help="Folder of exposure segments; this installation's.")]
Outcomes = Annotated[Path | None, typer.Option(help="Folder of outcome segments; this installation's.")]
Day = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_SCHEMA_VERSION = 1


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    ab_run.mount(ab)
    ab_preread.mount(ab)
    ab.command()(aa)
    ab.command()(simulate)
    root.add_typer(ab, name="ab")


@ab.callback()
def _ab() -> None:
    """Experiments: plan, start, ramp, stop, read-out."""


@ab.command()
def readout(
    plan: Annotated[str, typer.Argument(help="The experiment's name once its plan is frozen, or a plan's file.")],
    exposures: Exposures = None,
    outcomes: Outcomes = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Phase to read: a revision's number in the ledger, or its file (JSON); the newest."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=Day, help="The phase's start, UTC; the revision's first exposure.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=Day, help="Read as of this time, UTC; the newest row, or the next phase.")
    ] = None,
    attributes: Annotated[Path | None, typer.Option(help="Columns by user_id, for slices and past metrics.")] = None,
    answered: Annotated[
        list[str] | None, typer.Option(help="ARM=COUNT of answers by the servers' own metric; repeatable.")
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Bundle folder of an arm, for its code usage; repeatable.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page with plots to this file.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Read an experiment out, trust first: exit 0 ship, 1 don't or hidden, 3 keep running."""
    from monitoring import arm_codes, experiment
    from sidrec.experiment.readout import read_out

    planned = _plan(plan)
    ran, steps = _phase(planned, revision)
    frozen = experiment.phase_plan(planned, ran)
    phase = experiment.gather(
        frozen,
        ran,
        exposures or home.exposures_dir(),
        outcomes or home.outcomes_dir(),
        since=_seconds(since),
        until=_seconds(until),
        answered=_answered(answered or ()),
    )
    users = phase.users if attributes is None else experiment.with_attributes(phase.users, attributes)
    found = read_out(frozen, users, days=phase.days, lost=phase.lost)
    sizes = _sizes(ran, bundle or ())
    codes = arm_codes.code_panel(phase.requests, phase.hits, ran, sizes) if found.trusted else []
    value = {
        "schema_version": _SCHEMA_VERSION,
        "simulation": phase.simulated,
        "phase": {"revision": ran.revision, "since": phase.since, "until": phase.until, "days": phase.days},
        "phases": steps,
        "plan": frozen.model_dump(mode="json"),
        "readout": found.model_dump(mode="json"),
        "codes": codes,
        "html": None if html is None else str(html),
    }
    if html is not None:
        from sidrec.experiment.page import readout_page

        days = f"{phase.days:.3g} days of revision {ran.revision}"
        page = readout_page(found, frozen, days=days, codes=codes, simulated=phase.simulated)
        files.write_text_atomic(html, page)

    def render() -> None:
        from sidrec.cli import ab_text

        ab_text.phases(steps, ran.revision)
        ab_text.show(found, frozen, codes, simulated=phase.simulated, page=html)

    emit(value, as_json, render)
    return _exit_code(found)


@ab.command()
def size(
    plan: PlanFile,
    users: Annotated[
        Path | None, typer.Option(help="Parquet, one row a user with the plan's columns; left out, from the logs.")
    ] = None,
    exposures: Exposures = None,
    outcomes: Outcomes = None,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="Chance to show the least gain if it is true.")] = 0.8,
    as_json: JsonFlag = False,
) -> int:
    """Say how many users show the plan's least gain and pass its guardrails; exit 3 where they are too many."""
    import polars as pl

    from monitoring import experiment
    from sidrec.experiment.plan import load_plan
    from sidrec.experiment.size import size as size_of

    planned = load_plan(plan)
    before = (
        pl.read_parquet(users)
        if users is not None
        else experiment.before(planned, exposures or home.exposures_dir(), outcomes or home.outcomes_dir())
    )
    if lacking := sorted({c for metric in planned.metrics for c in metric.columns} - set(before.columns)):
        raise UsageError(
            f"the users' table lacks {', '.join(lacking)}, which the plan reads; it has {', '.join(before.columns)}"
        )
    pair = planned.shares[planned.control] + planned.shares[planned.treatment]
    wanted = [(planned.primary, planned.minimum_effect)]
    wanted += [(guardrail.metric, guardrail.margin) for guardrail in planned.guardrails]
    share = planned.shares[planned.treatment] / pair
    sizes = [
        size_of(before, metric, minimum_effect=effect, alpha=planned.alpha, power=power, treatment_share=share)
        for metric, effect in wanted
    ]
    needed = max(one.always_valid_users for one in sizes)
    enough = needed <= planned.max_users
    sentence = (
        f"{needed:,} users of both arms show all of it on any day; the plan ends at {planned.max_users:,}"
        f"{'.' if enough else ': raise max_users, the least gain or the margins, or take a metric with less noise.'}"
    )
    value = {
        "users_seen": before.height,
        "sizes": [one.model_dump(mode="json") for one in sizes],
        "needed": needed,
        "enough": enough,
        "sentence": sentence,
    }
    emit(value, as_json, lambda: print("\n".join([*(one.sentence for one in sizes), sentence])))
    return 0 if enough else 3


def _exit_code(found: "Readout") -> int:
    waits = all(check.light != "red" or check.name == "sample_size" for check in found.trust)
    return {"ship": 0, "don't": 1, "keep running": 3, "hidden": 3 if waits else 1}[found.decision.verdict]


def _plan(named: str) -> "Plan":
    """Return the plan in a file, or the frozen one of an experiment; once frozen, no file says otherwise."""
    from sidrec.experiment.frozen import open_frozen, path_of
    from sidrec.experiment.plan import load_plan

    if not Path(named).suffix and not Path(named).exists():
        return open_frozen(named).plan
    plan = load_plan(Path(named))
    if path_of(plan.experiment).is_file() and open_frozen(plan.experiment).plan != plan:
        raise UsageError(
            f"{named} is not the plan that experiment {plan.experiment} was frozen with",
            evidence=path_of(plan.experiment),
            next_step=f"sidrec ab readout {plan.experiment}",
        )
    return plan


def _phase(plan: "Plan", asked: str | None) -> "tuple[Revision, list[dict[str, Any]]]":
    """Return the revision whose phase is read, and every phase of the experiment that the ledger knows."""
    from sidrec.release.ledger import Ledger
    from sidrec.release.standing import phases

    known = {row.revision.revision: row for row in phases(Ledger().rows(), plan.experiment)}
    steps = [
        {
            "revision": number,
            "shares": {arm.name: arm.share for arm in row.revision.arms},
            "asked_at": row.time,
            "who": row.who,
            "why": row.why,
        }
        for number, row in known.items()
    ]
    if asked is not None and not asked.isdigit():
        return _revision(Path(asked)), steps
    number = max(known, default=0) if asked is None else int(asked)
    if number not in known:
        said = f"revision {asked} is no phase" if asked else "the ledger asks for no revision"
        raise UsageError(
            f"{said} of experiment {plan.experiment}; its phases are {', '.join(map(str, known)) or 'none'}",
            next_step="--revision FILE of the one that ran it",
        )
    return known[number].revision, steps


def _revision(path: Path) -> "Revision":
    from pydantic import ValidationError

    from sidrec.release.revision import Revision

    try:
        return Revision.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"no revision in {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"{path} is no revision: {error.errors()[0]['msg']}", evidence=path) from error


def _seconds(time: datetime | None) -> int | None:
    from datetime import UTC

    return None if time is None else int(time.replace(tzinfo=UTC).timestamp())


def _answered(given: Any) -> dict[str, int]:
    counts = {}
    for text in given:
        arm, equals, count = text.partition("=")
        if not equals or not count.isdigit():
            raise UsageError(f"--answered {text!r} is not ARM=COUNT, such as treatment=120394")
        counts[arm] = int(count)
    return counts


def _sizes(ran: "Revision", folders: Any) -> dict[str, dict[int, int]]:
    """Return the level sizes of the arms' bundles: those given, else those that the registry has."""
    from monitoring.arm_codes import level_sizes
    from serving import registry

    found = {one.bundle_id: dict(one.sizes) for one in map(level_sizes, folders)}
    for bundle_id in {arm.bundle.bundle_id for arm in ran.arms} - set(found):
        if (entry := registry.find(bundle_id)) is not None:
            found[bundle_id] = dict(level_sizes(entry.bundle).sizes)
    return found
