"""`sidrec ab simulate`: made-up logs with a known effect, and nothing else, for trying read-outs on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidrec import files
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from sidrec.experiment.plan import Plan
    from sidrec.release.revision import Revision

_SALT = "simulation"


def simulate(
    plan: Annotated[Path, typer.Argument(help="The experiment's plan, YAML (docs/experimentation.md).")],
    out: Annotated[Path, typer.Option(help="New folder for the made-up logs.")],
    users: Annotated[int, typer.Option(min=1, help="Users of all arms.")] = 10_000,
    lift: Annotated[
        float, typer.Option(min=-0.99, max=4, help="True relative effect on the treatment's hits per user.")
    ] = 0.0,
    arm_lift: Annotated[
        list[str] | None, typer.Option(help="ARM=LIFT, the effect of another arm; repeatable, 0 unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal logs.")] = 0,
    as_json: JsonFlag = False,
) -> int:
    """Write made-up exposures and outcomes with a known effect (SIMULATION), and how to read them."""
    from sidrec.experiment import simulation
    from sidrec.experiment.plan import load_plan
    from sidrec.release.revision import arm_for

    planned = load_plan(plan)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; simulated logs go into a folder of their own", next_step="--out NEW")
    ran = _simulated_revision(planned)
    lifts = _lifts(arm_lift or (), planned)
    logs = simulation.simulate(
        simulation.Simulation(users=users, lift=lift, lifts=lifts, seed=seed),
        planned,
        arm_of=lambda user: arm_for(user, ran.salt, ran.arms).name,
        bundles={arm.name: arm.bundle.bundle_id for arm in ran.arms},
    )
    simulation.write(*logs, out)
    files.write_text_atomic(out / "revision.json", ran.model_dump_json(indent=2) + "\n")
    truth = {"simulation": True, "users": users, "lift": lift, "lifts": lifts, "metric": "hits", "seed": seed}
    files.write_json_atomic(out / "SIMULATION.json", truth)
    command = (
        f"sidrec ab readout {plan} --exposures {out / 'exposures'} --outcomes {out / 'outcomes'} "
        f"--revision {out / 'revision.json'}"
    )
    value = {**truth, "exposures": len(logs[0]), "outcomes": len(logs[1]), "folder": str(out), "next": command}
    said = f"SIMULATION: {users:,} made-up users, true lift of hits {lift:+.1%}, in {out}\nnext: {command}"
    emit(value, as_json, lambda: print(said))
    return 0


def _lifts(given: Any, planned: "Plan") -> dict[str, float]:
    lifts = {}
    others = [arm for arm in planned.shares if arm not in (planned.control, planned.treatment)]
    for text in given:
        arm, _, lift = text.partition("=")
        try:
            lifts[arm] = float(lift)
        except ValueError:
            lifts[arm] = float("nan")
        if arm not in others or not -1 < lifts[arm] <= 4:
            raise UsageError(
                f"--arm-lift {text!r} is not ARM=LIFT with an arm of {', '.join(others) or 'none: two arms'} and a "
                "lift above -1 and at most 4"
            )
    return lifts


def _simulated_revision(planned: "Plan") -> "Revision":
    from sidrec.release.revision import Arm, BundleRef, Revision

    def bundle(arm: str) -> BundleRef:
        sha256 = files.sha256_bytes(f"{_SALT}/{arm}".encode())
        return BundleRef(bundle_id=f"b-{sha256[:12]}", sha256=sha256)

    order = [planned.control, *(arm for arm in planned.shares if arm != planned.control)]
    return Revision(
        revision=1,
        arms=tuple(Arm(name=arm, bundle=bundle(arm), share=planned.shares[arm]) for arm in order),
        experiment=planned.experiment,
        salt=_SALT,
        beam_width=None,
        shadow=None,
        deadline_ms=100,
        history_deadline_ms=50,
        history_max_age_days=1,
        exposure_flush_s=1.0,
        clock="event",
    )
