"""KFP spec of `register`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def register(  # type: ignore[no-untyped-def]
    recipe: str,
    bundle: dsl.Input[dsl.Model],
    verdict: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
):
    """Put a bundle whose verdict is no fail into the registry, as a candidate."""
    from components.register.run import SECTIONS, run, still_holds
    from sidrec.steps import execute

    execute(
        "register",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"bundle": bundle.path, "verdict": verdict.path},
        outputs={"registration": registration.path},
        still_holds=still_holds,
    )
