"""What is known of an item in words, and which of its words it shares with others.

Axes: `item` catalogue rows.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

import polars as pl

from sidrec.data.catalog import Catalog

_WORD = re.compile(r"[^\W\d_]{3,}")
_EMPTY = frozenset({"and", "the", "for", "with", "from", "set", "pack", "assorted"})
NUM_KEYWORDS = 5


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """An item's words; empty where nothing is known."""

    title: str
    brand: str = ""
    categories: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    """Words of its title and description that at least one other item has too, the rarest first."""


def item_facts(catalog: Catalog, table: pl.DataFrame | None = None) -> list[ItemFacts]:
    """Return the facts of every catalogue item.

    Args:
        table: an items table (any rows) with brands and descriptions; categories in it count.
    """
    known: dict[str, dict[str, str | None]] = {}
    if table is not None:
        columns = [name for name in ("brand", "categories", "description") if name in table.columns]
        known = {row["item_id"]: row for row in table.select("item_id", *columns).iter_rows(named=True)}
    bare = []
    for item_id, title, own in zip(catalog.item_ids, catalog.titles, catalog.categories, strict=True):
        row = {"categories": own, **known.get(item_id, {})}
        brand, categories, description = (str(row.get(name) or "") for name in ("brand", "categories", "description"))
        bare.append(ItemFacts(title, brand, categories, description))
    words = [_words(item) for item in bare]
    counts = Counter(word for own in words for word in set(own))
    return [
        ItemFacts(item.title, item.brand, item.categories, item.description, _keywords(own, counts, len(bare)))
        for item, own in zip(bare, words, strict=True)
    ]


def _words(item: ItemFacts) -> list[str]:
    # A description is long and says little of itself: its first words say what the thing is.
    text = f"{item.title} {item.description[:300]}".casefold()
    return [word for word in _WORD.findall(text) if word not in _EMPTY]


def _keywords(words: list[str], counts: Counter[str], num_items: int) -> tuple[str, ...]:
    shared = sorted({word for word in words if counts[word] > 1})
    weight = {word: words.count(word) * math.log(num_items / counts[word]) for word in shared}
    return tuple(sorted(shared, key=lambda word: (-weight[word], word))[:NUM_KEYWORDS])
