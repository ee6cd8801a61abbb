"""Another engine's words are used as our own are; where vLLM is installed, they are the same words."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.encoding import encode
from sidrec.systems.sidreasoner.tokenizer import END_THINK
from sidrec.systems.sidreasoner.vllm_engine import VllmWriter, _with_stop
from tests.sidrec.systems.sidreasoner.test_rank import NOTHING, QUERIES, ranker_of
from tests.sidrec.systems.sidreasoner.test_train import inputs_of, system_of
from tests.sidrec.systems.sidreasoner.world import titled

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here")


@pytest.fixture(scope="module")
def catalog(world: Any) -> Catalog:
    return titled(world)


def test_an_engines_words_are_the_rationale(lively: Backbone, catalog: Catalog) -> None:
    """It gets the prompts, the budget and both stops; a rationale without an end was cut by its budget, not hurried."""
    said = encode(lively.tokenizer, "they like gardens")
    end, stop = lively.token_ids([END_THINK, "<|im_end|>"])
    asked: list[tuple[list[list[int]], int, Sequence[int]]] = []

    class Scripted:
        def write(self, prompts: Sequence[Sequence[int]], *, most: int, stops: Sequence[int]) -> list[list[int]]:
            asked.append(([list(prompt) for prompt in prompts], most, stops))
            return [[*said, end], [*said, stop], said * most][: len(prompts)]

    ranker = replace(ranker_of(lively, catalog, mode="think"), writer=Scripted())
    thoughts = ranker.think(QUERIES)

    [(prompts, most, stops)] = asked
    assert (most, tuple(stops)) == (12, (end, stop))
    assert [lively.tokenizer.decode(prompt).endswith("<think>\n") for prompt in prompts] == [True] * 3
    assert [thought.ended for thought in thoughts] == [True, False, False]
    assert [thought.hurried for thought in thoughts] == [False] * 3
    assert thoughts[0].rationale == thoughts[1].rationale == "they like gardens"


@pytest.mark.parametrize(
    ("words", "reason", "expected"), [([4, 9], 9, [4, 9]), ([4], 9, [4, 9]), ([4], None, [4]), ([4], "x", [4])]
)
def test_a_stop_is_the_last_word(words: list[int], reason: int | str | None, expected: list[int]) -> None:
    assert _with_stop(words, reason, (9,)) == expected


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_engine_is_named(world: Any, tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match=r"search.engine is vllm") as caught:
        system_of(search={"engine": "vllm"}).open(tmp_path, titled(world))
    assert "pip install vllm" in str(caught.value.next_step)


@needs_vllm
@pytest.mark.slow
def test_vllm_writes_our_words(world: Any, catalog: Catalog, tmp_path: Path) -> None:
    """The same greedy rationales, and so the same answers, from the same folder."""
    system_of(training={"epochs": 1}).fit(inputs_of(world), tmp_path)
    search = {"mode": "think", "max_rationale_tokens": 24}
    own = system_of(search=search).open(tmp_path / "model", catalog)
    other = replace(own, writer=VllmWriter(tmp_path / "model" / "language_model", max_tokens=400))

    assert [thought.rationale for thought in other.think(QUERIES)] == [
        thought.rationale for thought in own.think(QUERIES)
    ]
    for ours, theirs in zip(
        own.rank(QUERIES, beam_width=9, blocked=NOTHING),
        other.rank(QUERIES, beam_width=9, blocked=NOTHING),
        strict=True,
    ):
        assert ours.items.tolist() == theirs.items.tolist()
