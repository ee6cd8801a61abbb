"""KFP spec of `write_corpus`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def write_corpus(  # type: ignore[no-untyped-def]
    recipe: str,
    baskets: dsl.Input[dsl.Dataset],
    codebook: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    prepared: dsl.Output[dsl.Artifact],
    champion: str = "",
):
    """Write what the recipe's system needs before its fit, where it needs anything and there is a fit."""
    from components.write_corpus.run import SECTIONS, run
    from sidrec.steps import execute

    inputs = {"baskets": baskets.path, "codebook": codebook.path}
    if champion:
        inputs |= {"decision": decision.path}
    outputs = {"prepared": prepared.path}
    execute("write_corpus", run, recipe=recipe, sections=SECTIONS, inputs=inputs, outputs=outputs)
