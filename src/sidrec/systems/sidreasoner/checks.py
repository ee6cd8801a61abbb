"""What a teacher's reply must be; each check returns why it is refused, or None.

Titles count as told when one of three words or more stands in the text, whatever its case: shorter ones are words that
anybody uses.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sidrec.systems.sidreasoner.vocab import SidVocab

DESCRIPTION: dict[str, type] = {
    "detailed_description": str,
    "use_cases": list,
    "target_audience": str,
    "key_features": list,
    "related_keywords": list,
}
MIN_WORDS, MAX_WORDS = 8, 260
# A history's own items that its story must name, at least.
NAMED_SHARE = 0.5

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_CHAT_TOKENS = ("<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")


def stripped(reply: str) -> str:
    """Return a reply without the thoughts and the fence around it that some models add."""
    text = _THOUGHTS.sub("", reply).strip()
    if text.startswith("```"):
        text = text.removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    return text


def description_of(reply: str) -> dict[str, Any] | None:
    """Return the description in a reply, None where it is none."""
    try:
        value = json.loads(reply)
    except ValueError:
        return None
    return value if isinstance(value, dict) and _description_fault(value) is None else None


def description_fault(reply: str) -> str | None:
    """Return why a reply is no description."""
    try:
        value = json.loads(reply)
    except ValueError:
        return "no JSON"
    return _description_fault(value) if isinstance(value, dict) else "no JSON object"


def item_fault(reply: str, item: int, vocab: SidVocab, titles: Sequence[str]) -> str | None:
    """Return why a reply is no text about an item that goes by its name alone."""
    mentions = list(vocab.mentions(reply))
    if [named for named, _ in mentions].count(item) < 2:
        return "name too seldom"
    if any(named != item for named, _ in mentions):
        return "other names"
    return _prose_fault(reply) or _title_fault(reply, [titles[item]])


def monologue_fault(
    reply: str, items: Iterable[int], targets: Iterable[int], vocab: SidVocab, titles: Sequence[str]
) -> str | None:
    """Return why a reply is no monologue on these items that leaves the next ones open."""
    return _history_fault(reply, set(items), set(targets), vocab, titles, least=1)


def story_fault(
    reply: str, items: Iterable[int], targets: Iterable[int], vocab: SidVocab, titles: Sequence[str]
) -> str | None:
    """Return why a reply is no story of these items that names them, by their names alone."""
    own = set(items)
    fault = _history_fault(reply, own, set(targets), vocab, titles, least=max(1, round(NAMED_SHARE * len(own))))
    return fault or _title_fault(reply, [titles[item] for item in own])


def _history_fault(
    reply: str, items: set[int], targets: set[int], vocab: SidVocab, titles: Sequence[str], *, least: int
) -> str | None:
    named = {item for item, _ in vocab.mentions(reply)}
    # A target may be a repeat, which the history names anyway.
    told = targets - items
    if named & told or _title_fault(reply, [titles[item] for item in told]):
        return "next purchase told"
    if not named <= items:
        return "other names"
    if len(named) < least:
        return "name too seldom"
    return _prose_fault(reply)


def _prose_fault(reply: str) -> str | None:
    if any(token in reply for token in _CHAT_TOKENS):
        return "chat tokens"
    words = len(reply.split())
    if not MIN_WORDS <= words <= MAX_WORDS:
        return "too short" if words < MIN_WORDS else "too long"
    return None


def _title_fault(reply: str, titles: Iterable[str]) -> str | None:
    text = " ".join(reply.casefold().split())
    plain = (" ".join(title.casefold().split()) for title in titles)
    return "title told" if any(title in text for title in plain if title.count(" ") >= 2) else None


def _description_fault(value: dict[str, Any]) -> str | None:
    for key, kind in DESCRIPTION.items():
        if not isinstance(value.get(key), kind) or not value[key]:
            return f"no {key}"
        if kind is list and not all(isinstance(part, str) and part for part in value[key]):
            return f"no {key}"
    return None
