"""The monitoring pipeline: report, decide, tell, tidy up. It ends there: drift never deploys.

What the report decided lies in it; an alarm fails no run, so a red run means that monitoring itself is broken.
"""

from typing import Any

from kfp import dsl

from components.alert_drift.component import alert_drift
from components.prune_monitoring.component import prune_monitoring
from components.report_drift.component import report_drift
from pipelines.cluster import Cluster
from pipelines.placement import finishing


def monitoring_on(cluster: Cluster | None) -> Any:
    """Return the pipeline as a cluster runs it, or as this machine does."""

    @dsl.pipeline(
        name="sidrec-monitoring", description="Exposures and outcomes in, a drift report and its messages out."
    )
    def monitoring(  # type: ignore[no-untyped-def]
        recipe: str, exposures: str, outcomes: str, baskets: str, bundle: str, other_bundles: str = ""
    ):
        """Report the newest week's drift, tell of it, and remove what is too old.

        Args:
            recipe: the text of the recipe that made the bundle.
            exposures: folder of the exposure log; like the other three, where the step's own machine sees it.
            outcomes: folder of the outcome log.
            baskets: the basket table that the bundle was fitted on.
            bundle: folder of the bundle whose codes are counted.
            other_bundles: folders of the other arms' bundles, with commas between; an arm without has its codes
                uncounted.
        """
        with finishing(cluster, "monitoring", recipe):
            report = report_drift(
                recipe=recipe,
                exposures=exposures,
                outcomes=outcomes,
                baskets=baskets,
                bundle=bundle,
                other_bundles=other_bundles,
            )
            told = alert_drift(recipe=recipe, drift_report=report.outputs["drift_report"])
            prune_monitoring(recipe=recipe, told=told.outputs["told"])

    return monitoring


monitoring = monitoring_on(None)
