"""A corpus is checked text about training points only; what was written once is not written again."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sidrec.errors import CheckFailedError
from sidrec.systems.history import History
from sidrec.systems.sidreasoner import checks
from sidrec.systems.sidreasoner.config import SIDReasonerCorpusConfig, TeacherConfig
from sidrec.systems.sidreasoner.corpus import Corpus, build_corpus, teacher_of
from sidrec.systems.sidreasoner.items import item_facts
from sidrec.systems.sidreasoner.points import Point, held_out, points_of
from sidrec.systems.sidreasoner.reply_cache import ReplyCache
from sidrec.systems.sidreasoner.tasks import shown
from sidrec.systems.sidreasoner.teacher import Request, Teacher
from sidrec.systems.sidreasoner.template_teacher import TemplateTeacher, last_category
from sidrec.systems.sidreasoner.vocab import SidVocab
from tests.sidrec.systems.sidreasoner.chat_server import ChatServer
from tests.sidrec.systems.sidreasoner.world import histories, titled, vocab_of

CONFIG = SIDReasonerCorpusConfig(items=20, histories=15)


@pytest.fixture(scope="module")
def vocab(world: Any) -> SidVocab:
    return vocab_of(titled(world))


def corpus_of(world: Any, teacher: Teacher, folder: Path, config: SIDReasonerCorpusConfig = CONFIG) -> Corpus:
    catalog = titled(world)
    return build_corpus(
        teacher,
        config,
        item_facts(catalog),
        catalog.popularity.tolist(),
        points_of(histories(world)),
        vocab_of(catalog),
        folder / "replies.jsonl",
        max_history=10,
        seed=0,
    )


class Scripted:
    """A teacher that writes what `write` says, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, write: Callable[[Request], str | None]) -> None:
        self.write, self.asked = write, list[Request]()

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, str | None]]:
        for number, request in enumerate(requests):
            self.asked.append(request)
            yield number, self.write(request)

    def usage(self) -> dict[str, Any]:
        return {}


def by_rule(request: Request) -> str | None:
    return next(TemplateTeacher().answer([request]))[1]


def test_the_template_writes_texts_that_hold(world: Any, vocab: SidVocab, tmp_path: Path) -> None:
    """The most sold items and a sample of points; every check holds, so none falls back or is dropped."""
    catalog = titled(world)
    corpus = corpus_of(world, TemplateTeacher(), tmp_path)
    named = [next(vocab.mentions(text))[0] for text in corpus.item_texts]

    assert len(corpus.item_texts) == 20
    assert len(corpus.rationales) == len(corpus.stories) == 15
    assert {catalog.popularity[item] for item in named} == set(np.sort(catalog.popularity)[-20:])
    assert all(set(counts) == {"requests", "asked"} for counts in corpus.report["texts"].values())
    assert corpus.report["teacher"] == "template-1-0"
    assert not any(title in text for title in catalog.titles for text in [*corpus.item_texts, *corpus.stories])


def test_a_rationale_does_not_know_what_came_next(world: Any, vocab: SidVocab, tmp_path: Path) -> None:
    """No request holds the next basket, unless the history has it; the target is of that basket."""
    teacher = Scripted(by_rule)
    corpus = corpus_of(world, teacher, tmp_path)
    read = [request for request in teacher.asked if request.task == "read_history"]
    for request, rationale in zip(read, corpus.rationales, strict=True):
        bought = {item for basket in shown(rationale.point.history, max_items=10) for item in basket}
        told = set(rationale.point.targets) - bought

        assert rationale.target in rationale.point.targets
        assert not told & {item for item, _ in vocab.mentions(request.user + rationale.text + str(request.facts))}


def test_the_same_corpus_twice_is_asked_for_once(world: Any, tmp_path: Path) -> None:
    first, second = Scripted(by_rule), Scripted(by_rule)
    made = corpus_of(world, first, tmp_path)
    again = corpus_of(world, second, tmp_path)

    assert len(first.asked) == 2 * 20 + 2 * 15
    assert second.asked == []
    assert again.item_texts == made.item_texts
    assert [own.text for own in again.rationales] == [own.text for own in made.rationales]
    assert again.stories == made.stories


