"""Words written after prompts, one at a time, all copies of a prompt sharing what was read of it.

Axes: `batch` prompts, `row` copies of all prompts (one prompt's are neighbours), `word` of the whole vocabulary.
"""

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.nn.causal import CausalDecoder, Prompt
from sidrec.nn.past import Past

Pick = Callable[[Float[Tensor, "row word"]], Int[Tensor, " row"]]


@torch.no_grad()
def write(
    decoder: CausalDecoder,
    words: Float[Tensor, "dim word"],
    prompt: Prompt,
    pick: Pick,
    *,
    most: int,
    stops: Sequence[int],
    copies: int = 1,
    until: float | None = None,
) -> list[list[int]]:
    """Return what follows each copy of each prompt: up to the first stop, which is the last word, or `most` words.

    Once the monotonic clock shows `until`, all rows end.

    Args:
        words: the output weights of the whole vocabulary.
        pick: the next words, by their logits.
    """
    batch = len(prompt.lengths)
    inner = decoder.shape.num_key_heads * decoder.shape.head_dim
    past = Past.empty(prompt.keys, layers=decoder.shape.num_layers, steps=most, rows=batch * copies, inner=inner)
    ends = torch.tensor(list(stops), device=prompt.state.device)
    state = prompt.state.repeat_interleave(copies, dim=0)
    done = torch.zeros(len(state), dtype=torch.bool, device=state.device)
    written: list[Int[Tensor, " row"]] = []
    while until is None or time.monotonic() < until:
        word = pick(state @ words)
        written.append(word)
        done |= torch.isin(word, ends)
        if bool(done.all()) or len(written) == most:
            break
        state = decoder.feed(prompt, past, word.view(batch, copies))
    if not written:
        return [[] for _ in range(len(state))]
    return [_up_to(row, stops) for row in torch.stack(written, dim=1).tolist()]


def likeliest(logits: Float[Tensor, "row word"]) -> Int[Tensor, " row"]:
    """Return the most probable word of each row."""
    return logits.argmax(dim=-1)


def drawn(temperature: float) -> Pick:
    """Return what draws words by their probabilities; torch's own random state decides."""

    def pick(logits: Float[Tensor, "row word"]) -> Int[Tensor, " row"]:
        return torch.multinomial((logits.float() / temperature).softmax(dim=-1), 1)[:, 0]

    return pick


def _up_to(words: list[int], stops: Sequence[int]) -> list[int]:
    end = next((place for place, word in enumerate(words) if word in stops), len(words) - 1)
    return words[: end + 1]
