"""A fitted SIDReasoner answers: a prompt, in think mode a rationale behind it, and beams under the catalogue's trie.

A score is a log-probability over the catalogue: at each level, among the codes that some item has there.

Axes: `row` queries, `pos` prompt tokens, `item` of a list, `word` of the whole vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import Catalog
from sidrec.decoding.beam import beam_search, score_items
from sidrec.decoding.nodes import NONE
from sidrec.decoding.openings import ItemRules
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import UsageError
from sidrec.nn.causal import CausalDecoder, CausalShape, CausalSteps, CodeTokens
from sidrec.systems.answers import in_chunks
from sidrec.systems.base import Query, Ranking, ranking_of
from sidrec.systems.history import History, history_of
from sidrec.systems.sidreasoner import tasks
from sidrec.systems.sidreasoner.adapters import plain_state
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import Mode, SIDReasonerModelConfig, SIDReasonerSearchConfig
from sidrec.systems.sidreasoner.encoding import direct_text, encode, question_text, rationale_text
from sidrec.systems.sidreasoner.tokenizer import END_THINK, THINK
from sidrec.systems.sidreasoner.writing import likeliest, write


class Writer(Protocol):
    """Another engine that writes rationales; it does not look at a query's time."""

    def write(self, prompts: Sequence[Sequence[int]], *, most: int, stops: Sequence[int]) -> list[list[int]]:
        """Return the likeliest words behind each prompt: up to the first stop, which is the last word, or `most`."""
        ...


@dataclass(frozen=True, slots=True)
class Thought:
    """A rationale, whether the model ended it by itself, and whether its time was up before."""

    rationale: str
    ended: bool
    num_tokens: int
    hurried: bool = False
    named: frozenset[int] = frozenset()
    """First codes of the semantic IDs that it speaks of."""

    def stats(self, first_code: int | None) -> dict[str, float]:
        """Return what is logged of it and of the answer whose best item has this first code.

        `rationale_ended` is 0 where its budget of words or its time was up. `reason_agreement` is 1 where the best item
        lies among those that it speaks of, by the first code; absent where it names none.
        """
        said = {"rationale_tokens": float(self.num_tokens), "rationale_ended": float(self.ended)}
        if self.named and first_code is not None:
            said["reason_agreement"] = float(first_code in self.named)
        return said


