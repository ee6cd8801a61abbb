"""A teacher without a model: rules and a few sentence frames, the same reply to the same request on every machine.

It knows no more than an item's own words, so expect little of it: in the paper, texts made by rule from metadata are
worth about as much as no texts. It is what a run without a language model has, and what a failed reply falls back to.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sidrec.systems.sidreasoner.teacher import Request

_ITEM_FRAMES = (
    "{name} is about {features}. People take {name} for {use}. {audience} Close to it are {related}.",
    "Think of {features}, and {name} comes to mind. It serves {use}. {audience} Beside {name} belong {related}.",
    "Who looks for {features} finds {name}. It is good for {use}. {audience} {name} goes with {related}.",
    "{use} is what {name} is for. Its marks are {features}. {audience} Whoever has {name} may like {related}.",
    "{audience} They would pick {name} for {features}. {name} is used for {use}, along with {related}.",
    "In the shop {name} stands among {related}. What makes {name} is {features}; it is meant for {use}. {audience}",
)
_STORY_FRAMES = (
    "It began with {first}. Then came {rest}. {thoughts}",
    "First the customer took {first}, and later {rest}. {thoughts}",
    "{first} was the first purchase; after it followed {rest}. {thoughts}",
    "The customer started from {first} and went on to {rest}. {thoughts}",
)
_USES = ("daily use", "a gift", "the home", "a small treat", "keeping things in order", "decoration")


@dataclass(frozen=True)
class TemplateTeacher:
    """Frames chosen by a checksum of what they are about."""

    seed: int = 0

    @property
    def name(self) -> str:
        """The rules' name and seed."""
        return f"template-1-{self.seed}"

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, str | None]]:
        """Yield every request's number and reply, in order."""
        for number, request in enumerate(requests):
            match request.task:
                case "describe_item":
                    yield number, json.dumps(self._description(request.facts), sort_keys=True)
                case "weave_item":
                    yield number, self._item(request.facts)
                case "read_history":
                    yield number, self._monologue(request.facts)
                case "weave_history":
                    yield number, self._story(request.facts)

    def usage(self) -> dict[str, Any]:
        """Return {}: rules cost nothing."""
        return {}

    def _description(self, facts: Any) -> dict[str, Any]:
        words = facts["keywords"] or ["something of its own kind"]
        kind = last_category(facts["categories"])
        use = self._choice(_USES, "use", *words)
        return {
            "detailed_description": f"A product about {', '.join(words)}.",
            "use_cases": [use],
            "target_audience": f"It suits those who like {words[0]}.",
            "key_features": [*words[:3], *([f"made by {facts['brand']}"] if facts["brand"] else [])],
            "related_keywords": [*([kind] if kind else []), *words[::-1]],
        }

    def _item(self, facts: Any) -> str:
        description = facts["description"]
        text = self._choice(_ITEM_FRAMES, facts["name"]).format(
            name=facts["name"],
            features=listed(description["key_features"][:4]),
            use=description["use_cases"][0],
            audience=description["target_audience"],
            related=listed(description["related_keywords"][:4]),
        )
        return text[0].upper() + text[1:]

    def _monologue(self, facts: Any) -> str:
        """Return what counts say: what most purchases share, what the newest share, never which one comes next."""
        names, items = facts["names"], facts["items"]
        whole, recent = _topics(items), _topics(items[len(items) // 2 :])
        if not whole:
            return f"I see {len(names)} purchases, the last of them {names[-1]}, and nothing that they share."
        lately = recent or whole
        changed = lately[0] != whole[0]
        wish = listed([*dict.fromkeys([*lately[:2], whole[0]])], word="or")
        return (
            f"I see {len(names)} purchases, and most have to do with {listed(whole[:2])}. "
            + (f"Lately it is more {lately[0]}" if changed else f"Lately it still is {lately[0]}")
            + f", as {names[-1]} shows. So next I expect something about {wish}."
        )

    def _story(self, facts: Any) -> str:
        names = facts["names"]
        rest = listed(names[1:]) if len(names) > 1 else "nothing yet"
        return self._choice(_STORY_FRAMES, *names).format(first=names[0], rest=rest, thoughts=facts["monologue"])

    def _choice(self, frames: Sequence[str], *about: str) -> str:
        return frames[zlib.crc32(f"{self.seed} {' '.join(about)}".encode()) % len(frames)]


def listed(words: Sequence[str], word: str = "and") -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {word} {words[-1]}"


def last_category(path: str) -> str:
    """Return the narrowest of categories written from wide to narrow."""
    parts = [part.strip() for part in path.replace(">", ";").replace("|", ";").split(";")]
    return next((part for part in reversed(parts) if part), "")


def _topics(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return what items have in common, most of them first: categories, then brands, then words."""
    counts: Counter[str] = Counter()
    for item in items:
        counts.update({kind for kind in (last_category(item["categories"]), item["brand"]) if kind})
        counts.update(set(item["keywords"][:3]))
    return sorted(counts, key=lambda topic: (-counts[topic], topic))[:3]
