"""KFP spec of `train_model`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def train_model(  # type: ignore[no-untyped-def]
    recipe: str,
    baskets: dsl.Input[dsl.Dataset],
    codebook: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    prepared: dsl.Input[dsl.Artifact],
    training_set: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    champion: str = "",
):
    """Fit the recipe's system on the days before the gate window, or carry the live model on."""
    from components.train_model.run import SECTIONS, run
    from sidrec.steps import execute

    inputs = {"baskets": baskets.path, "codebook": codebook.path, "prepared": prepared.path}
    inputs |= {"training_set": training_set.path}
    if champion:
        inputs |= {"champion": champion, "decision": decision.path}
    outputs = {"model": model.path, "logs": logs.path}
    execute("train_model", run, recipe=recipe, sections=SECTIONS, inputs=inputs, outputs=outputs)
