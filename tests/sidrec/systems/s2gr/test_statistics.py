"""What a search says of its thoughts is what the plain decoder thinks."""

from typing import Any

import pytest
import torch

from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.model import Decoding
from tests.sidrec.systems.s2gr.test_explain import CLUSTERS, FREE, _cosine, queries, ranker_of


@pytest.mark.parametrize("thinking", ["stepwise", "ahead"])
@torch.no_grad()
def test_the_first_thought_is_logged(world: Any, model_config: S2GRModelConfig, thinking: str) -> None:
    """Its length, and the cluster of the largest cosine by a plain loop, user by user."""
    ranker = ranker_of(world.catalog, model_config, thinking=thinking)
    asked = queries()
    rankings = ranker.rank(asked, beam_width=20, blocked=FREE)
    for query, ranking in zip(asked, rankings, strict=True):
        memory = ranker.encode([query])
        decoding = Decoding(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
        token = decoding.next_logits(0, decoding.begin())[1][0][0, 0]
        cosines = [float(_cosine(ranker, 0, token, cluster)) for cluster in range(CLUSTERS)]

        assert ranking.stats["thought_norm"] == pytest.approx(float(token.norm()), abs=1e-3)
        assert ranking.stats["thought_cluster"] == max(range(CLUSTERS), key=cosines.__getitem__)


@pytest.mark.parametrize("thinking", ["none", "pause"])
def test_without_a_thought_there_is_nothing_to_say(world: Any, model_config: S2GRModelConfig, thinking: str) -> None:
    """A constant in a token's place is no thought."""
    ranker = ranker_of(world.catalog, model_config, thinking=thinking)

    assert [one.stats for one in ranker.rank(queries(), beam_width=20, blocked=FREE)] == [{}] * 5
