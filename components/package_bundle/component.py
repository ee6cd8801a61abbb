"""KFP spec of `package_bundle`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def package_bundle(  # type: ignore[no-untyped-def]
    recipe: str,
    codebook: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    bundle: dsl.Output[dsl.Model],
):
    """Put everything that an answer depends on into one content-addressed folder."""
    from components.package_bundle.run import SECTIONS, run
    from sidrec.steps import execute

    execute(
        "package_bundle",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs={"codebook": codebook.path, "model": model.path},
        outputs={"bundle": bundle.path},
    )
