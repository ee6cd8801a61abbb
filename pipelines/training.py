"""The training pipeline: from raw events to a registered, signed candidate whose model is trained from scratch.

It ends at `register`. Promotion is a person's, and nothing here can import what writes the ledger.
"""

from typing import Any

from kfp import dsl

from pipelines.cluster import Cluster
from pipelines.placement import finishing
from pipelines.shared import prepare, release


def training_on(cluster: Cluster | None) -> Any:
    """Return the pipeline as a cluster runs it, or as this machine does: the same steps and edges."""

    @dsl.pipeline(name="sidrec-training", description="Raw events in, a gated and registered bundle out.")
    def training(recipe: str, champion: str = "", broken: str = ""):  # type: ignore[no-untyped-def]
        """Train, package, judge and register one bundle.

        Args:
            recipe: the recipe's YAML text.
            champion: folder of the bundle that is live, "" for none; its codebook is carried on where the recipe
                allows, and the candidate is judged against it.
            broken: file that names a fault to put into the codebook, "" for none; such a run never registers.
        """
        with finishing(cluster, "training", recipe):
            prepared = prepare(recipe, champion, broken, carry_from="")
            release(recipe, champion, prepared, carry_from="")

    return training


training = training_on(None)
