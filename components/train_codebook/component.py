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
):
    """Fit the codebook on item vectors and fit-period baskets and give every item its semantic ID."""
    from components.train_codebook.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "train_codebook",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"vectors": vectors.path, "embedder": embedder.path, "items": items.path, "baskets": baskets.path},
        outputs={"codebook": codebook.path},
    )
