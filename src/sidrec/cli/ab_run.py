"""`sidrec ab plan`, `start`, `ramp`, `stop`: an experiment is fixed in writing, then runs by the ledger."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.release import NoDeploy, Override, Reason, actor, champion_bundle, finish_move
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from sidrec.experiment.frozen import FrozenPlan
    from sidrec.release.ledger import LedgerRow
    from sidrec.release.trial import Design

Experiment = Annotated[str, typer.Argument(help="Name of an experiment whose plan is frozen.")]


def mount(ab: typer.Typer) -> None:
    """Add the commands of this module to `sidrec ab`."""
    for command in (plan, start, ramp, stop):
        ab.command()(command)


def plan(
    file: Annotated[Path, typer.Argument(help="The experiment's plan, YAML (docs/experimentation.md).")],
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of another plan of this name that has not started.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Freeze a plan: metric, guardrails, least effect, size, stop rule and bundles stand before the first user."""
    from sidrec.experiment.frozen import freeze, path_of
    from sidrec.experiment.plan import load_plan
    from sidrec.release.ledger import Ledger
    from sidrec.release.standing import phases

    planned = load_plan(file)
    frozen = freeze(
        planned,
        who=actor(),
        time=datetime.now(UTC),
        started=bool(phases(Ledger().rows(), planned.experiment)),
        replace=replace,
    )
    path = path_of(planned.experiment)
    value = frozen.model_dump(mode="json") | {"salt": frozen.salt, "path": str(path)}

    def render() -> None:
        print(f"experiment {planned.experiment} is frozen as {frozen.sha256[:12]} in {path}")
        print(f"next: sidrec ab start {planned.experiment} --reason '…'")

    emit(value, as_json, render)


def start(
    experiment: Experiment,
    reason: Reason,
    accept_inconclusive: Annotated[
        bool,
        typer.Option("--accept-inconclusive", help="Try a bundle whose verdict is inconclusive; needs two people."),
    ] = False,
    override: Override = None,
    second_approver: Annotated[str | None, typer.Option(help="Who else looked; not the author.")] = None,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Give the plan's challengers their first shares beside the present champion, and deploy it."""
    from serving import registry
    from sidrec.bundle import open_bundle
    from sidrec.experiment.frozen import open_frozen
    from sidrec.release import trial

    frozen = open_frozen(experiment)
    wanted = {arm: name for arm, name in frozen.plan.bundles.items() if arm != frozen.plan.control}
    row = trial.start(
        _design(frozen),
        {arm: (open_bundle(registry.bundle_folder(name)), registry.verdict_path(name)) for arm, name in wanted.items()},
        why=reason,
        who=actor(),
        accept_inconclusive=accept_inconclusive,
        second_approver=second_approver,
        overrides=override or (),
        champion=champion_bundle(),
    )
    finish(row, deploy=not no_deploy, as_json=as_json)


def ramp(
    experiment: Annotated[str, typer.Argument(help="The experiment, or canary, that runs.")],
    share: Annotated[
        list[str], typer.Option(help="New share of the treatment, 0.2; or of an arm, ARM=0.2; repeatable.")
    ],
    reason: Reason,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Let challengers grow; refused where a user who was exposed would change arms."""
    from sidrec.experiment.frozen import open_frozen, path_of
    from sidrec.release import trial

    frozen = open_frozen(experiment) if path_of(experiment).is_file() else None
    treatment = _only_challenger(experiment) if frozen is None else frozen.plan.treatment
    row = trial.ramp(
        experiment,
        dict(_share(one, treatment) for one in share),
        plan=None if frozen is None else frozen.sha256,
        why=reason,
        who=actor(),
    )
    finish(row, deploy=not no_deploy, as_json=as_json)


def stop(
    reason: Reason,
    experiment: Annotated[str | None, typer.Argument(help="The experiment, or canary, that runs.")] = None,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """End the running experiment: no challenger has a share, everybody is the champion's."""
    from sidrec.release import trial

    finish(trial.stop(experiment, why=reason, who=actor()), deploy=not no_deploy, as_json=as_json)


def finish(row: "LedgerRow", *, deploy: bool, as_json: bool) -> None:
    """Deploy what a row asks for, as a promotion is, and say what was asked and what came of it."""
    if not as_json:
        print(row.why)
    finish_move(row, deploy=deploy, as_json=as_json, verdict=None)


def _design(frozen: "FrozenPlan") -> "Design":
    from sidrec.release.trial import Design

    plan = frozen.plan
    return Design(
        experiment=plan.experiment,
        plan=frozen.sha256,
        salt=frozen.salt,
        control=plan.control,
        shares=plan.shares,
        exclusion=plan.exclusion,
        exploration=plan.exploration,
    )


def _only_challenger(experiment: str) -> str:
    """Return the one arm that grows where no plan names it, such as a canary."""
    from sidrec.release.ledger import Ledger

    present = Ledger().desired()
    arms = [] if present is None or present.experiment != experiment else [arm.name for arm in present.arms[1:]]
    return arms[0] if len(arms) == 1 else ""


def _share(text: str, treatment: str) -> tuple[str, float]:
    arm, equals, number = text.rpartition("=")
    try:
        return arm if equals else treatment, float(number)
    except ValueError as error:
        raise UsageError(f"--share {text!r} is neither a share such as 0.2 nor ARM=SHARE") from error
