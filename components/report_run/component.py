"""KFP spec of `report_run`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def report_run(status: dsl.PipelineTaskFinalStatus, pipeline: str, recipe: str):  # type: ignore[no-untyped-def]
    """Say how a run ended, where nobody watches it."""
    from components.report_run.run import run

    run(
        pipeline=pipeline,
        recipe=recipe,
        name=status.pipeline_job_resource_name,
        state=status.state,
        task=status.pipeline_task_name,
        code=status.error_code,
        message=status.error_message,
    )
