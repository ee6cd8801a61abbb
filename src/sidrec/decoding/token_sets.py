"""The catalogue as unordered sets of tokens, one code a slot: which items still match the tokens chosen so far.

A partial set names some slots, in whatever order they were chosen. Its matches are found in the inverted list of one
token and narrowed token by token, so a step costs as much as there are matches left. Items that must not be answered
(removed, blocked, seen) are a bitmap a user, one bit an item, looked up for matches only.

Axes: `item` catalogue rows, `slot` codebooks, `code` entries of one, `user` with a bitmap each, `byte` eight items,
`row` partial sets, `match` pairs of a partial set and an item that matches it, rows in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import PAD
from sidrec.decoding.nodes import NONE
from sidrec.errors import BundleError


@dataclass(frozen=True, slots=True)
class Matches:
    """Items that match each of some partial sets: `item[start[row]:start[row + 1]]` are a row's, in rising order."""

    item: Int[Tensor, " match"]
    row: Int[Tensor, " match"]
    num_rows: int

    @property
    def counts(self) -> Int[Tensor, " row"]:
        """Return how many items match each row."""
        return self.row.bincount(minlength=self.num_rows)

    def only(self) -> Int[Tensor, " row"]:
        """Return the item of each row that has exactly one match, NONE for the others."""
        found = torch.full((self.num_rows,), NONE, device=self.item.device)
        found[self.row] = self.item
        return found.masked_fill(self.counts != 1, NONE)


