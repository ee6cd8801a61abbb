"""The four requests to a teacher: describe an item, name it in prose, read a history, tell it. The wording is ours.

An item's text and a history's story name items by their semantic IDs alone: so the model learns what these mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sidrec.systems.sidreasoner.items import ItemFacts
from sidrec.systems.sidreasoner.teacher import Request

DESCRIPTION_CHARACTERS = 1500

_DESCRIBE = "You describe products of a shop for a recommender. Reply with one JSON object and nothing else."
_WEAVE_ITEM = "You write catalogue prose in which a product goes by its code and has no other name."
_READ = "You study what a customer of a shop buys, and think aloud."
_WEAVE_HISTORY = "You tell what a customer bought, and why, as one story in which products go by their codes."


def describe_item(item: ItemFacts, temperature: float) -> Request:
    """Return the request for an item's description, as JSON with the keys of `checks.DESCRIPTION`."""
    user = (
        f"Title: {item.title}\nBrand: {item.brand or 'unknown'}\nCategory: {item.categories or 'unknown'}\n"
        f"Description: {item.description[:DESCRIPTION_CHARACTERS] or 'none'}\n\n"
        "Keys of the object: detailed_description (3 to 5 sentences), use_cases (3 to 5 strings), target_audience "
        "(one sentence), key_features (3 to 6 strings), related_keywords (5 to 10 strings). "
        "Say nothing that the text above does not support."
    )
    facts = {"brand": item.brand, "categories": item.categories, "keywords": list(item.keywords)}
    return Request("describe_item", _DESCRIBE, user, facts, 700, temperature, json=True)


def weave_item(name: str, description: Mapping[str, Any], temperature: float) -> Request:
    """Return the request for a paragraph about an item that goes by its name alone."""
    lines = "\n".join(f"{key}: {_joined(value)}" for key, value in description.items())
    user = (
        f"Code: {name}\n{lines}\n\n"
        f"Write one paragraph of 80 to 150 words about this product. Call it {name}, at least twice, and never by a "
        "title or by words that only this product has."
    )
    return Request("weave_item", _WEAVE_ITEM, user, {"name": name, "description": dict(description)}, 400, temperature)


def read_history(names: Sequence[str], items: Sequence[ItemFacts], temperature: float) -> Request:
    """Return the request for a monologue on what a customer wants, before the next purchase is known.

    Args:
        names: of the items bought, oldest first, and `items` what they are.
    """
    log = "\n".join(
        f"{place}. {name}: {item.title}" for place, (name, item) in enumerate(zip(names, items, strict=True), 1)
    )
    user = (
        f"Bought, oldest first:\n{log}\n\n"
        "In 90 to 150 words, as I: what does this customer seem to want, what has changed over time, and what kind of "
        "product would come next? Refer to products by their codes, not their titles. Name no next product and no code "
        "that is not in the list."
    )
    kinds = [{"categories": item.categories, "brand": item.brand, "keywords": list(item.keywords)} for item in items]
    return Request("read_history", _READ, user, {"names": list(names), "items": kinds}, 400, temperature)


def weave_history(names: Sequence[str], monologue: str, temperature: float) -> Request:
    """Return the request for the story of a history, the monologue woven in."""
    user = (
        f"Bought, oldest first: {', '.join(names)}\nThoughts: {monologue}\n\n"
        "Write one paragraph of 100 to 180 words that tells these purchases in order and weaves the thoughts in. "
        "Use the codes only, and no product title."
    )
    return Request(
        "weave_history", _WEAVE_HISTORY, user, {"names": list(names), "monologue": monologue}, 500, temperature
    )


def _joined(value: Any) -> str:
    return "; ".join(str(part) for part in value) if isinstance(value, list) else str(value)
