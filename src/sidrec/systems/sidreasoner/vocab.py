"""Semantic IDs as words: every code of every level is one token, and an item's name is its tokens in a row.

Tokens are `<a_0>`, `<a_1>` … of the first level, `<b_0>` … of the second, and so on. Codes that no item has are tokens
too, so that an item appended later finds its own. A disambiguation code is a level of its own, which most items lack.

Axes: `item` catalogue rows, `level` codes of a semantic ID.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from string import ascii_lowercase
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sidrec import files
from sidrec.data.catalog import PAD, Catalog
from sidrec.errors import UsageError

_TOKEN = re.compile(r"<([a-z])_(\d+)>")


@dataclass(frozen=True, eq=False)
class SidVocab:
    """The names of a catalogue's items, and the tokens that they are made of."""

    item_ids: tuple[str, ...]
    codes: NDArray[np.int32]  # [item, level]
    sizes: tuple[int, ...]  # codes of each level
    _item_of: dict[tuple[int, ...], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.sizes) > len(ascii_lowercase):
            raise UsageError(f"{len(self.sizes)} levels, and tokens have letters for {len(ascii_lowercase)}")
        if len(self.codes) and (self.codes.max(axis=0) >= self.sizes).any():
            raise UsageError(
                f"the catalogue asks for {(self.codes.max(axis=0) + 1).tolist()} codes a level, tokens are for "
                f"{list(self.sizes)}"
            )
        table = {tuple(code for code in row if code != PAD): item for item, row in enumerate(self.codes.tolist())}
        object.__setattr__(self, "_item_of", table)

    @classmethod
    def of(cls, catalog: Catalog, *, num_levels: int, codebook_size: int) -> Self:
        """Return the vocabulary of a catalogue whose codebook has so many levels and codes.

        Raises:
            UsageError: an item has a code beyond the codebook, or there are more levels than letters.
        """
        sizes = [codebook_size] * num_levels
        if catalog.num_codes > num_levels:
            sizes.append(int(catalog.codes[:, -1].max()) + 1)
        return cls(tuple(catalog.item_ids), catalog.codes, tuple(sizes))

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def num_levels(self) -> int:
        """Levels of the longest semantic ID, a disambiguation code included."""
        return len(self.sizes)

    def token(self, level: int, code: int) -> str:
        """Return a code's token."""
        return f"<{ascii_lowercase[level]}_{code}>"

    def level_tokens(self, level: int) -> list[str]:
        """Return the tokens of a level, by code."""
        return [self.token(level, code) for code in range(self.sizes[level])]

    def new_tokens(self) -> list[str]:
        """Return every token, level by level: what a language model's vocabulary is extended by."""
        return [token for level in range(self.num_levels) for token in self.level_tokens(level)]

    def tokens(self, item: int) -> tuple[str, ...]:
        """Return an item's tokens in order."""
        return tuple(self.token(level, code) for level, code in enumerate(self.codes[item].tolist()) if code != PAD)

    def name(self, item: int) -> str:
        """Return an item's name in a text: its tokens without a space."""
        return self.names[item]

    @cached_property
    def names(self) -> list[str]:
        """The names of all items."""
        return ["".join(self.tokens(item)) for item in range(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over sizes and sorted (item id, name) pairs: what a checkpoint and a catalogue must share."""
        lines = sorted(f"{item_id}\t{name}\n" for item_id, name in zip(self.item_ids, self.names, strict=True))
        return files.sha256_bytes(f"{self.sizes}\n{''.join(lines)}".encode())

    def item(self, text: str) -> int | None:
        """Return the item whose name is exactly this text, None where there is none."""
        found = list(self.mentions(text))
        return found[0][0] if len(found) == 1 and found[0][1] == text.strip() else None

    def mentions(self, text: str) -> Iterator[tuple[int | None, str]]:
        """Yield each item that a text names, in order, and how; None for tokens that are no item's name."""
        run: list[tuple[int, int]] = []
        end = -1
        for found in _TOKEN.finditer(text):
            level, code = ascii_lowercase.index(found[1]), int(found[2])
            # Tokens of one name follow each other, level by level.
            if run and (found.start() != end or level != len(run)):
                yield self._mention(run)
                run = []
            run.append((level, code))
            end = found.end()
        if run:
            yield self._mention(run)

    def _mention(self, run: list[tuple[int, int]]) -> tuple[int | None, str]:
        name = "".join(self.token(level, code) for level, code in run)
        whole = all(level == place for place, (level, _) in enumerate(run))
        return (self._item_of.get(tuple(code for _, code in run)) if whole else None), name
