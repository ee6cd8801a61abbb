"""KFP spec of `sign_verdict`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def sign_verdict(  # type: ignore[no-untyped-def]
    recipe: str,
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    serving_check: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
):
    """Join the codebook, quality and serving gates into one signed verdict on the bundle."""
    from components.sign_verdict.run import SECTIONS, run, still_holds
    from sidrec.steps import execute

    execute(
        "sign_verdict",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"bundle": bundle.path, "evaluation": evaluation.path, "serving_check": serving_check.path},
        outputs={"verdict": verdict.path},
        still_holds=still_holds,
    )
