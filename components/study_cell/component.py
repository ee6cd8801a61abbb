"""KFP spec of `study_cell`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def study_cell(  # type: ignore[no-untyped-def]
    study: str,
    recipe: str,
    variant: str,
    seed: int,
    out: str,
    metrics: dsl.Output[dsl.Metrics],
    logs: dsl.Output[dsl.Artifact],
):
    """Fit and judge one cell of a study, unless it is finished in `out`."""
    from components.study_cell.run import run

    values = run(study, recipe, variant, seed, out, logs.path)
    for name, value in values.items():
        metrics.log_metric(name, value)
