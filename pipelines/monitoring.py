"""The monitoring pipeline: one scheduled drift report. It ends there: drift never deploys."""

from typing import Any

from kfp import dsl

from components.report_drift.component import report_drift
from pipelines.cluster import Cluster
from pipelines.placement import finishing


def monitoring_on(cluster: Cluster | None) -> Any:
    """Return the pipeline as a cluster runs it, or as this machine does."""

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
        with finishing(cluster, "monitoring", recipe):
            report_drift(recipe=recipe, exposures=exposures, outcomes=outcomes, baskets=baskets, bundle=bundle)

    return monitoring


monitoring = monitoring_on(None)
