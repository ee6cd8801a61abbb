"""The monitoring pipeline: one scheduled drift report. It ends there: drift never deploys."""

from kfp import dsl

from components.report_drift.component import report_drift


@dsl.pipeline(name="sidrec-monitoring", description="Exposures and outcomes in, a drift report out.")
def monitoring(recipe: str, exposures: str, outcomes: str, baskets: str, bundle: str):  # type: ignore[no-untyped-def]
    """Report the newest week's drift.

    Args:
        recipe: the text of the recipe that made the bundle.
        exposures: folder of the exposure log; like the other three, where the step's own machine sees it.
        outcomes: folder of the outcome log.
        baskets: the basket table that the bundle was fitted on.
        bundle: folder of the bundle whose codes are counted.
    """
    report_drift(recipe=recipe, exposures=exposures, outcomes=outcomes, baskets=baskets, bundle=bundle)
