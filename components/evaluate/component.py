"""KFP spec of the evaluation step."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def evaluate(  # type: ignore[no-untyped-def]
    recipe: str,
    bundle: dsl.Input[dsl.Model],
    baskets: dsl.Input[dsl.Dataset],
    items: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    champion: str = "",
):
    """Judge the bundle on the gate window."""
    from components.evaluate.run import SECTIONS, run
    from sidrec.steps import execute

    inputs = {"bundle": bundle.path, "baskets": baskets.path, "items": items.path}
    if champion:
        inputs["champion"] = champion
    execute("evaluate", run, recipe=recipe, sections=SECTIONS, inputs=inputs, outputs={"evaluation": evaluation.path})
