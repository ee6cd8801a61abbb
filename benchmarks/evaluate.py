"""Evaluation: searching for every user of Amazon Beauty beside Hugging Face's `generate`, and ranks beside sorting.

Users' histories are Beauty's without their last item, the newest 20 items of each; semantic IDs and weights are random.
Ours takes users of like lengths together; the peers pad batches in the file's order, as evaluation scripts do. Where
the data are not, a row says so. Equal output is what `benchmarks.decode` calls so.

Axes: `user` rows, `item` catalogue, `dim` width of both.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from benchmarks.decode import DAY, World, equal
from benchmarks.decode import Shape as Catalogue
from benchmarks.hf_peers import PAD_TOKEN, Found, Widths
from benchmarks.item_vectors import FOLDERS
from benchmarks.measure import Row, compare, report
from sidrec.decoding.beam import beam_search
from sidrec.errors import CheckFailedError
from sidrec.evaluation.ranking import TieOrder
from sidrec.nn.causal import CausalSteps
from sidrec.study.data import DATA_VARIABLE
from sidrec.systems.base import Query

WIDTHS = Widths()
# A user's history as any of the papers cuts it.
CAP = 20
GOALS = {"decoder-only": 15.0, "encoder-decoder": 3.5}
PEERS = {"decoder-only": "Qwen3", "encoder-decoder": "T5"}


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    widths: Widths = WIDTHS
    codes: int = 256
    beams: int = 20
    sample: int = 256
    batch: int = 32
    search_repeats: int = 3
    users: int = 4096
    items: int = 12_000
    dim: int = 64
    # Users whose scores are made at once: they stay in the cache until they are counted.
    block: int = 32
    repeats: int = 9
    judged: bool = True

    def goal(self, goal: float) -> float | None:
        """Return the goal where the sizes are large enough to judge it."""
        return goal if self.judged else None


QUICK = Sizes(Widths(16, 2, 32, 1), 64, 4, 6, 4, 2, 40, 30, 4, 16, 2, judged=False)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every row."""
    yield from _searches(sizes)
    yield from _ranks(sizes)


@dataclass(frozen=True)
class Users:
    """A sample of the users, and how many there are."""

    histories: list[NDArray[np.int64]]
    total: int
    items: int


def beauty(sample: int) -> Users | None:
    """Return users of Amazon Beauty drawn at random, in the file's order; None where the data are not."""
    root = os.environ.get(DATA_VARIABLE)
    path = Path(root) / FOLDERS["beauty"] / "interactions.parquet" if root else None
    if path is None or not path.is_file():
        return None
    events = pl.read_parquet(path, columns=["user_id", "item_id", "seq_pos"]).sort("user_id", "seq_pos")
    events = events.with_columns(item=pl.col("item_id").rank("dense").cast(pl.Int64) - 1)
    lists = events.group_by("user_id", maintain_order=True).agg(pl.col("item"))["item"].to_list()
    chosen = np.sort(np.random.default_rng(0).choice(len(lists), sample, replace=False))
    histories = [np.array(lists[user][:-1][-CAP:], dtype=np.int64) for user in chosen]
    return Users(histories, len(lists), events["item"].n_unique())


def _searches(sizes: Sizes) -> Iterator[Row]:
    users = beauty(sizes.sample)
    if users is None:
        absent = f"not measured: {FOLDERS['beauty']} is not under {DATA_VARIABLE} ({os.environ.get(DATA_VARIABLE)})"
        yield Row("all users of Amazon Beauty", None, None, None, None, None, 0.0, "s", absent)
        return
    levels = 3
    world = World.of(
        Catalogue(levels, sizes.beams, (), history=CAP, codes=sizes.codes, items=users.items), sizes.widths
    )
    searches = Searches(world, users.histories, sizes)
    lengths = np.array([len(items) for items in users.histories])
    padded = sum(max(part) * len(part) for part in np.split(lengths, range(sizes.batch, len(lengths), sizes.batch)))
    for engine in GOALS:
        row = compare(
            f"{engine}: {users.total} users of Amazon Beauty searched with {sizes.beams} beams vs Hugging Face "
            f"{PEERS[engine]}, batches of {sizes.batch}",
            searches.ours(engine),
            partial(searches.peer, engine),
            check=equal,
            goal=sizes.goal(GOALS[engine]),
            repeats=sizes.search_repeats,
        )
        if row.ours is not None and row.peer is not None:
            factor = users.total / len(lengths)
            notes = (
                f"{len(lengths)} users measured; {lengths.sum() / padded:.0%} of the peer's tokens real; {row.notes}"
            )
            row = replace(row, ours=row.ours * factor, peer=row.peer * factor, notes=notes)
        yield row


