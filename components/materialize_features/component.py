"""KFP spec of the step that fills the feature store."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def materialize_features(  # type: ignore[no-untyped-def]
    recipe: str,
    baskets: dsl.Input[dsl.Dataset],
    items: dsl.Input[dsl.Dataset],
    training_set: dsl.Output[dsl.Dataset],
):
    """Fill the feature store and join the point-in-time training set."""
    from components.materialize_features.run import SECTIONS, run, still_holds
    from sidrec.steps import execute

    execute(
        "materialize_features",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"baskets": baskets.path, "items": items.path},
        outputs={"training_set": training_set.path},
        still_holds=still_holds,
    )
