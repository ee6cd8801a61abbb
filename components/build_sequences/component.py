"""KFP spec of `build_sequences`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def build_sequences(  # type: ignore[no-untyped-def]
    recipe: str,
    events: dsl.Input[dsl.Dataset],
    sales: dsl.Input[dsl.Dataset],
    items_raw: dsl.Input[dsl.Dataset],
    baskets: dsl.Output[dsl.Dataset],
    items: dsl.Output[dsl.Dataset],
):
    """Build each user's baskets before `as_of` and the catalogue as of the gate window's start."""
    from components.build_sequences.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "build_sequences",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"events": events.path, "sales": sales.path, "items_raw": items_raw.path},
        outputs={"baskets": baskets.path, "items": items.path},
    )