def test_a_killed_corpus_goes_on_where_it_was(world: Any, tmp_path: Path) -> None:
    """Replies before the kill are kept, the one that was being written is not; another teacher's are never taken."""
    whole = corpus_of(world, Scripted(by_rule), tmp_path / "whole")

    class Killed(BaseException):
        pass

    def dying(request: Request) -> str | None:
        if len(teacher.asked) == 31:
            raise Killed
        return by_rule(request)

    teacher = Scripted(dying)
    with pytest.raises(Killed):
        corpus_of(world, teacher, tmp_path)
    with (tmp_path / "replies.jsonl").open("a") as file:
        file.write('{"key": "0", "rep')
    resumed = Scripted(by_rule)
    corpus = corpus_of(world, resumed, tmp_path)
    other = Scripted(by_rule)
    other.name = "another"
    corpus_of(world, other, tmp_path)

    assert len(resumed.asked) == 70 - 30
    assert corpus.stories == whole.stories
    assert len(other.asked) == 70
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 140


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"key": "a", "reply": "A"}\nnonsense\n{"key": "b", "reply": "B"}\n')

    with pytest.raises(CheckFailedError, match="line 2 of the replies is none"):
        ReplyCache(path)


def test_a_rejected_reply_is_asked_for_again_and_then_written_by_the_template(world: Any, tmp_path: Path) -> None:
    """One item's text tells its title, every time; another's only at first. Each is accounted for."""
    catalog = titled(world)
    order = sorted(range(64), key=lambda item: (-catalog.popularity[item], item))
    always, once = (vocab_of(catalog).name(item) for item in order[:2])

    def leaking(request: Request) -> str | None:
        if request.task == "weave_item" and (request.facts["name"] == always or request.seed == 0):
            item = order[0] if request.facts["name"] == always else order[1]
            if request.facts["name"] in (always, once):
                name = request.facts["name"]
                return f"{name} is the {catalog.titles[item].upper()} that {name} says it is, and a good one."
        return by_rule(request)

    teacher = Scripted(leaking)
    corpus = corpus_of(world, teacher, tmp_path)

    assert corpus.report["texts"]["weave_item"] == {
        "requests": 20,
        "asked": 20 + 2 + 1,
        "rejected: title told": 4,
        "fallback": 1,
    }
    assert len(corpus.item_texts) == 20
    assert not any(catalog.titles[item].casefold() in text.casefold() for item in order for text in corpus.item_texts)


def test_a_teacher_that_mostly_fails_stops_the_run(world: Any, tmp_path: Path) -> None:
    """A corpus by the template under another name would be a silent fallback."""
    with pytest.raises(CheckFailedError, match=r"scripted wrote 0 of 20 texts \(describe_item\)"):
        corpus_of(world, Scripted(lambda request: "no JSON at all"), tmp_path)
    with pytest.raises(CheckFailedError, match=r"no reply"):
        corpus_of(world, Scripted(lambda request: None), tmp_path / "silent")


def test_a_served_model_writes_a_corpus(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the protocol, with thoughts before and a fence around its replies, one malformed and one that leaks."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    catalog = titled(world)
    vocab, broken, leaks = vocab_of(catalog), ["{broken"], [True]

    def write(body: dict[str, Any]) -> str:
        user = body["messages"][1]["content"]
        names = list(dict.fromkeys(name for _, name in vocab.mentions(user)))
        text = f"It is {names[-1]} again: {' and '.join(names)} all say the same." if names else ""
        if "response_format" in body:
            description = {key: "some words" if kind is str else ["a", "b"] for key, kind in checks.DESCRIPTION.items()}
            return broken.pop() if broken else f"<think>What is it?</think>\n```json\n{json.dumps(description)}\n```"
        if user.startswith("Code:") and leaks:
            own = vocab.item(names[0])
            assert own is not None
            leaks.pop()
            return f"{text} Here {names[0]} is a {catalog.titles[own].lower()}."
        return f"<think>{catalog.titles[0]}</think> {text} {names[-1]}."

    with ChatServer(write).running() as server:
        teacher = teacher_of(TeacherConfig(kind="openai", base_url=server.base_url, model="m"), seed=0)
        corpus = corpus_of(world, teacher, tmp_path, SIDReasonerCorpusConfig(items=6, histories=5))

    assert corpus.report["texts"]["describe_item"] == {"requests": 6, "asked": 7, "rejected: no JSON": 1}
    assert corpus.report["texts"]["weave_item"] == {"requests": 6, "asked": 7, "rejected: title told": 1}
    assert corpus.report["usage"]["requests"] == 7 + 7 + 5 + 5
    assert not any("think" in text for text in [*corpus.item_texts, *corpus.stories])
    assert corpus.report["teacher"].startswith("openai-m@http://127.0.0.1")


NAMES = ("<a_0><b_1>", "<a_2><b_3>", "<a_4><b_4>")
TITLES = ["Small Garden  Lamp", "Red Box", "A very nice cup"]
GOOD = f"It all began with {NAMES[0]} and went on with {NAMES[1]}, as one might have guessed."


@pytest.fixture(scope="module")
def three() -> SidVocab:
    return SidVocab(("x", "y", "z"), np.array([[0, 1], [2, 3], [4, 4]], dtype=np.int32), (5, 5))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD, None),
        (f"{GOOD} A small garden lamp it was.", "title told"),
        (f"{GOOD} A Red Box.", None),
        (f"{GOOD} Then {NAMES[2]}.", "next purchase told"),
        (f"{GOOD} Then A VERY nice\ncup.", "next purchase told"),
        (f"{GOOD} Then <a_1><b_1>.", "other names"),
        ("It all began somewhere and went on, as one might well have guessed.", "name too seldom"),
        (f"{NAMES[0]}, {NAMES[1]}.", "too short"),
        (f"{GOOD} {'and on ' * 200}", "too long"),
        (f"{GOOD} <|im_end|>", "chat tokens"),
        (f"{GOOD} </think>", "chat tokens"),
    ],
)
def test_a_story_names_its_items_and_leaves_the_next_one_open(three: SidVocab, text: str, fault: str | None) -> None:
    assert checks.story_fault(text, [0, 1], [2], three, TITLES) == fault