@dataclass(frozen=True, eq=False, slots=True)
class TokenSets:
    """Codes of every item, and for each token the items that have it, as a run of `listed`."""

    codes: Int[Tensor, "item slot"]
    codebook_size: int
    listed: Int[Tensor, "slot item"]  # items by code, then by index
    start: Int[Tensor, "slot code_and_one"]

    @classmethod
    def of(cls, codes: NDArray[np.int32], codebook_size: int) -> "TokenSets":
        """Return the sets of a catalogue.

        Raises:
            BundleError: an item lacks a slot, a code is outside its codebook, or two items have equal sets.
        """
        table = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64))
        if (codes == PAD).any() or (codes < 0).any() or (codes >= codebook_size).any():
            raise BundleError(
                f"token sets need a code of 0..{codebook_size - 1} in every slot, seen {codes.min()}..{codes.max()}",
                next_step="fit the codebook with quantizer: mpq, whose collisions need no further code",
            )
        if len(np.unique(codes, axis=0)) < len(codes):
            raise BundleError(
                "two items have the same set of tokens", next_step="resolve collisions before (policy nearest_free)"
            )
        listed = table.T.argsort(dim=1, stable=True).contiguous()
        counts = torch.stack([column.bincount(minlength=codebook_size) for column in table.T])
        start = torch.zeros(counts.shape[0], codebook_size + 1, dtype=torch.int64)
        start[:, 1:] = counts.cumsum(dim=1)
        return cls(table, codebook_size, listed, start)

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.codes)

    @property
    def num_slots(self) -> int:
        """Codebooks of a set."""
        return self.codes.shape[1]

    def matching(self, tokens: Sequence[tuple[int, int]]) -> Int[Tensor, " item"]:
        """Return the items that have all these (slot, code) tokens, in rising order."""
        if not tokens:
            return torch.arange(self.num_items)
        lists = [self._list(slot, code) for slot, code in tokens]
        items = min(lists, key=len)
        for slot, code in tokens:
            items = items[self.codes[items, slot] == code]
        return items

    def _list(self, slot: int, code: int) -> Int[Tensor, " item"]:
        return self.listed[slot, self.start[slot, code] : self.start[slot, code + 1]]

    def first(self, slot: Int[Tensor, " row"], code: Int[Tensor, " row"]) -> Matches:
        """Return the matches of sets of one token each."""
        low, high = self.start[slot, code], self.start[slot, code + 1]
        counts = high - low
        row = torch.repeat_interleave(torch.arange(len(slot), device=slot.device), counts)
        place = torch.arange(len(row), device=slot.device) - (counts.cumsum(0) - counts)[row] + low[row]
        return Matches(self.listed[slot[row], place], row, len(slot))

    def narrowed(
        self,
        matches: Matches,
        origin: Int[Tensor, " row"],
        slot: Int[Tensor, " row"],
        code: Int[Tensor, " row"],
    ) -> Matches:
        """Return the matches of the rows `origin` after one more token each."""
        counts = matches.counts
        starts = counts.cumsum(0) - counts
        taken = counts[origin]
        row = torch.repeat_interleave(torch.arange(len(origin), device=origin.device), taken)
        place = torch.arange(len(row), device=origin.device) - (taken.cumsum(0) - taken)[row] + starts[origin][row]
        item = matches.item[place]
        kept = self.codes[item, slot[row]] == code[row]
        return Matches(item[kept], row[kept], len(origin))

    def after(self, matches: Matches | None, slot: Int[Tensor, " row"], code: Int[Tensor, " row"]) -> Matches:
        """Return the matches after one more token of each row, None being those before any."""
        if matches is None:
            return self.first(slot, code)
        return self.narrowed(matches, torch.arange(len(slot), device=slot.device), slot, code)

    def items_of(self, tokens: Int[Tensor, "row slot"]) -> Int[Tensor, " row"]:
        """Return the item that each whole set of tokens (codes by slot) is, NONE where it is none."""
        matches: Matches | None = None
        for slot in range(self.num_slots):
            matches = self.after(matches, torch.full_like(tokens[:, 0], slot), tokens[:, slot])
        assert matches is not None
        return matches.only()

    def codes_left(
        self, matches: Matches, slot: Int[Tensor, " row"], keep: Bool[Tensor, " match"] | None = None
    ) -> Bool[Tensor, "row code"]:
        """Return which codes of one slot a row some match of its has; `keep` leaves matches out."""
        row, item = (matches.row, matches.item) if keep is None else (matches.row[keep], matches.item[keep])
        found = torch.zeros(matches.num_rows, self.codebook_size, dtype=torch.bool, device=row.device)
        found[row, self.codes[item, slot[row]]] = True
        return found

    def first_codes_left(
        self, closed: UInt8[Tensor, "user byte"] | None, users: int
    ) -> tuple[Bool[Tensor, "slot code"], Bool[Tensor, "user slot code"]]:
        """Return which tokens the catalogue has, and which a user's open items have; it costs O(closed items)."""
        counts = self.start.diff(dim=1)
        real = counts > 0
        if closed is None:
            return real, real.expand(users, -1, -1)
        user, item = is_set_pairs(closed, self.num_items)
        shut = counts.new_zeros(users, self.num_slots * self.codebook_size)
        offsets = torch.arange(self.num_slots, device=item.device) * self.codebook_size
        token = self.codes[item] + offsets
        flat = (user[:, None] * shut.shape[1] + token).flatten()
        shut.view(-1).index_add_(0, flat, torch.ones_like(flat))
        return real, counts - shut.view(users, *counts.shape) > 0

    def token_sums(self, masses: Float[Tensor, "*day item"]) -> Float[Tensor, "*day slot code"]:
        """Return the mass of each token: that of the items that have it."""
        sums = masses.new_zeros(*masses.shape[:-1], self.num_slots, self.codebook_size)
        for slot in range(self.num_slots):
            sums[..., slot, :].index_add_(-1, self.codes[:, slot], masses)
        return sums

    def to(self, device: torch.device) -> "TokenSets":
        """Return the same sets on another device."""
        return TokenSets(self.codes.to(device), self.codebook_size, self.listed.to(device), self.start.to(device))


def bitmap(closed: Bool[Tensor, "user item"]) -> UInt8[Tensor, "user byte"]:
    """Return the bits of closed items, eight a byte, the first item lowest."""
    return torch.from_numpy(np.packbits(closed.numpy(), axis=1, bitorder="little"))


def is_set(
    bits: UInt8[Tensor, "user byte"], user: Int[Tensor, " match"], item: Int[Tensor, " match"]
) -> Bool[Tensor, " match"]:
    """Return whether each user's bit of an item is set."""
    return (bits[user, item >> 3] >> (item & 7).to(torch.uint8)) & 1 != 0


def is_set_pairs(
    bits: UInt8[Tensor, "user byte"], num_items: int
) -> tuple[Int[Tensor, " match"], Int[Tensor, " match"]]:
    """Return the (user, item) pairs whose bits are set."""
    unpacked = np.unpackbits(bits.numpy(), axis=1, count=num_items, bitorder="little")
    user, item = np.nonzero(unpacked)
    return torch.from_numpy(user), torch.from_numpy(item)
