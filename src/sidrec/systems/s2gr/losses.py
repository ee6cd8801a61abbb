"""S²GR's objective: codes, clusters under the thinking tokens, and a whole-item vector for the first of them.

Axes: `point` predicted baskets, `target` items sampled from one, `row` point times target, `child` continuations of a
prefix, `cluster` K-means clusters of a level, `dim` width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cosine_similarity, normalize, one_hot

from sidrec.decoding.trie import NONE, ROOT, PrefixTrie, child_log_probs
from sidrec.quantization.sharding import Shards
from sidrec.systems.batches import TrainingBatch
from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.model import Decoding, Memory, S2GRModel
from sidrec.systems.s2gr.prior import PopularityPrior


@dataclass(frozen=True, slots=True)
class Tables:
    """The frozen codebook as the losses see it."""

    trie: PrefixTrie
    ancestors: Int[Tensor, "item level"]
    codes: Int[Tensor, "item level"]
    present: Float[Tensor, "item level"]
    clusters: list[Int[Tensor, " code"]]  # g_l: cluster of each code; levels of the residual codebook only
    centres: list[Float[Tensor, "cluster code_dim"]]
    prior: PopularityPrior

    def to(self, device: torch.device) -> "Tables":
        """Return the same tables on another device."""
        return Tables(
            trie=self.trie.to(device),
            ancestors=self.ancestors.to(device),
            codes=self.codes.to(device),
            present=self.present.to(device),
            clusters=[table.to(device) for table in self.clusters],
            centres=[table.to(device) for table in self.centres],
            prior=PopularityPrior(self.prior.table.to(device), self.prior.first_day),
        )


def alignment_loss(
    token: Float[Tensor, "row code_dim"],
    centres: Float[Tensor, "cluster code_dim"],
    target: Float[Tensor, "row cluster"],
    weight: Float[Tensor, " row"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return L_Align of one level: cross entropy of cos(P t_l, c_l,k) / tau against the true clusters."""
    cosine = normalize(token, dim=-1) @ normalize(centres, dim=-1).T
    return -(weight * (target * (cosine / temperature).log_softmax(dim=-1)).sum(dim=-1)).sum()