def test_a_target_that_is_a_repeat_may_be_named(three: SidVocab) -> None:
    """The history names it already."""
    assert checks.story_fault(GOOD, [0, 1], [1], three, TITLES) is None
    assert checks.monologue_fault(f"{GOOD} {TITLES[0]}", [0, 1], [1], three, TITLES) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{NAMES[0]} is good for lamps, and {NAMES[0]} shines.", None),
        (f"{NAMES[0]} is good for lamps, and it really shines.", "name too seldom"),
        (f"{NAMES[0]} is like {NAMES[1]}, and {NAMES[0]} shines.", "other names"),
        (f"{NAMES[0]} is a small garden lamp, and {NAMES[0]} shines.", "title told"),
    ],
)
def test_an_items_text_names_it_by_its_name_alone(three: SidVocab, text: str, fault: str | None) -> None:
    assert checks.item_fault(text, 0, three, TITLES) == fault


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"use_cases": "gifts"}, "no use_cases"),
        ({"key_features": []}, "no key_features"),
        ({"key_features": [1]}, "no key_features"),
        ({"target_audience": ""}, "no target_audience"),
    ],
)
def test_a_description_has_all_its_keys(change: dict[str, Any], fault: str | None) -> None:
    value = {key: "words" if kind is str else ["words"] for key, kind in checks.DESCRIPTION.items()} | change

    assert checks.description_fault(json.dumps(value)) == fault
    assert (checks.description_of(json.dumps(value)) is None) == (fault is not None)
    assert checks.description_fault("[]") == "no JSON object"
    assert checks.description_fault("{") == "no JSON"


def test_keywords_are_words_that_items_share(world: Any) -> None:
    """The rarest first; a word of one item alone would tell which it is."""
    catalog = replace(titled(world), categories=["Home; Garden", *[None] * 63])
    table = pl.DataFrame({"item_id": ["i00"], "brand": ["Acme"], "description": ["A unique lantern"]})
    facts = item_facts(catalog, table)

    assert facts[0].keywords == ("garden", "lamp", "small")
    assert facts[0].brand == "Acme"
    assert last_category(facts[0].categories) == "Garden"
    assert facts[1].categories == ""
    assert facts[1].brand == ""


def test_a_point_is_a_past_and_its_next_basket() -> None:
    history = History(np.array([3, 1, 3, 2, 0]), np.array([0, 2, 4, 5]), np.array([10, 20, 30]))
    points = points_of([history])

    assert [point.history.items.tolist() for point in points] == [[3, 1], [3, 1, 3, 2]]
    assert [point.targets for point in points] == [(3, 2), (0,)]
    assert points[1].history.start.tolist() == [0, 2, 4]


def test_held_out_users_are_learnt_nothing_from(world: Any) -> None:
    points = points_of(histories(world))
    learnt, kept = held_out(points, share=0.2, seed=3)
    both: list[Point] = [*learnt, *kept]

    assert {point.user for point in learnt}.isdisjoint(point.user for point in kept)
    assert len({point.user for point in kept}) == round(0.2 * len({point.user for point in points}))
    assert len(both) == len(points)
    assert held_out(points, share=0.0, seed=3)[1] == []
