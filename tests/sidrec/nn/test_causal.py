"""The decoder-only transformer has the logits of Hugging Face's Qwen3, prompt shared or not, padded or not."""

from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="the peer is installed by the extra bench")

from sidrec.decoding.beam import beam_search, score_items  # noqa: E402
from sidrec.decoding.exhaustive import exhaustive_log_probs  # noqa: E402
from sidrec.decoding.trie import PrefixTrie  # noqa: E402
from sidrec.nn.causal import CausalDecoder, CausalShape, CausalSteps, CodeTokens  # noqa: E402

VOCABULARY = 40
LENGTHS = torch.tensor([7, 4, 1])
TOKENS = torch.randint(0, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(1))


def peer_of(*, key_heads: int = 2, tied: bool = True) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        head_dim=8,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    )
    peer = transformers.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            weight.normal_(0, 0.3) if weight.ndim == 2 else weight.normal_(1, 0.3)
            assert "bias" not in name
    return peer


def ours_of(peer: Any) -> CausalDecoder:
    return CausalDecoder(CausalShape.of(peer.config.to_dict()), peer.state_dict())


@torch.no_grad()
def full_logits(peer: Any, tokens: list[int]) -> torch.Tensor:
    return peer(torch.tensor([tokens])).logits[0, -1]


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_after_a_prompt_are_those_of_the_peer(key_heads: int, tied: bool) -> None:
    """Over the whole vocabulary, prompts of three lengths in one batch; padding is never looked at."""
    peer = peer_of(key_heads=key_heads, tied=tied)
    ours = ours_of(peer)
    expected = [full_logits(peer, row[:length].tolist()) for row, length in zip(TOKENS, LENGTHS, strict=True)]

    logits = ours.read(TOKENS, LENGTHS).state @ CodeTokens(ours, [torch.arange(VOCABULARY)]).weights[0]

    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_logits_after_reordered_beams_are_those_of_the_whole_sequence(key_heads: int) -> None:
    """Two codes are fed with a reordering between them; each beam is compared with its tokens from the start."""
    peer = peer_of(key_heads=key_heads)
    ours = ours_of(peer)
    everything = torch.arange(VOCABULARY)
    steps = CausalSteps(ours, ours.read(TOKENS, LENGTHS), CodeTokens(ours, [everything] * 3))
    steps.begin()
    first = torch.tensor([[3, 9], [1, 2], [30, 39]])
    steps.extend(torch.zeros(3, 2, dtype=torch.long), first)
    origin = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    second = torch.tensor([[5, 6, 7], [8, 9, 10], [0, 1, 2]])

    logits = steps.extend(origin, second)

    for user, length in enumerate(LENGTHS.tolist()):
        for beam in range(3):
            sequence = [*TOKENS[user, :length].tolist(), int(first[user, origin[user, beam]]), int(second[user, beam])]
            torch.testing.assert_close(logits[user, beam], full_logits(peer, sequence), atol=1e-4, rtol=1e-5)


def test_a_search_is_exhaustive_scoring() -> None:
    """Full width over items of three codes: every item at its exact log-probability, by both ways of asking."""
    ours = ours_of(peer_of())
    codes = np.unique(np.random.default_rng(0).integers(0, 10, (50, 3)), axis=0).astype(np.int32)
    trie, levels = PrefixTrie.from_codes(codes), [torch.arange(start, start + 10) for start in (5, 15, 25)]
    steps = CausalSteps(ours, ours.read(TOKENS, LENGTHS), CodeTokens(ours, levels))
    prefixes = {tuple(row[: level + 1]): 0.0 for row in codes.tolist() for level in range(3)}
    expected = exhaustive_log_probs(steps, codes, prefixes)
    bias = torch.zeros(trie.num_nodes)

    beams = beam_search(steps, trie, bias, beam_width=len(codes))
    scores = score_items(steps, trie, bias, torch.arange(len(codes)).expand(3, -1))

    torch.testing.assert_close(expected.exp().sum(dim=1), torch.ones(3))
    torch.testing.assert_close(beams.log_probs, expected.gather(1, beams.items), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


def test_the_prompt_is_held_once_whatever_the_beams() -> None:
    """A hundred beams add their own positions and nothing of the prompt."""
    ours = ours_of(peer_of())
    prompt = ours.read(TOKENS, LENGTHS)
    steps = CausalSteps(ours, prompt, CodeTokens(ours, [torch.arange(10)] * 3))
    steps.extend(torch.zeros(3, 100, dtype=torch.long), torch.zeros(3, 100, dtype=torch.long))

    assert prompt.keys.shape == (3, 3 * 2, 8, 7)
    assert steps.prompt is prompt
    assert steps._past.block.shape == (3, 2, 2, 3 * 100, 2 * 8)


def test_what_is_not_computed_here_is_refused() -> None:
    config = peer_of().config.to_dict()

    with pytest.raises(ValueError, match="rope_type of the configuration is 'yarn', only 'default'"):
        CausalShape.of(config | {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}})
    with pytest.raises(ValueError, match="model_type of the configuration is 'llama'"):
        CausalShape.of(config | {"model_type": "llama"})


def test_an_incomplete_state_dict_is_refused_by_name() -> None:
    peer = peer_of()
    state = {name: value for name, value in peer.state_dict().items() if "layers.1.mlp.up_proj" not in name}

    with pytest.raises(ValueError, match=r"no model\.layers\.1\.mlp\.up_proj\.weight"):
        CausalDecoder(CausalShape.of(peer.config.to_dict()), state)
