"""A fitted generator over a catalogue that was appended to: every weight as it was, for new items have known codes.

Axes: `new` items behind the published ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.decoding.token_sets import TokenSets
from sidrec.errors import BundleError
from sidrec.systems.appended import new_items
from sidrec.systems.base import MODEL, WEIGHTS
from sidrec.systems.popularity_masses import PAST_WEIGHT, UNSEEN
from sidrec.systems.reg4rec.categories import ItemCategories
from sidrec.systems.reg4rec.rank import MASSES, OF_ITEM, load_model


def carry_model(source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
    """Write `folder/model` and return how many items are new.

    Raises:
        BundleError: a published item is elsewhere in the new catalogue, or a code has no embedding.
    """
    added = new_items(before, catalog)
    published = len(before)
    model, header, beside = load_model(source)
    sets = TokenSets.of(catalog.codes, model.codebook_size)
    if sets.num_slots != model.num_slots:
        raise BundleError(
            f"the model has {model.num_slots} slots, the catalogue {sets.num_slots}", evidence=source / MODEL
        )
    target = folder / "model"
    target.mkdir(parents=True, exist_ok=True)
    masses = beside[MASSES]
    grown = {MASSES: torch.cat([masses, _new_masses(catalog, published) * bool(masses.any())])}
    if OF_ITEM in beside:
        known = ItemCategories(tuple(header["categories"]), beside[OF_ITEM])
        grown[OF_ITEM] = known.appended(catalog.categories[published:]).of_item
    save_file({**load_file(source / WEIGHTS), **grown}, target / WEIGHTS)
    files.write_json_atomic(target / MODEL, header)
    return {"rows": len(catalog), "new_items": added}


def _new_masses(catalog: Catalog, published: int) -> Float[Tensor, " new"]:
    """Return the new items' masses by the catalogue's counts, as the popularity prior weighs them."""
    past = catalog.popularity.astype(np.float64) + UNSEEN
    masses = catalog.recent_popularity + PAST_WEIGHT * past / past.sum()
    return torch.from_numpy(masses[published:]).float()
