"""`sidrec ab aa`: A/A tests on this installation's own users, before any experiment is believed."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError


def aa(
    plan: Annotated[Path, typer.Argument(help="The experiment's plan, YAML (docs/experimentation.md).")],
    users: Annotated[
        Path | None, typer.Option(help="Parquet, one row a user with `user_id` and the plan's columns; from the logs.")
    ] = None,
    exposures: Annotated[Path | None, typer.Option(help="Folder of exposure segments; this installation's.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Folder of outcome segments; this installation's.")] = None,
    draws: Annotated[int, typer.Option(min=20, help="A/A tests, each under a salt of its own.")] = 200,
    as_json: JsonFlag = False,
) -> int:
    """Draw users of the past into arms many times and count false alarms; exit 1 where more than promised."""
    import polars as pl

    from monitoring import experiment
    from sidrec.experiment.plan import load_plan
    from sidrec.experiment.same import same
    from sidrec.release.buckets import buckets, point_of

    planned = load_plan(plan)
    before = (
        pl.read_parquet(users)
        if users is not None
        else experiment.before(planned, exposures or home.exposures_dir(), outcomes or home.outcomes_dir())
    )
    if lacking := sorted({"user_id", *planned.primary.columns} - set(before.columns)):
        raise UsageError(f"the users' table lacks {', '.join(lacking)}; it has {', '.join(before.columns)}")
    arms = [planned.control, *(arm for arm in planned.shares if arm != planned.control)]
    line = buckets(tuple(planned.shares[arm] for arm in arms))
    found = same(
        before,
        planned,
        lambda salt: [arms[line.arm_at(point_of(str(user), salt))] for user in before["user_id"]],
        draws=draws,
    )
    emit(found.model_dump(mode="json"), as_json, lambda: print(found.sentence))
    return 0 if found.holds else 1
