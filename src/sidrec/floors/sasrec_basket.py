"""SASRec over baskets: a causal transformer reads one position per basket and scores every item by full softmax.

Source: arXiv 1808.09781 for the architecture; basket inputs and the full softmax replace item positions and sampled
negatives, since a basket has no order and sampling flatters (protocol `next_basket_v1`, model S1).

Axes: `basket` baskets of all users one after another, `batch` users, `pos` their baskets oldest first, `row` states to
score, `dim` width, `item` catalogue, `event` items of the baskets.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from sidrec.evaluation.judging import judge, rank_all
from sidrec.evaluation.protocol import Ints, NextBasket, TargetKind, Targets
from sidrec.floors.base import Scorer, Scores
from sidrec.progress import track


@dataclass(frozen=True, slots=True)
class SASRecBasket:
    """Settings chosen on October, then frozen."""

    dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    max_positions: int = 32
    embedding_sd: float = 0.04
    """Of the initial item vectors; larger ones copy the last basket more."""
    dropout: float = 0.3
    item_dropout: float = 0.2
    """Share of a basket's items left out of its vector while training."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    item_weight_decay: float = 0.1
    batch_size: int = 48
    epochs: int = 14
    seed: int = 0

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer of a model trained on every fit basket that has an earlier one."""
        with _own_torch(self.seed) as device:
            model = self._model(data).to(device)
            for _ in self._train(model, data):
                pass
        return _Sequences(model.eval(), data, self.max_positions)

    def tuned(self, validation: NextBasket, *, patience: int = 5) -> "SASRecBasket":
        """Return these settings with the epochs, at most their own, that give the best NDCG@10 on `validation`.

        Args:
            validation: rows to choose by, over the same fit baskets that the model will be fitted on.
            patience: epochs without a better value after which it stops looking.
        """
        targets: dict[TargetKind, Targets] = {"all": validation.targets("all")}
        best, best_epoch = -1.0, 0
        with _own_torch(self.seed) as device:
            model = self._model(validation).to(device)
            for epoch in self._train(model, validation):
                lists = rank_all(_Sequences(model.eval(), validation, self.max_positions), validation, targets)
                model.train()
                value = judge(lists, targets, validation.num_items).means("all")["ndcg@10"]
                if value > best:
                    best, best_epoch = value, epoch
                elif epoch - best_epoch >= patience:
                    break
        return replace(self, epochs=best_epoch)

    def _model(self, data: NextBasket) -> "_Model":
        return _Model(self, data.num_items, torch.from_numpy(data.popularity))

    def _train(self, model: "_Model", data: NextBasket) -> Iterator[int]:
        """Train the model, yielding the number of every epoch that is done."""
        fit = data.fit_baskets
        _, first = np.unique(data.basket_user[fit], return_index=True)
        end = np.append(first[1:], len(fit))
        usable = end - first >= 2
        # The newest positions, and one more basket as the last target.
        spans = [(fit[max(a, b - self.max_positions - 1)], fit[b - 1] + 1) for a, b in zip(first, end, strict=True)]
        spans = [span for span, ok in zip(spans, usable, strict=True) if ok]
        items = [parameter for name, parameter in model.named_parameters() if name == "item.weight"]
        others = [parameter for name, parameter in model.named_parameters() if name != "item.weight"]
        optimizer = torch.optim.AdamW(
            [
                {"params": items, "weight_decay": self.item_weight_decay},
                {"params": others, "weight_decay": self.weight_decay},
            ],
            lr=self.learning_rate,
        )
        generator = np.random.default_rng(self.seed)
        model.train()
        steps = math.ceil(len(spans) / self.batch_size)
        batches = track(self._batches(spans, generator), "sasrec_basket", total=self.epochs * steps)
        for step, batch in enumerate(batches, start=1):
            loss = model.loss(data, batch, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % steps == 0:
                yield step // steps

    def _batches(self, spans: list[tuple[int, int]], generator: np.random.Generator) -> Iterator[list[tuple[int, int]]]:
        for _ in range(self.epochs):
            order = generator.permutation(len(spans))
            for start in range(0, len(order), self.batch_size):
                yield [spans[number] for number in order[start : start + self.batch_size]]


@contextmanager
def _own_torch(seed: int) -> Iterator[torch.device]:
    """Give the device to work on, with a random stream of its own, on one thread.

    The matrices are small: one thread is as fast on an idle machine and several times faster on a busy one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.device("cuda" if torch.cuda.is_available() else "cpu")
    finally:
        torch.set_num_threads(threads)


