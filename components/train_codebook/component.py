"""KFP spec of `train_codebook`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def train_codebook(  # type: ignore[no-untyped-def]
    recipe: str,
    vectors: dsl.Input[dsl.Dataset],
    embedder: dsl.Input[dsl.Model],
    items: dsl.Input[dsl.Dataset],
    baskets: dsl.Input[dsl.Dataset],
    codebook: dsl.Output[dsl.Model],
    decision: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    champion: str = "",
    carry_from: str = "",
    broken: str = "",
):
    """Fit, keep, append to or refresh the codebook, and give every item its semantic ID."""
    from components.train_codebook.run import SECTIONS, run
    from sidrec.steps import execute

    inputs = {"vectors": vectors.path, "embedder": embedder.path, "items": items.path, "baskets": baskets.path}
    optional = {"champion": champion, "carry_from": carry_from, "broken": broken}
    inputs |= {name: path for name, path in optional.items() if path}
    execute(
        "train_codebook",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs=inputs,
        outputs={"codebook": codebook.path, "decision": decision.path, "page": page.path},
    )
