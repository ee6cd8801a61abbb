"""KFP spec of `check_serving`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def check_serving(  # type: ignore[no-untyped-def]
    recipe: str,
    bundle: dsl.Input[dsl.Model],
    serving_check: dsl.Output[dsl.Artifact],
):
    """Load the packaged bundle in a real Triton server, ask it golden requests and time its answers."""
    from components.check_serving.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "check_serving",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"bundle": bundle.path},
        outputs={"serving_check": serving_check.path},
    )
