"""KFP spec of `embed_items`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def embed_items(  # type: ignore[no-untyped-def]
    recipe: str,
    items: dsl.Input[dsl.Dataset],
    vectors: dsl.Output[dsl.Dataset],
    embedder: dsl.Output[dsl.Model],
    champion: str = "",
):
    """Give every item its vector, by the live bundle's embedder where there is one."""
    from components.embed_items.run import SECTIONS, run, vector_sources
    from sidrec.steps import execute

    inputs = {"items": items.path, **vector_sources(recipe)}
    if champion:
        inputs["frozen"] = f"{champion}/embedder"
    execute(
        "embed_items",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs=inputs,
        outputs={"vectors": vectors.path, "embedder": embedder.path},
    )
