"""KFP spec of `embed_items`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def embed_items(  # type: ignore[no-untyped-def]
    recipe: str,
    items: dsl.Input[dsl.Dataset],
    vectors: dsl.Output[dsl.Dataset],
    embedder: dsl.Output[dsl.Model],
):
    """Fit the text embedder on the catalogue and give every item its vector."""
    from components.embed_items.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "embed_items",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"items": items.path},
        outputs={"vectors": vectors.path, "embedder": embedder.path},
    )
