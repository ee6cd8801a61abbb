"""KFP spec of `alert_drift`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def alert_drift(  # type: ignore[no-untyped-def]
    recipe: str, drift_report: dsl.Input[dsl.Artifact], told: dsl.Output[dsl.Artifact]
):
    """Tell of what the report found, once an incident."""
    from components.alert_drift.run import SECTIONS, never_done, run
    from sidrec.steps import execute

    execute(
        "alert_drift",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"drift_report": drift_report.path},
        outputs={"told": told.path},
        still_holds=never_done,
    )
