"""The refresh pipeline: the live codebook takes in new items, and the live model follows as cheaply as it can.

Nothing new or items appended: every weight is carried. A refresh within its churn budget: the live model is fine-tuned.
Beyond it, or in a new lineage: trained from scratch. All gates stand in every case, and it ends at `register`.
"""

from typing import Any

from kfp import dsl

from pipelines.cluster import Cluster
from pipelines.placement import finishing
from pipelines.shared import prepare, release


def codebook_refresh_on(cluster: Cluster | None) -> Any:
    """Return the pipeline as a cluster runs it, or as this machine does: the same steps and edges."""

    @dsl.pipeline(name="sidrec-codebook-refresh", description="New items in, a gated and registered bundle out.")
    def codebook_refresh(recipe: str, champion: str, broken: str = ""):  # type: ignore[no-untyped-def]
        """Carry the live bundle's codebook and model on over the data as they are now.

        Args:
            recipe: the recipe's YAML text.
            champion: folder of the bundle that is live.
            broken: file that names a fault to put into the codebook, "" for none; such a run never registers.
        """
        with finishing(cluster, "codebook_refresh", recipe):
            prepared = prepare(recipe, champion, broken, carry_from=champion)
            release(recipe, champion, prepared, carry_from=champion)

    return codebook_refresh


codebook_refresh = codebook_refresh_on(None)
