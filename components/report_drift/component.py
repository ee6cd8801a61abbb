"""KFP spec of `report_drift`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def report_drift(  # type: ignore[no-untyped-def]
    recipe: str,
    exposures: str,
    outcomes: str,
    baskets: str,
    bundle: str,
    other_bundles: str,
    drift_report: dsl.Output[dsl.Artifact],
):
    """Report the drift of the newest week of traffic and add it to Evidently's workspace."""
    from components.report_drift.run import SECTIONS, run, still_in_workspace
    from sidrec.steps import execute

    folders = [folder.strip() for folder in other_bundles.split(",") if folder.strip()]
    execute(
        "report_drift",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"exposures": exposures, "outcomes": outcomes, "baskets": baskets, "bundle": bundle}
        | {f"other_bundle_{number}": folder for number, folder in enumerate(folders)},
        outputs={"drift_report": drift_report.path},
        still_holds=still_in_workspace,
    )