class Searches:
    """One sample of users, searched by both engines and both peers."""

    def __init__(self, world: World, histories: list[NDArray[np.int64]], sizes: Sizes) -> None:
        self.world = world
        self.histories = histories
        self.sizes = sizes
        self.tokens = [world.vocabulary.tokens[torch.from_numpy(items)].flatten() for items in histories]

    def ours(self, engine: str) -> Callable[[], list[Found]]:
        """Return what searches for every user."""
        if engine == "decoder-only":
            return self._causal
        queries = []
        for items in self.histories:
            days = np.arange(len(items))
            queries.append(Query(items, days * DAY, days, len(days) * DAY, self.sizes.beams, False))
        return lambda: [self.world.rank(self.world.ranker, queries, self.sizes.beams)]

    def _causal(self) -> list[Found]:
        world = self.world
        lengths = torch.tensor([len(tokens) for tokens in self.tokens])
        order = lengths.argsort(stable=True)
        found = []
        for rows in torch.split(order, self.sizes.batch):
            prompts = pad_sequence([self.tokens[row] for row in rows.tolist()], batch_first=True)
            prompt = world.decoder.read(prompts, lengths[rows])
            steps = CausalSteps(world.decoder, prompt, world.tokens)
            with torch.no_grad():
                found.append(beam_search(steps, world.trie, world.flat, beam_width=self.sizes.beams))
        back = order.argsort()
        items, log_probs = (torch.cat([getattr(part, name) for part in found])[back] for name in ("items", "log_probs"))
        return [Found(items, log_probs)]

    def peer(self, engine: str) -> list[Found]:
        """Return what `generate` finds for every user, in the order of the file."""
        peer = self.world.peers[engine]
        side = "left" if peer.decoder_only else "right"
        found = []
        for first in range(0, len(self.tokens), self.sizes.batch):
            part = self.tokens[first : first + self.sizes.batch]
            prompts = pad_sequence(part, batch_first=True, padding_value=PAD_TOKEN, padding_side=side)
            found.append(peer.search(prompts, self.sizes.beams, (prompts != PAD_TOKEN).long()))
        return [Found(torch.cat([each.items for each in found]), torch.cat([each.log_probs for each in found]))]


def _ranks(sizes: Sizes) -> Iterator[Row]:
    """Yield the rows of a target's rank among all items: counted, or looked up in a sorted order."""
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((count, sizes.dim), dtype=np.float32) for count in (sizes.users, sizes.items))
    targets = rng.integers(0, sizes.items, sizes.users)
    order = TieOrder(np.zeros(sizes.items, dtype=np.int64))

    def blocks(of_block: Callable[[torch.Tensor, NDArray[np.int64]], NDArray[np.int64]]) -> NDArray[np.int64]:
        parts = []
        for first in range(0, sizes.users, sizes.block):
            rows = slice(first, first + sizes.block)
            parts.append(of_block(torch.from_numpy(users[rows]) @ torch.from_numpy(items).T, targets[rows]))
        return np.concatenate(parts)

    def counted(scores: torch.Tensor, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        return order.ranks(scores.numpy(), wanted)

    def torch_sorted(scores: torch.Tensor, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        lists = scores.argsort(dim=1, descending=True, stable=True)
        return np.asarray((lists == torch.from_numpy(wanted)[:, None]).nonzero()[:, 1]) + 1

    def numpy_sorted(scores: torch.Tensor, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        lists = np.argsort(-scores.numpy(), axis=1)
        return np.nonzero(lists == wanted[:, None])[1] + 1

    def same(own: NDArray[np.int64], other: NDArray[np.int64]) -> str:
        if not np.array_equal(own, other):
            raise CheckFailedError(f"{np.count_nonzero(own != other)} of {len(own)} ranks differ")
        return f"{len(own)} equal ranks, the product of users and items on both sides"

    for name, peer in (("torch.argsort", torch_sorted), ("numpy.argsort, unstable", numpy_sorted)):
        yield compare(
            f"ranks of {sizes.users} targets among {sizes.items} items of dim {sizes.dim}, counted vs {name}",
            partial(blocks, counted),
            partial(blocks, peer),
            check=same,
            goal=sizes.goal(10.0),
            repeats=sizes.repeats,
        )
