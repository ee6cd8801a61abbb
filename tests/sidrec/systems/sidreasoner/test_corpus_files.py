"""A corpus is read as it was written, and only by a fit of the same items and users."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidrec.errors import CheckFailedError
from sidrec.systems.sidreasoner.config import SIDReasonerCorpusConfig
from sidrec.systems.sidreasoner.corpus import Corpus, build_corpus
from sidrec.systems.sidreasoner.corpus_files import read_corpus, write_corpus
from sidrec.systems.sidreasoner.items import item_facts
from sidrec.systems.sidreasoner.points import Point, held_out, points_of
from sidrec.systems.sidreasoner.template_teacher import TemplateTeacher
from tests.sidrec.systems.sidreasoner.world import histories, titled, vocab_of


@pytest.fixture(scope="module")
def points(world: Any) -> list[Point]:
    """The points that are learnt from; some users are held out."""
    return held_out(points_of(histories(world)), share=0.2, seed=0)[0]


@pytest.fixture(scope="module")
def corpus(world: Any, points: list[Point], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    catalog = titled(world)
    return build_corpus(
        TemplateTeacher(0),
        SIDReasonerCorpusConfig(items=5, histories=12),
        item_facts(catalog),
        catalog.popularity.tolist(),
        points,
        vocab_of(catalog),
        tmp_path_factory.mktemp("corpus") / "replies.jsonl",
        max_history=10,
        seed=0,
    )


@pytest.fixture
def folder(world: Any, corpus: Corpus, tmp_path: Path) -> Path:
    write_corpus(tmp_path / "prepared", corpus, vocab_of(titled(world)))
    return tmp_path / "prepared"


def about(corpus: Corpus) -> Sequence[tuple[int, int, int, str]]:
    return [(own.point.user, len(own.point.history), own.target, own.text) for own in corpus.rationales]


def test_what_is_read_is_what_was_written(world: Any, points: list[Point], corpus: Corpus, folder: Path) -> None:
    """Texts, and rationales with the very points that a fit has; what the teacher cost is not among the files."""
    read = read_corpus(folder, points, vocab_of(titled(world)))

    assert (read.item_texts, read.stories) == (corpus.item_texts, corpus.stories)
    assert about(read) == about(corpus)
    assert all(any(own.point is point for point in points) for own in read.rationales)
    assert read.report == {"teacher": "template-1-0", "texts": {"item": 5, "rationale": 12, "story": 12}}
    assert sorted(path.name for path in folder.iterdir()) == ["corpus.json", "texts.jsonl"]


def test_lines_and_letters_of_a_text_stay(world: Any, points: list[Point], corpus: Corpus, tmp_path: Path) -> None:
    text = "Überall\r\n\u2028 “Tee”\n"
    write_corpus(tmp_path, replace(corpus, stories=[text], item_texts=[]), vocab_of(titled(world)))

    assert read_corpus(tmp_path, points, vocab_of(titled(world))).stories == [text]


def test_users_held_out_elsewhere_are_noticed(world: Any, corpus: Corpus, folder: Path) -> None:
    """A rationale about a user that this fit holds out would be learnt from; where none is held out, all may be."""
    everyone = points_of(histories(world))
    others = [point for point in everyone if point.user != corpus.rationales[0].point.user]

    with pytest.raises(CheckFailedError, match="which this fit does not learn from"):
        read_corpus(folder, others, vocab_of(titled(world)))
    assert about(read_corpus(folder, everyone, vocab_of(titled(world)))) == about(corpus)


def test_a_corpus_of_other_semantic_ids_is_refused(world: Any, points: list[Point], folder: Path) -> None:
    catalog = titled(world)
    moved = replace(catalog, codes=catalog.codes[::-1].copy())

    with pytest.raises(CheckFailedError, match="the corpus names items by semantic IDs"):
        read_corpus(folder, points, vocab_of(moved))


def test_a_folder_without_a_corpus_or_of_another_format_is_named(
    world: Any, points: list[Point], folder: Path, tmp_path: Path
) -> None:
    vocab = vocab_of(titled(world))
    header = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps({**header, "format": 2}))

    with pytest.raises(CheckFailedError, match="the corpus is of format 2, expected 1"):
        read_corpus(folder, points, vocab)
    with pytest.raises(CheckFailedError, match=r"no corpus in .*/nothing"):
        read_corpus(tmp_path / "nothing", points, vocab)
