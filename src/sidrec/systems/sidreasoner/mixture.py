"""The samples of a stage: every task's rows, each of them once, as tokens.

Rows are drawn before training and stay the same in every epoch: of each point and task, which item of its next basket
is asked for, and which rows a cap leaves.

Axes: `row` samples of one task.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sidrec.errors import UsageError
from sidrec.systems.sidreasoner import tasks
from sidrec.systems.sidreasoner.config import SIDReasonerTrainingConfig
from sidrec.systems.sidreasoner.corpus import Corpus
from sidrec.systems.sidreasoner.encoding import Sample, encode_chat, encode_text, encode_turn
from sidrec.systems.sidreasoner.points import Point
from sidrec.systems.sidreasoner.tasks import Chat
from sidrec.systems.sidreasoner.vocab import SidVocab

Row = Callable[[], Sample]


@dataclass(frozen=True)
class Mixture:
    """Makes samples in one vocabulary and of one size.

    Args:
        titles: [catalogue item]; an item without one is called by its name.
    """

    tokenizer: PreTrainedTokenizerBase
    vocab: SidVocab
    titles: Sequence[str]
    max_history: int
    max_tokens: int

    def aligning(
        self, points: Sequence[Point], corpus: Corpus, config: SIDReasonerTrainingConfig, *, seed: int
    ) -> dict[str, list[Sample]]:
        """Return the samples of stage 1 by task; a task that the settings leave out has none."""
        rows = self.aligning_rows(points, corpus, config, seed=seed)
        return {task: [row() for row in own] for task, own in rows.items()}

    def aligning_rows(
        self, points: Sequence[Point], corpus: Corpus, config: SIDReasonerTrainingConfig, *, seed: int
    ) -> dict[str, list[Row]]:
        """Return the rows of stage 1 by task, each encoded when it is called."""
        rows: dict[str, list[Row]] = {
            "code_to_code": [self._chat(self.ask(point, item)) for point, item in _drawn(points, config, seed, 0)],
            "code_to_title": [
                self._chat(tasks.code_to_title(self._codes(point), self.titles[item]))
                for point, item in _drawn(points, config, seed, 1)
                if self.titles[item]
            ],
            "title_to_title": [
                self._chat(tasks.title_to_title(self._titles(point), self.titles[item]))
                for point, item in _drawn(points, config, seed, 2)
                if self.titles[item]
            ],
            "title_to_code": [
                self._chat(tasks.title_to_code(self._titles(point), self.vocab.name(item)))
                for point, item in _drawn(points, config, seed, 3)
            ],
            "code_of_title": [self._chat(tasks.code_of_title(title, name)) for title, name in self._titled()],
            "title_of_code": [self._chat(tasks.title_of_code(name, title)) for title, name in self._titled()],
            "item_text": [self._text(text) for text in corpus.item_texts if config.item_texts],
            "user_text": [self._text(text) for text in corpus.stories if config.user_texts],
            "general": [self._turn(*chat) for chat in general_chats(config.general, config.general_rows)],
        }
        chosen = np.random.default_rng([seed, 0x517])
        return {task: _capped(own, config.rows_per_task, chosen) for task, own in rows.items()}

    def activating(self, corpus: Corpus, *, direct_share: float, seed: int) -> dict[str, list[Sample]]:
        """Return the samples of stage 2a: a rationale and the item it led to, and direct rows of the same points."""
        think = [
            tasks.think(self._codes(own.point), self.vocab.name(own.target), own.text) for own in corpus.rationales
        ]
        number = round(direct_share * len(think))
        order = np.random.default_rng([seed, 0xD1]).permutation(len(think))
        # More than one direct row for each that thinks are the same again.
        direct = [corpus.rationales[order[place % len(order)]] for place in range(number)]
        return {
            "think": [self._chat(chat)() for chat in think],
            "code_to_code": [self._chat(self.ask(own.point, own.target))() for own in direct],
        }

    def direct(self, points: Sequence[Point], *, rows: int, seed: int) -> list[Sample]:
        """Return samples of the recommendation in direct mode, at most so many: what a loss selects by."""
        rng = np.random.default_rng([seed, 0x7A])
        chosen = np.sort(rng.permutation(len(points))[:rows]).tolist()
        return [self._chat(self.ask(points[place], int(rng.choice(points[place].targets))))() for place in chosen]

    def ask(self, point: Point, item: int) -> Chat:
        """Return the recommendation in direct mode with its answer."""
        return tasks.code_to_code(self._codes(point), self.vocab.name(item))

    def _codes(self, point: Point) -> str:
        return tasks.history_text(point.history, self.vocab.names, max_items=self.max_history)

    def _titles(self, point: Point) -> str:
        return tasks.history_text(point.history, self._called, max_items=self.max_history)

    @cached_property
    def _called(self) -> list[str]:
        return [title or name for title, name in zip(self.titles, self.vocab.names, strict=True)]

    def _titled(self) -> list[tuple[str, str]]:
        return [(title, name) for title, name in zip(self.titles, self.vocab.names, strict=True) if title]

    # Encoding is what takes time, so rows that a cap leaves out are never encoded.
    def _chat(self, chat: Chat) -> Row:
        return lambda: encode_chat(self.tokenizer, chat, max_tokens=self.max_tokens)

    def _text(self, text: str) -> Row:
        return lambda: encode_text(self.tokenizer, text, max_tokens=self.max_tokens)

    def _turn(self, question: list[dict[str, str]], answer: str) -> Row:
        return lambda: encode_turn(self.tokenizer, question, answer, max_tokens=self.max_tokens)


def words_of(titles: Sequence[str], corpus: Corpus) -> Iterator[str]:
    """Yield texts with every kind of word that samples have: what a tokenizer is learnt from."""
    yield from titles
    yield from corpus.item_texts
    yield from corpus.stories
    yield from (own.text for own in corpus.rationales)
    questions = (tasks.think(""), tasks.code_to_code(""), tasks.code_to_title("", ""), tasks.title_to_title("", ""))
    for chat in (*questions, tasks.code_of_title("", ""), tasks.title_of_code("", "")):
        # Often enough that a whole question is few tokens.
        yield from [chat.system, chat.user] * 50


def general_chats(path: Path | None, rows: int) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Yield the question and the last answer of the first chats in a file of JSON lines; none where there is no file.

    Raises:
        UsageError: there is no such file, or a line is no chat that ends with an assistant's turn.
    """
    if path is None:
        return
    if not path.is_file():
        raise UsageError(f"no general chats at {path}", next_step="set training.general to a file of JSON lines")
    with path.open(encoding="utf-8") as file:
        for number, line in zip(range(1, rows + 1), file, strict=False):
            try:
                messages: list[dict[str, Any]] = json.loads(line)["messages"]
                turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in messages]
                if turns[-1]["role"] != "assistant":
                    raise ValueError("the last turn is not the assistant's")
            except (ValueError, LookupError, TypeError) as error:
                raise UsageError(f"line {number} of the general chats is no chat: {error}", evidence=path) from error
            yield turns[:-1], turns[-1]["content"]


def _drawn(
    points: Sequence[Point], config: SIDReasonerTrainingConfig, seed: int, task: int
) -> Iterator[tuple[Point, int]]:
    """Yield each point with items of its next basket, other ones for another task."""
    rng = np.random.default_rng([seed, 0xA5, task])
    for point in points:
        for item in rng.permutation(point.targets)[: config.targets_per_basket].tolist():
            yield point, item


def _capped(rows: list[Row], most: int | None, rng: np.random.Generator) -> list[Row]:
    if most is None or len(rows) <= most:
        return rows
    return [rows[place] for place in np.sort(rng.permutation(len(rows))[:most]).tolist()]
