"""KFP spec of `study_table`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def study_table(study: str, recipe: str, out: str, table: dsl.Output[dsl.Markdown]):  # type: ignore[no-untyped-def]
    """Tabulate the cells that are finished in `out`."""
    from components.study_table.run import run

    run(study, recipe, out, table.path)
