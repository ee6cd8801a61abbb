"""Rationales written by vLLM, for backbones and rationales that are long enough to be worth an engine of their own.

Only the writing is its: beams under the catalogue's trie stay here. vLLM is not among this project's dependencies,
since it brings a torch of its own; it is installed beside it where a GPU serves.

Axes: rows of a batch are prompts.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from sidrec.errors import UsageError


def require_vllm() -> None:
    """Do nothing where vLLM is installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "search.engine is vllm, and vLLM is not installed here",
            next_step="pip install vllm on a machine with a GPU, or set search.engine: own",
        )


class VllmWriter:
    """Writes as `sidrec.systems.sidreasoner.writing.write` does with `likeliest`, in vLLM's memory.

    Args:
        folder: of the language model, as it lies in a model or bundle.
        max_tokens: of a prompt and what is written behind it.
    """

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        require_vllm()
        from vllm import LLM  # type: ignore[import-not-found,unused-ignore]

        # Prompts of one user share their beginning with each other and with the next request.
        self._engine = LLM(model=str(folder), max_model_len=max_tokens, enable_prefix_caching=True)

    def write(self, prompts: Sequence[Sequence[int]], *, most: int, stops: Sequence[int]) -> list[list[int]]:
        """Return the likeliest words behind each prompt: up to the first stop, which is the last word, or `most`."""
        from vllm import SamplingParams, TokensPrompt

        settings = SamplingParams(temperature=0, max_tokens=most, stop_token_ids=list(stops), detokenize=False)
        asked = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        return [
            _with_stop(list(found.outputs[0].token_ids), found.outputs[0].stop_reason, stops)
            for found in self._engine.generate(asked, settings, use_tqdm=False)
        ]


def _with_stop(words: list[int], reason: int | str | None, stops: Sequence[int]) -> list[int]:
    """Return the words with the stop that ended them, whether the engine keeps it or only names it."""
    if isinstance(reason, int) and reason in stops and words[-1:] != [reason]:
        return [*words, reason]
    return words
