"""A fitted generator over a catalogue that was appended to: every weight as it was, new prefixes start at their prior.

Axes: `node` prefixes of a trie.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import NONE, ROOT, PrefixTrie
from sidrec.errors import BundleError
from sidrec.systems.appended import new_items
from sidrec.systems.base import MODEL, WEIGHTS
from sidrec.systems.popularity_masses import PAST_WEIGHT, UNSEEN


def carry_model(source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
    """Write `folder/model` and return how many prefixes are new.

    Raises:
        BundleError: a published item is elsewhere in the new catalogue, or a code has no embedding.
    """
    added = new_items(before, catalog)
    header: dict[str, Any] = files.read_json(source / MODEL)
    sizes = header["codebook_sizes"]
    if catalog.num_codes != len(sizes) or (catalog.codes.max(axis=0) >= sizes).any():
        raise BundleError(
            f"the model has embeddings for {sizes} codes a level, the catalogue asks for "
            f"{(catalog.codes.max(axis=0) + 1).tolist()}",
            evidence=source / MODEL,
        )
    tensors = load_file(source / WEIGHTS)
    old, new = PrefixTrie.from_codes(before.codes), PrefixTrie.from_codes(catalog.codes)
    origin = same_prefix(old, new)
    known = origin != NONE
    bias = torch.where(known, tensors["node_bias"][origin.clamp(min=0)], popularity_bias(new, catalog))
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    save_file({**tensors, "node_bias": bias}, model / WEIGHTS)
    files.write_json_atomic(model / MODEL, header)
    return {"rows": len(catalog), "new_prefixes": int((~known).sum()), "new_items": added}


def same_prefix(old: PrefixTrie, new: PrefixTrie) -> Int[Tensor, " node"]:
    """Return the old trie's node of each new prefix, NONE where it is new."""
    child = {
        (parent, code): node
        for node, (parent, code) in enumerate(zip(old.parent.tolist(), old.code.tolist(), strict=True))
    }
    origin = [ROOT]
    for parent, code in zip(new.parent[1:].tolist(), new.code[1:].tolist(), strict=True):
        origin.append(child.get((origin[parent], code), NONE))
    return torch.tensor(origin)


def popularity_bias(trie: PrefixTrie, catalog: Catalog) -> Float[Tensor, " node"]:
    """Return log p(node | its parent) by the catalogue's counts, as the popularity prior weighs them."""
    past = torch.from_numpy(catalog.popularity.astype(np.float64)) + UNSEEN
    mass = torch.from_numpy(catalog.recent_popularity.astype(np.float64)) + PAST_WEIGHT * past / past.sum()
    nodes = trie.node_sums(mass)
    bias = nodes.log() - nodes[trie.parent.clamp(min=0)].log()
    bias[ROOT] = 0.0
    return bias.float()
