"""A model is carried over an appended catalogue with every weight, and not over a changed one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import NONE, PrefixTrie
from sidrec.errors import BundleError
from sidrec.systems.base import Query
from sidrec.systems.config import RepeatConfig
from sidrec.systems.s2gr.carry import carry_model, popularity_bias, same_prefix
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.s2gr.train import S2GRSystem

NOW = 14_914 * 86_400


def appended(catalog: Catalog, codes: list[list[int]], recent: int = 50) -> Catalog:
    more = pl.DataFrame(
        {
            "item_id": [f"new{row}" for row in range(len(codes))],
            "title": ["new"] * len(codes),
            "popularity": [recent] * len(codes),
            "recent_popularity": [recent] * len(codes),
        }
    )
    table = pl.concat([catalog.table().drop("codes"), more], how="diagonal")
    return Catalog.build(table, np.concatenate([catalog.codes, np.array(codes, dtype=np.int32)]))


@pytest.fixture(scope="module")
def model(world: Any, codebook_config: S2GRCodebookConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    training = S2GRTrainingConfig(epochs=2, batch_users=16, targets_per_basket=2)
    S2GRSystem(codebook_config, S2GRModelConfig(dim=16, ff_dim=32), training, RepeatConfig()).fit(
        world.inputs(), folder
    )
    return folder / "model"


def free_codes(catalog: Catalog) -> list[list[int]]:
    """Return a free semantic ID under a known prefix and one under a prefix of its own."""
    used = {tuple(row) for row in catalog.codes.tolist()}
    beside = next(
        [*row[:2], code] for row in catalog.codes.tolist() for code in range(8) if (*row[:2], code) not in used
    )
    prefixes = {row[:2] for row in used}
    apart = next([a, b, 0] for a in range(8) for b in range(8) if (a, b) not in prefixes)
    return [beside, apart]


def test_old_prefixes_keep_their_weights_and_new_ones_their_popularity(world: Any, model: Path, tmp_path: Path) -> None:
    """Every tensor but the prefix biases is the same to the last bit; biases of old prefixes are too."""
    catalog = appended(world.catalog, free_codes(world.catalog))
    summary = carry_model(model, world.catalog, catalog, tmp_path)
    before, after = load_file(model / "weights.safetensors"), load_file(tmp_path / "model" / "weights.safetensors")
    old, new = PrefixTrie.from_codes(world.catalog.codes), PrefixTrie.from_codes(catalog.codes)
    origin = same_prefix(old, new)
    known = origin != NONE

    assert summary == {"rows": 66, "new_items": 2, "new_prefixes": 3}
    assert all(torch.equal(after[name], before[name]) for name in before if name != "node_bias")
    assert torch.equal(after["node_bias"][known], before["node_bias"][origin[known]])
    assert torch.equal(after["node_bias"][~known], popularity_bias(new, catalog)[~known])


def test_a_new_item_can_be_recommended(
    world: Any, codebook_config: S2GRCodebookConfig, model: Path, tmp_path: Path
) -> None:
    """A best seller that was appended beside a liked item comes up; the same item unsold does not."""
    system = S2GRSystem(codebook_config, S2GRModelConfig(dim=16, ff_dim=32), S2GRTrainingConfig(), RepeatConfig())
    query = Query(np.arange(3), np.full(3, NOW), np.zeros(3, dtype=np.int64), NOW, k=66, exclude_seen=True)
    rank = {}
    for recent in (0, 5000):
        catalog = appended(world.catalog, free_codes(world.catalog), recent)
        system.carry(model, world.catalog, catalog, tmp_path / str(recent))
        ranker = system.open(tmp_path / str(recent) / "model", catalog)
        [ranking] = ranker.rank([query], beam_width=66, blocked=np.zeros(66, dtype=bool))
        rank[recent] = ranking.items.tolist().index(64)

    assert rank[5000] < rank[0]


def test_popularity_bias_is_the_share_of_the_siblings() -> None:
    """By hand: recent sales 3 and 1 under one prefix, nothing in the past, are log 3/4 and log 1/4."""
    items = pl.DataFrame({"item_id": ["a", "b"], "recent_popularity": [3_000_000, 1_000_000]})
    catalog = Catalog.build(items, np.array([[0, 0], [0, 1]], dtype=np.int32))
    bias = popularity_bias(PrefixTrie.from_codes(catalog.codes), catalog)

    torch.testing.assert_close(bias.exp(), torch.tensor([1.0, 1.0, 0.75, 0.25]), atol=1e-4, rtol=0)


def test_a_published_item_that_moved_is_refused(world: Any, model: Path, tmp_path: Path) -> None:
    """Weights learnt for one semantic ID mean nothing under another."""
    codes = world.catalog.codes.copy()
    codes[0] = free_codes(world.catalog)[0]

    with pytest.raises(BundleError, match="another row or semantic ID"):
        carry_model(model, world.catalog, replace(world.catalog, codes=codes), tmp_path)


def test_a_code_without_an_embedding_is_refused(world: Any, model: Path, tmp_path: Path) -> None:
    """The model has 8 codes a level; a ninth has no vector."""
    with pytest.raises(BundleError, match="embeddings"):
        carry_model(model, world.catalog, appended(world.catalog, [[8, 0, 0]]), tmp_path)
