"""KFP spec of `validate_events`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.PYTHON, install_kfp_package=False)
def validate_events(  # type: ignore[no-untyped-def]
    recipe: str,
    events: dsl.Output[dsl.Dataset],
    sales: dsl.Output[dsl.Dataset],
    items_raw: dsl.Output[dsl.Dataset],
    quarantine: dsl.Output[dsl.Dataset],
    accounting: dsl.Output[dsl.Artifact],
    data_docs: dsl.Output[dsl.Artifact],
):
    """Clean the raw files row by row and refuse the batch if it breaks a limit."""
    from components.validate_events.run import SECTIONS, run, source_files
    from sidrec.steps import execute

    execute(
        "validate_events",
        run,
        recipe=recipe,
        sections=SECTIONS,
        inputs=source_files(recipe),
        outputs={
            "events": events.path,
            "sales": sales.path,
            "items_raw": items_raw.path,
            "quarantine": quarantine.path,
            "accounting": accounting.path,
            "data_docs": data_docs.path,
        },
    )