def contrast_loss(
    guess: Float[Tensor, "row dim"],
    truth: Float[Tensor, "column dim"],
    item: Int[Tensor, " column"],
    weight: Float[Tensor, " row"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return L_InfoNCE between v_g and the target's mean code embedding, the other rows' targets as negatives.

    A column with the row's own item is no negative. Columns beyond the rows are negatives alone.
    """
    rows = len(guess)
    similarity = normalize(guess, dim=-1) @ normalize(truth, dim=-1).T / temperature
    same = item[:rows, None] == item
    own = torch.eye(rows, len(item), dtype=torch.bool, device=item.device)
    return -(weight * similarity.masked_fill(same & ~own, -torch.inf).log_softmax(dim=-1).diagonal()).sum()


def regulariser(
    token: Float[Tensor, "row dim"], guess: Float[Tensor, "row dim"], weight: Float[Tensor, " row"]
) -> Float[Tensor, ""]:
    """Return L_Reg = 1 - cos(t_1, sg(v_g)): v_g learns from the contrast alone."""
    return (weight * (1 - cosine_similarity(token, guess.detach(), dim=-1))).sum()


def losses(
    model: S2GRModel,
    batch: TrainingBatch,
    tables: Tables,
    prior_row: Int[Tensor, "user point"],
    shards: Shards | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return `total` and its terms for one batch, or for one rank's part of it: the parts' terms add up to its terms.

    The first code's state does not depend on the target, so its loss is over all items of the basket at once; deeper
    levels teacher-force the sampled items, with live caches: gradients flow through every thinking token.
    """
    config = model.config
    memory = model.encode(batch.inputs, tables.codes, tables.present)
    decoding = Decoding(model, memory, batch.limit)
    terms: dict[str, Tensor] = {}

    users, points, targets = batch.sampled.shape
    logits, tokens = decoding.next_logits(0, decoding.begin() + batch.same_day[..., None] * model.same_day)
    first_token = tokens.get(0)
    root = torch.full((users, points), ROOT, device=logits.device)
    spread = _point_distribution(batch, tables.codes[:, 0], len(model.code_in[0]))
    log_probs, real = _child_log_probs(model, tables, logits, root, prior_row, depth=0)
    low, high = tables.trie.level_nodes(1)
    chosen = (spread[..., tables.trie.code[low:high]] * log_probs).sum(dim=-1)
    terms["rec_1"] = -(batch.point_weight * _smoothed(chosen, log_probs, real, config.label_smoothing)).sum()
    for level, token in tokens.items():
        if config.align_weight and level < len(tables.clusters):
            codes = _point_distribution(batch, tables.codes[:, level], len(model.code_in[level]))
            terms[f"align_{level + 1}"] = _alignment(model, tables, level, token, codes, batch.point_weight)

    weight = (batch.point_weight / targets)[..., None].expand(-1, -1, targets).flatten(1)
    item = batch.sampled.flatten(1)
    row_prior = prior_row[..., None].expand(-1, -1, targets).flatten(1)
    decoding.fork(targets)
    for level in range(1, len(model.code_in)):
        code = tables.codes[item, level - 1]
        logits, tokens = decoding.next_logits(level, model.code_in[level - 1][code])
        has_code = tables.present[item, level]
        node = tables.ancestors[item, level - 1]
        log_probs, real = _child_log_probs(model, tables, logits, node, row_prior, depth=level)
        place = tables.ancestors[item, level] - tables.trie.child_start[node]
        chosen = log_probs.gather(-1, place.clamp(0, log_probs.shape[-1] - 1)[..., None])[..., 0]
        chosen = _smoothed(chosen, log_probs, real, config.label_smoothing)
        terms[f"rec_{level + 1}"] = -(weight * torch.where(has_code > 0, chosen, 0.0)).sum()
        if level in tokens and config.align_weight and level < len(tables.clusters):
            codes = one_hot(tables.codes[item, level], len(model.code_in[level])).to(logits.dtype)
            terms[f"align_{level + 1}"] = _alignment(model, tables, level, tokens[level], codes, weight)
    if first_token is not None and config.contrast_weight:
        _add_whole_item_terms(model, batch, tables, memory, first_token, terms, shards)
    total = torch.zeros((), device=logits.device)
    terms["total"] = sum((_weight_of(config, name) * value for name, value in terms.items()), start=total)
    return terms


def _smoothed(
    chosen: Float[Tensor, "*rows"],
    log_probs: Float[Tensor, "*rows child"],
    real: Bool[Tensor, "*rows child"],
    smoothing: float,
) -> Float[Tensor, "*rows"]:
    """Return the target's log-probability with a share of it spread evenly over the real continuations."""
    if smoothing == 0:
        return chosen
    return (1 - smoothing) * chosen + smoothing * log_probs.sum(dim=-1) / real.sum(dim=-1).clamp(min=1)


def _alignment(
    model: S2GRModel,
    tables: Tables,
    level: int,
    token: Float[Tensor, "user row dim"],
    codes: Float[Tensor, "user row code"],
    weight: Float[Tensor, "user row"],
) -> Float[Tensor, ""]:
    """Return L_Align of a level, its target the cluster of the true code (of a basket: their distribution)."""
    members = one_hot(tables.clusters[level], len(tables.centres[level])).to(token.dtype)
    # A disambiguation level has no clusters; a codebook may have more codes than clusters know.
    target = codes[..., : len(members)].flatten(0, 1) @ members
    token, centres = model.in_cluster_space(level, token.flatten(0, 1), tables.centres[level], members)
    return alignment_loss(token, centres, target, weight.flatten(), model.config.align_temperature)


def _add_whole_item_terms(
    model: S2GRModel,
    batch: TrainingBatch,
    tables: Tables,
    memory: Memory,
    first_token: Float[Tensor, "user point dim"],
    terms: dict[str, Tensor],
    shards: Shards | None,
) -> None:
    config = model.config
    real: Bool[Tensor, "user point"] = batch.point_weight > 0
    weight = batch.point_weight[real]
    guess = model.whole_item(memory, batch.limit)[real]
    item = batch.sampled[..., 0][real]
    codes, present = tables.codes[item], tables.present[item]
    truth = model.item_vectors(codes, present) / present.sum(dim=-1, keepdim=True)
    if not config.contrast_to_codes:
        truth = truth.detach()
    others, their_items = _of_other_ranks(truth, item, shards)
    terms["contrast"] = contrast_loss(
        guess, torch.cat([truth, others]), torch.cat([item, their_items]), weight, config.contrast_temperature
    )
    terms["reg"] = regulariser(first_token[real], guess, weight)


def _of_other_ranks(
    truth: Float[Tensor, "row dim"], item: Int[Tensor, " row"], shards: Shards | None
) -> tuple[Float[Tensor, "other dim"], Int[Tensor, " other"]]:
    """Return the targets of the other ranks' parts; gradients flow back to the rank that a target is of."""
    if shards is None or shards.count == 1:
        return truth[:0], item[:0]
    sizes = shards.sizes(len(item), item.device)
    padded = truth.new_zeros(max(sizes), truth.shape[1])
    # Added rather than assigned, so that an empty part is in the graph as well and takes part in the way back.
    padded = torch.cat([truth, padded[len(truth) :]])
    vectors = all_gather(padded, group=shards.group)  # type: ignore[no-untyped-call]
    items = torch.split(shards.gather(item), sizes)
    others = [rank for rank in range(shards.count) if rank != shards.rank]
    return (
        torch.cat([vectors[rank][: sizes[rank]] for rank in others]),
        torch.cat([items[rank] for rank in others]),
    )


def _point_distribution(
    batch: TrainingBatch, first_code: Int[Tensor, " item"], size: int
) -> Float[Tensor, "user point code"]:
    """Return each point's true distribution of first codes, over all items of its basket."""
    users, points = batch.limit.shape
    flat = torch.zeros(users * points * size, device=batch.target_weight.device)
    flat.index_add_(0, batch.target_point * size + first_code[batch.target_item], batch.target_weight)
    return flat.view(users, points, size)


def _child_log_probs(
    model: S2GRModel,
    tables: Tables,
    logits: Float[Tensor, "user row code"],
    node: Int[Tensor, "user row"],
    prior_row: Int[Tensor, "user row"],
    depth: int,
) -> tuple[Float[Tensor, "user row child"], Bool[Tensor, "user row child"]]:
    """Return the log-probabilities of a prefix's continuations, 0 at padding, and which are real."""
    trie = tables.trie
    children = trie.children(node, trie.max_children[depth])
    safe = children.clamp(min=0)
    learnt = model.prefix_bias[safe] if model.config.prefix_bias else 0.0
    bias = learnt + model.prior_weight[depth] * tables.prior.table[prior_row[..., None], safe]
    real = children != NONE
    return child_log_probs(logits, bias, children, trie.code).masked_fill(~real, 0.0), real


def _weight_of(config: S2GRModelConfig, term: str) -> float:
    match term.split("_")[0]:
        case "rec":
            return 1.0
        case "align":
            return config.align_weight
        case "contrast":
            return config.contrast_weight
        case _:
            return config.regulariser_weight
