"""KFP spec of `align_model`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def align_model(  # type: ignore[no-untyped-def]
    recipe: str,
    model: dsl.Input[dsl.Model],
    baskets: dsl.Input[dsl.Dataset],
    codebook: dsl.Input[dsl.Model],
    training_set: dsl.Input[dsl.Dataset],
    model_aligned: dsl.Output[dsl.Model],
):
    """Align the fitted model, where its system has such a stage."""
    from components.align_model.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "align_model",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={
            "model": model.path,
            "baskets": baskets.path,
            "codebook": codebook.path,
            "training_set": training_set.path,
        },
        outputs={"model_aligned": model_aligned.path},
    )