class _Model(nn.Module):
    def __init__(self, config: SASRecBasket, num_items: int, popularity: Tensor) -> None:
        super().__init__()
        self.config = config
        self.item = nn.EmbeddingBag(num_items, config.dim, mode="sum", include_last_offset=True)
        nn.init.normal_(self.item.weight, std=config.embedding_sd)
        self.position = nn.Parameter(torch.randn(config.max_positions, config.dim) * 0.02)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        share = (popularity + 1) / (popularity + 1).sum()
        self.bias = nn.Parameter(share.log().float())

    def encode(
        self, events: Int[Tensor, " event"], offsets: Int[Tensor, " basket"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "basket dim"]:
        """Return the state after every basket, in the baskets' order; users hold `lengths` consecutive ones."""
        size = (offsets[1:] - offsets[:-1]).clamp(min=1)
        vectors = self.item(events, offsets) / size.sqrt()[:, None]
        place = torch.arange(int(lengths.max()), device=lengths.device)
        real = place < lengths[:, None]
        # Positions count back from the newest basket, the one that is asked about when scoring.
        back = (lengths[:, None] - 1 - place)[real]
        states = self.dropout(vectors + self.position[back])
        for block in self.blocks:
            states = block(states, real)
        hidden: Tensor = self.norm(states)
        return hidden

    def logits(self, hidden: Float[Tensor, "row dim"]) -> Float[Tensor, "row item"]:
        return hidden @ self.item.weight.T + self.bias

    def loss(self, data: NextBasket, spans: list[tuple[int, int]], generator: np.random.Generator) -> Tensor:
        """Return the mean, over all next baskets of the batch, of the mean negative log-probability of its items."""
        device = self.bias.device
        inputs = np.concatenate([np.arange(start, stop - 1) for start, stop in spans])
        lengths = torch.tensor([stop - 1 - start for start, stop in spans], device=device)
        events, offsets = _events(data, inputs, drop=self.config.item_dropout, generator=generator)
        logits = self.logits(self.encode(events.to(device), offsets.to(device), lengths))
        target_item, target_offsets = _events(data, inputs + 1)
        size = target_offsets[1:] - target_offsets[:-1]
        target_row = torch.repeat_interleave(torch.arange(len(size)), size).to(device)
        picked = logits[target_row, target_item.to(device)]
        weight = (1 / size.clamp(min=1).float()).to(device)[target_row]
        asked = (size > 0).to(device)
        return (logits.logsumexp(dim=-1)[asked].sum() - (picked * weight).sum()) / asked.sum()


class _Block(nn.Module):
    def __init__(self, config: SASRecBasket) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(config.dim)
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.widen = nn.Linear(config.dim, 4 * config.dim)
        self.narrow = nn.Linear(4 * config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, states: Float[Tensor, "basket dim"], real: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "basket dim"]:
        """Return the states after attention over each user's earlier baskets and a feed-forward layer.

        Only attention needs users side by side; most of that rectangle is padding, so the rest runs on real baskets.
        """
        dim = states.shape[1]
        side_by_side = states.new_zeros(*real.shape, 3 * dim)
        side_by_side[real] = self.query_key_value(self.attention_norm(states))
        query, key, value = side_by_side.view(*real.shape, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        # Users are padded at the end, so the causal mask alone keeps padding out of real positions.
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        attended = mixed.transpose(1, 2).flatten(start_dim=2)[real]
        states = states + self.dropout(self.out(attended))
        widened = gelu(self.widen(self.feed_forward_norm(states)))
        out: Tensor = states + self.dropout(self.narrow(self.dropout(widened)))
        return out


@dataclass(frozen=True, slots=True)
class _Sequences:
    model: _Model
    data: NextBasket
    max_positions: int

    def __call__(self, rows: Ints) -> Scores:
        stop = self.data.row_basket[rows]
        start = np.maximum(self.data.row_first[rows], stop - self.max_positions)
        events, offsets = _events(
            self.data, np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
        )
        device = self.model.bias.device
        lengths = torch.from_numpy(stop - start).to(device)
        with torch.inference_mode():
            states = self.model.encode(events.to(device), offsets.to(device), lengths)
            newest = states[lengths.cumsum(dim=0) - 1]
            return np.asarray(self.model.logits(newest).double().cpu().numpy())


def _events(
    data: NextBasket, baskets: Ints, *, drop: float = 0.0, generator: np.random.Generator | None = None
) -> tuple[Int[Tensor, " event"], Int[Tensor, " basket"]]:
    """Return the baskets' catalogue items one after another and their `[basket + 1]` offsets."""
    matrix = data.incidence(baskets)
    items, offsets = matrix.indices, matrix.indptr
    if generator is not None and drop > 0:
        kept = generator.random(len(items)) >= drop
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        items = items[kept]
    return torch.from_numpy(items.astype(np.int64)), torch.from_numpy(offsets.astype(np.int64))
