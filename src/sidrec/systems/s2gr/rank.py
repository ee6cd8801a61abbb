"""A fitted S²GR answers: one encoder pass, one constrained beam search, the history's own items scored exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.decoding.beam import beam_search, score_items
from sidrec.decoding.openings import ItemRules
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import BundleError
from sidrec.systems.answers import answers, in_chunks
from sidrec.systems.base import MODEL, WEIGHTS, Query, Ranking
from sidrec.systems.batches import EncoderInput, encoder_input
from sidrec.systems.held_out import path_of
from sidrec.systems.history import code_table, has_code, history_of
from sidrec.systems.repeat import RepeatPath, log_recent
from sidrec.systems.s2gr.clusters import Clusters
from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.frozen import FrozenGenerator, FrozenSteps
from sidrec.systems.s2gr.model import Memory, S2GRModel
from sidrec.systems.s2gr.statistics import statistics

FORMAT = 1


@dataclass(frozen=True)
class S2GRRanker:
    """The generator with its catalogue, one day's prefix biases and the repeat path."""

    model: S2GRModel
    frozen: FrozenGenerator
    catalog: Catalog
    trie: PrefixTrie
    bias: Float[Tensor, " node"]
    repeat: RepeatPath | None
    codes: Int[Tensor, "item level"]
    present: Float[Tensor, "item level"]
    item_vectors: Float[Tensor, "item dim"]
    recent: NDArray[np.float64]
    rules: ItemRules
    clusters: Clusters | None = None
    """What the thinking tokens were taught to point at; answers do without, `explain` does not."""

    @classmethod
    def of(
        cls,
        model: S2GRModel,
        catalog: Catalog,
        trie: PrefixTrie,
        bias: Float[Tensor, " node"],
        repeat: RepeatPath | None,
        clusters: Clusters | None = None,
    ) -> Self:
        """Return the ranker of a generator in evaluation mode."""
        model.eval()
        codes, present = code_table(catalog), has_code(catalog).float()
        with torch.no_grad():
            item_vectors = model.item_vectors(codes, present)
        frozen, recent = FrozenGenerator(model), log_recent(catalog.recent_popularity)
        rules = ItemRules(trie)
        return cls(model, frozen, catalog, trie, bias, repeat, codes, present, item_vectors, recent, rules, clusters)

    @classmethod
    def open(cls, folder: Path, catalog: Catalog) -> Self:
        """Return the ranker whose files lie in `folder`.

        Raises:
            BundleError: the weights are of another format or another catalogue.
        """
        header: dict[str, Any] = files.read_json(folder / MODEL)
        if header.get("kind") != "s2gr" or header.get("format") != FORMAT:
            raise BundleError(
                f"expected an s2gr model of format {FORMAT}, seen {header.get('kind')} of {header.get('format')}",
                evidence=folder / MODEL,
            )
        trie = PrefixTrie.from_codes(catalog.codes)
        tensors = load_file(folder / WEIGHTS)
        bias = tensors["node_bias"]
        if len(bias) != trie.num_nodes:
            raise BundleError(
                f"the weights know {len(bias)} prefixes, the catalogue has {trie.num_nodes}", evidence=folder / WEIGHTS
            )
        model = S2GRModel(
            S2GRModelConfig(**header["model"]),
            codebook_sizes=header["codebook_sizes"],
            code_dim=header["code_dim"],
            num_nodes=trie.num_nodes,
        )
        load_answering_weights(model, folder)
        # Bundles from before clusters were kept have none.
        clusters = Clusters(*(tensors[name] for name in CLUSTERS)) if CLUSTERS[0] in tensors else None
        return cls.of(model, catalog, trie, bias, path_of(header["repeat"]), clusters)

    def encode(self, queries: Sequence[Query]) -> Memory:
        """Return the encoder's memory of the queries' histories, the newest part of each."""
        return self.model.encode(self._inputs(queries), self.codes, self.present, self.item_vectors)

    def steps(self, queries: Sequence[Query]) -> FrozenSteps:
        """Return the search's decoder after the queries' histories, the newest part of each."""
        memory = self.frozen.encode(self._inputs(queries), self.codes, self.present, self.item_vectors)
        return FrozenSteps(self.frozen, memory)

    def _inputs(self, queries: Sequence[Query]) -> EncoderInput:
        config = self.model.config
        histories = [history_of(query) for query in queries]
        if config.flatten:
            trimmed = [history.newest_items(config.max_positions) for history in histories]
            return encoder_input(trimmed, flatten=self.codes.shape[1])
        return encoder_input([history.tail(config.max_positions) for history in histories])

    @torch.no_grad()
    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the best items of each query out of the beam and, unless seen items are excluded, the history.

        With `exclude_seen` a score is the generator's own log-probability: that of a purchase that is no repeat.
        """
        return in_chunks(queries, lambda chunk: self._rank_chunk(chunk, beam_width, blocked))

    def _rank_chunk(self, queries: Sequence[Query], beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        steps = self.steps(queries)
        excluding = [query.items if query.exclude_seen else None for query in queries]
        allowed = self.rules.openings(torch.from_numpy(blocked), excluding)
        beams = beam_search(steps, self.trie, self.bias, beam_width=beam_width, allowed=allowed)
        return answers(
            queries,
            beams.items,
            beams.log_probs,
            repeat=self.repeat,
            score=lambda wanted: score_items(steps, self.trie, self.bias, wanted),
            recent=self.recent,
            popularity=self.catalog.popularity,
            blocked=blocked,
            stats=statistics(self.model, self.clusters, steps.first_thought, len(queries)),
        )


# Parts of the generator that no answer needs; they are not in a bundle.
TRAINING_ONLY = ("auxiliary", "same_day", "prefix_bias", "prior_weight")
# What tells a thinking token's meaning: absent from older bundles, of no use to an answer.
PROBE = ("to_code_space",)
CLUSTERS = ("cluster_of", "cluster_centres")


def load_answering_weights(model: S2GRModel, folder: Path) -> None:
    """Give the generator the weights in `folder`; the parts that only training needs stay as they are.

    Raises:
        BundleError: they are of another shape or incomplete.
    """
    tensors = {
        name: value for name, value in load_file(folder / WEIGHTS).items() if name not in ("node_bias", *CLUSTERS)
    }
    own = model.state_dict()
    differing = [name for name, value in tensors.items() if name in own and own[name].shape != value.shape]
    if differing:
        name = differing[0]
        raise BundleError(
            f"{name} of the weights is {list(tensors[name].shape)}, the model's is {list(own[name].shape)}",
            evidence=folder / WEIGHTS,
        )
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    lacking = [name for name in missing if not name.startswith(TRAINING_ONLY + PROBE)]
    if lacking or unexpected:
        raise BundleError(f"the weights lack {lacking} or have {unexpected} beyond", evidence=folder / WEIGHTS)
