"""KFP spec of `prune_monitoring`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def prune_monitoring(  # type: ignore[no-untyped-def]
    recipe: str, told: dsl.Input[dsl.Artifact], pruned: dsl.Output[dsl.Artifact]
):
    """Remove reports, runs and exposures that are too old or too much, after everybody was told."""
    from components.prune_monitoring.run import SECTIONS, never_done, run
    from sidrec.steps import execute

    execute(
        "prune_monitoring",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"told": told.path},
        outputs={"pruned": pruned.path},
        still_holds=never_done,
    )
