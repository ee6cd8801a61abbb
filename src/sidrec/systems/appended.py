"""A catalogue that was appended to: every published item as it was, new ones behind them."""

import numpy as np

from sidrec.data.catalog import Catalog, widened
from sidrec.errors import BundleError


def new_items(before: Catalog, catalog: Catalog) -> int:
    """Return how many items stand behind the published ones.

    Raises:
        BundleError: a published item is elsewhere, or has another semantic ID.
    """
    published = len(before)
    # A disambiguation code that first appears among new items is a column that published ones lack.
    width = max(before.num_codes, catalog.num_codes)
    old, now = widened(before.codes, width), widened(catalog.codes[:published], width)
    if catalog.item_ids[:published] != before.item_ids or not np.array_equal(now, old):
        raise BundleError(
            "a published item has another row or semantic ID than the model was fitted on: weights cannot be carried",
            next_step="fine-tune or train from scratch (lifecycle.verb: refresh or fit)",
        )
    return len(catalog) - published
