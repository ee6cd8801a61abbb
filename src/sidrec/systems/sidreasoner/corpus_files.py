"""A corpus on disk: a header, and a JSON line a text. Equal texts make equal bytes, however they came about.

A rationale names its training point by user and number of baskets, so that a fit finds it among its own points.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.errors import CheckFailedError
from sidrec.systems.sidreasoner.corpus import Corpus, Rationale
from sidrec.systems.sidreasoner.points import Point
from sidrec.systems.sidreasoner.vocab import SidVocab

FORMAT = 1
HEADER, TEXTS = "corpus.json", "texts.jsonl"


def write_corpus(folder: Path, corpus: Corpus, vocab: SidVocab) -> None:
    """Write a corpus whose texts name the items of a vocabulary."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in _rows(corpus)]
    files.write_text_atomic(folder / TEXTS, "".join(f"{row}\n" for row in rows))
    header = {"format": FORMAT, "teacher": corpus.report["teacher"], "fingerprint": vocab.fingerprint}
    files.write_json_atomic(folder / HEADER, header)


def read_corpus(folder: Path, points: Sequence[Point], vocab: SidVocab) -> Corpus:
    """Return the corpus in `folder`; its report counts the texts.

    Args:
        points: what the fit learns from.

    Raises:
        CheckFailedError: there is none, it is of another format or of other semantic IDs, or a rationale is about a
            point that is not learnt from here.
    """
    if not (folder / HEADER).is_file():
        raise CheckFailedError(f"no corpus in {folder}: no {HEADER}", evidence=folder)
    header: dict[str, Any] = files.read_json(folder / HEADER)
    if header.get("format") != FORMAT:
        raise CheckFailedError(f"the corpus is of format {header.get('format')!r}, expected {FORMAT}", evidence=folder)
    if header["fingerprint"] != vocab.fingerprint:
        raise CheckFailedError(
            f"the corpus names items by semantic IDs {header['fingerprint'][:12]}…, the catalogue's are "
            f"{vocab.fingerprint[:12]}…",
            evidence=folder,
            next_step="sidrec run, which writes a corpus of this catalogue",
        )
    place = {(point.user, len(point.history)): point for point in points}
    corpus = Corpus([], [], [], {"teacher": header["teacher"]})
    with (folder / TEXTS).open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            match row["of"]:
                case "item":
                    corpus.item_texts.append(row["text"])
                case "story":
                    corpus.stories.append(row["text"])
                case "rationale":
                    point = place.get((row["user"], row["baskets"]))
                    if point is None or row["target"] not in point.targets:
                        raise CheckFailedError(
                            f"a rationale is about basket {row['baskets']} of user {row['user']}, which this fit does "
                            "not learn from",
                            evidence=folder,
                            next_step="write the corpus from the same baskets, seed and training.held_out_share",
                        )
                    corpus.rationales.append(Rationale(point, row["target"], row["text"]))
    corpus.report["texts"] = dict(Counter(row["of"] for row in _rows(corpus)))
    return corpus


def _rows(corpus: Corpus) -> Iterator[dict[str, Any]]:
    yield from ({"of": "item", "text": text} for text in corpus.item_texts)
    for own in corpus.rationales:
        asked = {"user": own.point.user, "baskets": len(own.point.history), "target": own.target}
        yield {"of": "rationale", **asked, "text": own.text}
    yield from ({"of": "story", "text": text} for text in corpus.stories)
