"""A fitted REG4Rec answers: one encoder pass, one search over paths, the history's own items scored exactly."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.decoding.nodes import NONE
from sidrec.decoding.token_sets import TokenSets, bitmap
from sidrec.errors import BundleError
from sidrec.systems.answers import answers, in_chunks
from sidrec.systems.base import MODEL, WEIGHTS, Query, Ranking
from sidrec.systems.batches import encoder_input
from sidrec.systems.held_out import path_of
from sidrec.systems.history import history_of
from sidrec.systems.reg4rec.categories import Categories, ItemCategories
from sidrec.systems.reg4rec.config import Reg4RecModelConfig, Reg4RecSearchConfig
from sidrec.systems.reg4rec.model import Memory, Reg4RecModel
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.reg4rec.search import Open, Pruning, search
from sidrec.systems.reg4rec.statistics import statistics
from sidrec.systems.reg4rec.steps import PathSteps
from sidrec.systems.repeat import RepeatPath, log_recent

KIND, FORMAT = "reg4rec", 1
# In the weights' file beside the generator's own: items' purchases on the day, the centres of the categories, and the
# category of each item.
MASSES, CENTRES, OF_ITEM = "item_masses", "category_centres", "item_category"


@dataclass(frozen=True)
class Reg4RecRanker:
    """The generator with its catalogue as token sets, one day's popularity and the repeat path."""

    model: Reg4RecModel
    catalog: Catalog
    sets: TokenSets
    search: Reg4RecSearchConfig
    prior: CodePrior
    repeat: RepeatPath | None
    item_vectors: Float[Tensor, "item dim"]
    recent: NDArray[np.float64]
    categories: ItemCategories | None = None
    """None: none are kept, which only explanations miss."""

    @classmethod
    def of(
        cls,
        model: Reg4RecModel,
        catalog: Catalog,
        sets: TokenSets,
        config: Reg4RecSearchConfig,
        masses: Float[Tensor, " item"],
        repeat: RepeatPath | None,
        categories: ItemCategories | None = None,
    ) -> Self:
        """Return the ranker of a generator in evaluation mode."""
        model.eval()
        with torch.no_grad():
            vectors = model.item_vectors(sets.codes)
        prior = CodePrior(sets, masses[None], 0)
        recent = log_recent(catalog.recent_popularity)
        return cls(model, catalog, sets, config, prior, repeat, vectors, recent, categories)

    @classmethod
    def open(cls, folder: Path, catalog: Catalog, config: Reg4RecSearchConfig) -> Self:
        """Return the ranker whose files lie in `folder`.

        Raises:
            BundleError: the weights are of another format or another catalogue.
        """
        model, header, tensors = load_model(folder)
        sets = TokenSets.of(catalog.codes, model.codebook_size)
        if sets.num_slots != model.num_slots:
            raise BundleError(
                f"the weights know {model.num_slots} slots, the catalogue has {sets.num_slots}",
                evidence=folder / WEIGHTS,
            )
        if len(tensors[MASSES]) != len(catalog):
            raise BundleError(
                f"the weights know {len(tensors[MASSES])} items, the catalogue has {len(catalog)}",
                evidence=folder / WEIGHTS,
            )
        kept = ItemCategories(tuple(header["categories"]), tensors[OF_ITEM]) if OF_ITEM in tensors else None
        return cls.of(model, catalog, sets, config, tensors[MASSES], path_of(header["repeat"]), kept)

    def encode(self, queries: Sequence[Query]) -> Memory:
        """Return the encoder's memory of the queries' histories, the newest part of each."""
        config = self.model.config
        histories = [history_of(query) for query in queries]
        if config.flatten:
            trimmed = [history.newest_items(config.max_positions) for history in histories]
            inputs = encoder_input(trimmed, flatten=self.sets.num_slots)
        else:
            inputs = encoder_input([history.tail(config.max_positions) for history in histories])
        return self.model.encode(inputs, self.sets.codes, self.item_vectors)

    @torch.no_grad()
    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the best items of each query out of the search and, unless seen items are excluded, the history.

        A score is that of the item's path (`search`); with one slot a step, its log-probability.
        """
        return in_chunks(queries, lambda chunk: self._rank_chunk(chunk, beam_width, blocked))

    @torch.no_grad()
    def score(
        self, queries: Sequence[Query], lists: Sequence[Int[Tensor, "row item"]]
    ) -> list[Float[Tensor, "row item"]]:
        """Return the exact scores of each list's items, -inf for `NONE`, by the generator alone."""
        memory = self.encode(queries)
        return [self._scores(queries, memory, items) for items in lists]

    def _rank_chunk(self, queries: Sequence[Query], beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        memory = self.encode(queries)
        pruning = self._pruning(queries)
        found = search(
            PathSteps(self.model, memory, self.prior, categories=pruning is not None),
            self.sets,
            width=beam_width,
            order=self.model.config.order,
            salt=user_salt(queries),
            openings=Open(closed=self._closed(queries, blocked)),
            slots_per_step=self.search.slots_per_step,
            pruning=pruning,
        )
        return answers(
            queries,
            found.items,
            found.scores,
            repeat=self.repeat,
            score=lambda wanted: self._scores(queries, memory, wanted),
            recent=self.recent,
            popularity=self.catalog.popularity,
            blocked=blocked,
            stats=statistics(found.steps, self.sets.num_slots),
        )

    def _scores(
        self, queries: Sequence[Query], memory: Memory, items: Int[Tensor, "row item"]
    ) -> Float[Tensor, "row item"]:
        """Return exact scores: an item is searched for as if all others were closed."""
        rows, copies = items.shape
        if copies == 0:
            return torch.zeros(items.shape)
        found = search(
            PathSteps(self.model, memory, self.prior, copies=copies),
            self.sets,
            width=1 if self.search.slots_per_step == 1 else 2**self.sets.num_slots,
            order=self.model.config.order,
            salt=user_salt(queries).repeat_interleave(copies),
            openings=Open(wanted=items.clamp(min=0).flatten()),
            slots_per_step=self.search.slots_per_step,
        )
        return found.scores[:, 0].view(rows, copies).masked_fill(items == NONE, -torch.inf)

    def _closed(self, queries: Sequence[Query], blocked: NDArray[np.bool_]) -> UInt8[Tensor, "row byte"] | None:
        if not blocked.any() and not any(query.exclude_seen for query in queries):
            return None
        closed = np.repeat(blocked[None], len(queries), axis=0)
        for row, query in enumerate(queries):
            if query.exclude_seen:
                closed[row, query.items] = True
        return bitmap(torch.from_numpy(closed))

    def _pruning(self, queries: Sequence[Query]) -> Pruning | None:
        if self.search.consistency == 0:
            return None
        first = self.search.prune_from or max(2, -(-self.sets.num_slots // 2))
        return Pruning(self.search.consistency, first, torch.tensor([query.k for query in queries]))


def load_model(folder: Path) -> tuple[Reg4RecModel, dict[str, Any], dict[str, Tensor]]:
    """Return the generator whose files lie in `folder`, its header and what else the weights' file holds.

    Raises:
        BundleError: the files are of another system or format, or the weights are incomplete.
    """
    header: dict[str, Any] = files.read_json(folder / MODEL)
    if header.get("kind") != KIND or header.get("format") != FORMAT:
        raise BundleError(
            f"expected a {KIND} model of format {FORMAT}, seen {header.get('kind')} of {header.get('format')}",
            evidence=folder / MODEL,
        )
    model = Reg4RecModel(
        Reg4RecModelConfig(**header["model"]), num_slots=header["num_slots"], codebook_size=header["codebook_size"]
    )
    tensors = load_file(folder / WEIGHTS)
    beside = {name: tensors.pop(name) for name in (MASSES, CENTRES, OF_ITEM) if name in tensors}
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    seen = {name: tuple(value.shape) for name, value in tensors.items()}
    if seen != shapes:
        name = sorted({*shapes.items()} ^ {*seen.items()})[0][0]
        raise BundleError(
            f"{name} of the weights is {seen.get(name, 'missing')}, the model's is {shapes.get(name, 'missing')}",
            evidence=folder / WEIGHTS,
        )
    model.load_state_dict(tensors)
    return model, header, beside


def categories_in(header: dict[str, Any], tensors: dict[str, Tensor]) -> Categories:
    """Return the categories of a model that `load_model` returned."""
    return Categories(tuple(header.get("categories", ())), tensors[CENTRES])


def user_salt(queries: Sequence[Query]) -> Int[Tensor, " row"]:
    """Return what a user's random order depends on: the history, so that every process draws the same."""
    return torch.tensor([zlib.crc32(query.items.tobytes()) & 0x7FFFFFFF for query in queries])