@dataclass(frozen=True)
class SIDReasonerRanker:
    """A backbone's weights laid out for answers, with the catalogue as a trie."""

    backbone: Backbone
    decoder: CausalDecoder
    codes: CodeTokens
    words: Float[Tensor, "dim word"]
    catalog: Catalog
    trie: PrefixTrie
    bias: Float[Tensor, " node"]
    rules: ItemRules
    search: SIDReasonerSearchConfig
    max_history: int
    max_tokens: int
    writer: Writer | None = None

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        catalog: Catalog,
        trie: PrefixTrie,
        search: SIDReasonerSearchConfig,
        *,
        max_history: int,
        max_tokens: int,
    ) -> Self:
        """Return the ranker of a backbone as it is now, which answers where the weights lie.

        Raises:
            UsageError: its architecture is none that answers are computed for.
        """
        try:
            shape = CausalShape.of(backbone.model.config.to_dict())
        except ValueError as error:
            raise UsageError(f"{error}", next_step="model.backbone: a Qwen3 model, or tiny") from error
        decoder = CausalDecoder(shape, plain_state(backbone.model))
        device = decoder.gain.device
        trie = trie.to(device)
        levels = [
            torch.tensor(backbone.token_ids(backbone.vocab.level_tokens(level)), device=device)
            for level in range(trie.num_levels)
        ]
        everything = torch.arange(len(decoder.embedding), device=device)
        words = CodeTokens(decoder, [everything]).weights[0]
        bias = decoder.gain.new_zeros(trie.num_nodes)
        codes, rules = CodeTokens(decoder, levels), ItemRules(trie)
        return cls(backbone, decoder, codes, words, catalog, trie, bias, rules, search, max_history, max_tokens)

    @torch.no_grad()
    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the best items of each query; in mode auto, after thinking where the direct answer was not sure."""
        if self.search.mode != "auto":
            return self._rank(queries, self.search.mode, beam_width, blocked)
        # Two items at least, or there is no margin.
        asked = [replace(query, k=max(2, query.k)) for query in queries]
        rankings = self._rank(asked, "direct", beam_width, blocked)
        unsure = [row for row, own in enumerate(rankings) if margin(own) < self.search.margin]
        again = self._rank([queries[row] for row in unsure], "think", beam_width, blocked)
        answers = dict(zip(unsure, again, strict=True))
        return [
            answers.get(row) or replace(own, items=own.items[: query.k], scores=own.scores[: query.k])
            for row, (query, own) in enumerate(zip(queries, rankings, strict=True))
        ]

    @torch.no_grad()
    def score(
        self, queries: Sequence[Query], lists: Sequence[Int[Tensor, "row item"]]
    ) -> list[Float[Tensor, "row item"]]:
        """Return the exact log-probabilities of each list's items in direct mode, -inf for `NONE`."""
        steps = self.direct_steps(queries)
        device = self.decoder.gain.device
        return [score_items(steps, self.trie, self.bias, items.to(device)).cpu() for items in lists]

    def direct_steps(self, queries: Sequence[Query]) -> CausalSteps:
        """Return a decoder that has read each query's prompt of the direct mode."""
        return self._steps([direct_text(self.backbone.tokenizer, self._question(query)) for query in queries])

    @torch.no_grad()
    def think(self, queries: Sequence[Query]) -> list[Thought]:
        """Return the rationale that the model is surest of, word by word, for each query.

        All of them end when the first query's `think_until` is there.
        """
        opening = f"{THINK}\n"
        texts = [self._think_question(query) + opening for query in queries]
        end, stop = self.backbone.token_ids([END_THINK, str(self.backbone.tokenizer.eos_token)])
        most = self.search.max_rationale_tokens
        if self.writer is not None:
            written = self.writer.write(self._ids(texts), most=most, stops=(end, stop))
            return [self._thought(row, end, stop) for row in written]
        prompt = self.decoder.read(*self._prompts(texts))
        until = min((query.think_until for query in queries if query.think_until is not None), default=None)
        written = write(self.decoder, self.words, prompt, likeliest, most=most, stops=(end, stop), until=until)
        return [self._thought(row, end, stop) for row in written]

    def _thought(self, words: list[int], end: int, stop: int) -> Thought:
        closed = bool(words) and words[-1] in (end, stop)
        said = words[:-1] if closed else words
        hurried = not closed and len(words) < self.search.max_rationale_tokens
        text = str(self.backbone.tokenizer.decode(said)).strip()
        named = frozenset(self._first_codes[word] for word in said if word in self._first_codes)
        return Thought(text, closed and words[-1] == end, len(said), hurried, named)

    @cached_property
    def _first_codes(self) -> dict[int, int]:
        """Return the code of each token of the first level."""
        tokens = self.backbone.token_ids(self.backbone.vocab.level_tokens(0))
        return {token: code for code, token in enumerate(tokens)}

    def _rank(self, queries: Sequence[Query], mode: Mode, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        return in_chunks(queries, lambda chunk: self._rank_chunk(chunk, mode, beam_width, blocked))

    def _rank_chunk(
        self, queries: Sequence[Query], mode: Mode, beam_width: int, blocked: NDArray[np.bool_]
    ) -> list[Ranking]:
        thoughts = self.think(queries) if mode == "think" else [None] * len(queries)
        texts = [
            self._think_question(query) + rationale_text(thought.rationale)
            if thought is not None and thought.rationale
            else direct_text(self.backbone.tokenizer, self._question(query))
            for query, thought in zip(queries, thoughts, strict=True)
        ]
        excluding = [query.items if query.exclude_seen else None for query in queries]
        shut = torch.from_numpy(blocked).to(self.decoder.gain.device)
        allowed = self.rules.openings(shut, excluding)
        beams = beam_search(self._steps(texts), self.trie, self.bias, beam_width=beam_width, allowed=allowed)
        items, scores = beams.items.cpu().numpy(), beams.log_probs.cpu().numpy()
        return [
            self._ranking(query, thought, items[row], scores[row])
            for row, (query, thought) in enumerate(zip(queries, thoughts, strict=True))
        ]

    def _ranking(
        self, query: Query, thought: Thought | None, items: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> Ranking:
        valid = int((items != NONE).sum())
        ranking = ranking_of(items, scores, popularity=self.catalog.popularity, k=query.k, valid_beams=valid)
        if thought is None:
            return ranking
        best = int(self.catalog.codes[ranking.items[0], 0]) if len(ranking.items) else None
        return replace(ranking, stats=thought.stats(best), rationale=thought.rationale, hurried=thought.hurried)

    def _question(self, query: Query) -> tasks.Chat:
        return tasks.code_to_code(self._codes(query))

    def _think_question(self, query: Query) -> str:
        return think_text(self.backbone, history_of(query), max_items=self.max_history)

    def _codes(self, query: Query) -> str:
        return tasks.history_text(history_of(query), self.backbone.vocab.names, max_items=self.max_history)

    def _steps(self, texts: Sequence[str]) -> CausalSteps:
        return CausalSteps(self.decoder, self.decoder.read(*self._prompts(texts)), self.codes)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encode(self.backbone.tokenizer, text)[-self.max_tokens :] for text in texts]

    def _prompts(self, texts: Sequence[str]) -> tuple[Int[Tensor, "row pos"], Int[Tensor, " row"]]:
        """Return prompts with padding behind them; a long one loses its beginning, as in training."""
        ids = self._ids(texts)
        device = self.decoder.gain.device
        tokens = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.int64, device=device)
        for row, own in enumerate(ids):
            tokens[row, : len(own)] = torch.tensor(own)
        return tokens, torch.tensor([len(own) for own in ids], device=device)


def ranker_of(
    backbone: Backbone, catalog: Catalog, search: SIDReasonerSearchConfig, model: SIDReasonerModelConfig
) -> SIDReasonerRanker:
    """Return the ranker of a backbone as it is now, over all items of a catalogue."""
    trie = PrefixTrie.from_codes(catalog.codes)
    return SIDReasonerRanker.of(
        backbone, catalog, trie, search, max_history=model.max_history, max_tokens=model.max_tokens
    )


def think_text(backbone: Backbone, history: History, *, max_items: int) -> str:
    """Return the question of think mode, up to where the assistant writes."""
    codes = tasks.history_text(history, backbone.vocab.names, max_items=max_items)
    return question_text(backbone.tokenizer, tasks.think(codes).question())


def margin(ranking: Ranking) -> float:
    """Return by how much the best item is more probable than the second, in nats."""
    return float(ranking.scores[0] - ranking.scores[1]) if len(ranking.scores) > 1 else float("inf")
