"""Words after prompts: where they end, and that copies of a prompt go their own ways from the same beginning."""

import time
from itertools import pairwise

import torch

from sidrec.nn.causal import CausalDecoder, CausalShape, CodeTokens, Prompt
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.writing import drawn, likeliest, write

PROMPTS = [[5, 9, 12, 7], [30, 2]]


def read(backbone: Backbone) -> tuple[CausalDecoder, torch.Tensor, Prompt]:
    decoder = CausalDecoder(CausalShape.of(backbone.model.config.to_dict()), backbone.model.state_dict())
    words = CodeTokens(decoder, [torch.arange(len(decoder.embedding))]).weights[0]
    tokens = torch.tensor([[5, 9, 12, 7], [30, 2, 0, 0]])
    return decoder, words, decoder.read(tokens, torch.tensor([4, 2]))


def test_the_likeliest_words_are_the_whole_models(backbone: Backbone) -> None:
    decoder, words, prompt = read(backbone)
    for start, found in zip(PROMPTS, write(decoder, words, prompt, likeliest, most=5, stops=[]), strict=True):
        ids = list(start)
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(backbone.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert found == ids[len(start) :]


def test_a_row_ends_with_its_first_stop(backbone: Backbone) -> None:
    """The others go on, and all end when the last one has."""
    decoder, words, prompt = read(backbone)
    script = iter([[1, 7], [2, 8], [3, 9], [4, 2], [1, 1]])
    found = write(decoder, words, prompt, lambda logits: torch.tensor(next(script)), most=9, stops=[2])

    assert found == [[1, 2], [7, 8, 9, 2]]
    assert next(script) == [1, 1]


def test_writing_ends_when_its_time_is_up(backbone: Backbone) -> None:
    """After the word that it was at; before the first one there is none."""
    decoder, words, prompt = read(backbone)
    soon = time.monotonic() + 0.3

    def slow(logits: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2)
        return torch.tensor([1, 1])

    assert write(decoder, words, prompt, slow, most=9, stops=[], until=soon) == [[1, 1], [1, 1]]
    assert write(decoder, words, prompt, slow, most=9, stops=[], until=soon) == [[], []]


def test_copies_share_a_prompt_and_draw_by_themselves(backbone: Backbone) -> None:
    decoder, words, prompt = read(backbone)
    torch.manual_seed(0)
    found = write(decoder, words, prompt, drawn(1.0), most=4, stops=[], copies=3)

    assert len(found) == 6
    assert all(len(row) == 4 for row in found)
    assert all(one != other for one, other in pairwise(found))


def test_a_cold_draw_is_the_likeliest(backbone: Backbone) -> None:
    decoder, words, prompt = read(backbone)
    greedy = write(decoder, words, prompt, likeliest, most=4, stops=[], copies=2)

    assert write(decoder, words, prompt, drawn(1e-4), most=4, stops=[], copies=2) == greedy
