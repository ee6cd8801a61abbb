"""What a teacher wrote: a text an item, a rationale and a story a history; checked, kept on disk, accounted for.

Only training points are read, and no request holds what was bought next. A reply that fails its checks is asked for
again; after its last try the template writes the text, and too many of those stop the run.

Axes: `item` catalogue rows, `point` training points that were chosen.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sidrec.errors import CheckFailedError
from sidrec.process import exclusive
from sidrec.progress import track
from sidrec.systems.sidreasoner import checks, prompts
from sidrec.systems.sidreasoner.config import SIDReasonerCorpusConfig, TeacherConfig
from sidrec.systems.sidreasoner.items import ItemFacts
from sidrec.systems.sidreasoner.points import Point
from sidrec.systems.sidreasoner.reply_cache import ReplyCache
from sidrec.systems.sidreasoner.tasks import shown
from sidrec.systems.sidreasoner.teacher import Request, Teacher
from sidrec.systems.sidreasoner.template_teacher import TemplateTeacher
from sidrec.systems.sidreasoner.vocab import SidVocab

Fault = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Rationale:
    """Why a customer bought what came next, said before it was known."""

    point: Point
    target: int
    text: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts of one teacher, and how they came about."""

    item_texts: list[str]
    rationales: list[Rationale]
    stories: list[str]
    report: dict[str, Any]


def teacher_of(config: TeacherConfig, *, seed: int) -> Teacher:
    """Return the teacher that the settings name."""
    if config.kind == "template":
        return TemplateTeacher(seed)
    from sidrec.systems.sidreasoner.openai_teacher import OpenAITeacher

    return OpenAITeacher(config)


def build_corpus(
    teacher: Teacher,
    config: SIDReasonerCorpusConfig,
    items: Sequence[ItemFacts],
    popularity: Sequence[int],
    points: Sequence[Point],
    vocab: SidVocab,
    replies: Path,
    *,
    max_history: int,
    seed: int,
) -> Corpus:
    """Return the corpus; what `replies` (JSON lines) holds already is not asked for again.

    Args:
        items: [catalogue item], and `popularity` decides which of them get a text.
        points: to learn from, of whose histories a text names the newest `max_history` items.

    Raises:
        BusyError: another process writes to `replies`.
        CheckFailedError: more texts than `config.max_fallback_share` had to come from the template.
    """
    titles = [item.title for item in items]
    order = sorted(range(len(items)), key=lambda item: (-popularity[item], item))[: config.items]
    rng = np.random.default_rng([seed, 0xC0B])
    chosen = np.sort(rng.permutation(len(points))[: config.histories]).tolist()
    rows = [(points[place], int(rng.choice(points[place].targets))) for place in chosen]
    lock = exclusive(replies.with_suffix(".lock"), "the file of the teacher's replies")
    with lock, ReplyCache(replies) as cache:
        writer = _Writer(teacher, TemplateTeacher(seed), config, cache)
        item_texts = _item_texts(writer, order, items, titles, vocab)
        rationales, stories = _user_texts(writer, rows, items, titles, vocab, max_history)
    return Corpus(
        item_texts, rationales, stories, {"teacher": teacher.name, "texts": writer.report, "usage": teacher.usage()}
    )


def _item_texts(
    writer: "_Writer", order: Sequence[int], items: Sequence[ItemFacts], titles: Sequence[str], vocab: SidVocab
) -> list[str]:
    heat = writer.config.temperature
    described = writer.write(
        [prompts.describe_item(items[item], heat) for item in order], [checks.description_fault] * len(order)
    )
    woven: list[Request] = []
    for item, reply in zip(order, described, strict=True):
        assert reply is not None, "the template describes every item"
        description = checks.description_of(reply)
        assert description is not None
        woven.append(prompts.weave_item(vocab.name(item), description, heat))

    def fault_of(item: int) -> Fault:
        return lambda reply: checks.item_fault(reply, item, vocab, titles)

    return [text for text in writer.write(woven, [fault_of(item) for item in order]) if text is not None]


