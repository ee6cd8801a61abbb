"""The tiny world with titles that say an item's theme, and a language model small enough for a test."""

from dataclasses import replace
from typing import Any

from sidrec.data.catalog import Catalog
from sidrec.systems.history import History
from sidrec.systems.sidreasoner.config import SIDReasonerModelConfig, TinyConfig
from sidrec.systems.sidreasoner.vocab import SidVocab
from sidrec.systems.stored_histories import histories_of

THEMES = ("garden", "kitchen", "winter", "paper", "travel", "music", "baby", "office")
THINGS = ("lamp", "box", "bag", "set", "card", "cup", "clock", "sign")

TINY = TinyConfig(num_layers=2, dim=64, ff_dim=128, num_heads=4, num_key_heads=2, head_dim=16, vocabulary=800)
MODEL = SIDReasonerModelConfig(tiny=TINY, max_tokens=256)


def titled(world: Any) -> Catalog:
    """Return the world's catalogue, an item's title made of its theme and its place in it."""
    titles = [f"Small {THEMES[item // 8]} {THINGS[item % 8]}" for item in range(len(world.catalog))]
    return replace(world.catalog, titles=titles)


def vocab_of(catalog: Catalog) -> SidVocab:
    return SidVocab.of(catalog, num_levels=3, codebook_size=8)


def histories(world: Any) -> list[History]:
    return histories_of(world.baskets, world.catalog)