def _user_texts(
    writer: "_Writer",
    rows: Sequence[tuple[Point, int]],
    items: Sequence[ItemFacts],
    titles: Sequence[str],
    vocab: SidVocab,
    max_history: int,
) -> tuple[list[Rationale], list[str]]:
    heat = writer.config.temperature

    def bought_by(point: Point) -> list[int]:
        return [item for basket in shown(point.history, max_items=max_history) for item in basket]

    def fault_of(point: Point, check: Callable[..., str | None]) -> Fault:
        bought = bought_by(point)
        return lambda reply: check(reply, bought, point.targets, vocab, titles)

    read = []
    for point, _ in rows:
        bought = bought_by(point)
        read.append(prompts.read_history([vocab.name(item) for item in bought], [items[item] for item in bought], heat))
    monologues = writer.write(read, [fault_of(point, checks.monologue_fault) for point, _ in rows])
    rationales = [
        Rationale(point, target, text) for (point, target), text in zip(rows, monologues, strict=True) if text
    ]
    told = []
    for rationale in rationales:
        names = [vocab.name(item) for item in bought_by(rationale.point)]
        told.append(prompts.weave_history(names, rationale.text, heat))
    stories = writer.write(told, [fault_of(rationale.point, checks.story_fault) for rationale in rationales])
    return rationales, [story for story in stories if story is not None]


class _Writer:
    """Asks, checks, asks again, and counts."""

    def __init__(
        self, teacher: Teacher, template: TemplateTeacher, config: SIDReasonerCorpusConfig, cache: ReplyCache
    ) -> None:
        self.teacher, self.template, self.config, self.cache = teacher, template, config, cache
        self.report: dict[str, dict[str, Any]] = {}

    def write(self, requests: Sequence[Request], faults: Sequence[Fault]) -> list[str | None]:
        """Return a checked reply a request; None where not even the template's holds."""
        if not requests:
            return []
        task = requests[0].task
        counts: Counter[str] = Counter()
        texts: list[str | None] = [None] * len(requests)
        waiting = list(range(len(requests)))
        # Rules say the same again.
        attempts = 1 if self.teacher.name == self.template.name else self.config.attempts
        for attempt in range(attempts):
            asked = [requests[place].again(attempt) for place in waiting]
            for place, reply in zip(waiting, self._replies(asked, f"corpus: {task}", counts), strict=True):
                fault = "no reply" if reply is None else faults[place](reply)
                if fault is None:
                    texts[place] = reply
                else:
                    counts[f"rejected: {fault}"] += 1
            waiting = [place for place in waiting if texts[place] is None]
            if not waiting:
                break
        for place, (_, reply) in zip(
            waiting, self.template.answer([requests[place] for place in waiting]), strict=True
        ):
            assert reply is not None
            fault = faults[place](reply)
            texts[place] = reply if fault is None else None
            counts["fallback" if fault is None else "dropped"] += 1
        self.report[task] = {"requests": len(requests), **dict(sorted(counts.items()))}
        self._require_teacher(task, len(waiting), len(requests))
        return texts

    def _replies(self, requests: Sequence[Request], label: str, counts: Counter[str]) -> list[str | None]:
        keys = [request.key(self.teacher.name) for request in requests]
        replies = [self.cache.get(key) for key in keys]
        new = [place for place, reply in enumerate(replies) if reply is None]
        counts["asked"] += len(new)
        found = self.teacher.answer([requests[place] for place in new])
        for number, reply in track(found, label, total=len(new)):
            if reply is None:
                continue
            place = new[number]
            self.cache.put(keys[place], reply, teacher=self.teacher.name, task=requests[place].task)
            replies[place] = reply
        return [None if reply is None else checks.stripped(reply) for reply in replies]

    def _require_teacher(self, task: str, fallen: int, total: int) -> None:
        if self.teacher.name != self.template.name and fallen > self.config.max_fallback_share * total:
            raise CheckFailedError(
                f"{self.teacher.name} wrote {total - fallen} of {total} texts ({task}) as they must be: "
                f"{self.report[task]}",
                evidence=self.cache.path,
                next_step="take another teacher, more corpus.attempts, or raise corpus.max_fallback_share",
            )
