"""The tiny world's pieces as REG4Rec reads them."""

from typing import Any

import torch

from sidrec.codebook.artefact import Codebook
from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.batches import Sampling, TrainingBatch, TrainingSet
from sidrec.systems.reg4rec.categories import fit_categories, item_vectors
from sidrec.systems.reg4rec.config import Reg4RecModelConfig, Reg4RecTrainingConfig
from sidrec.systems.reg4rec.losses import Tables
from sidrec.systems.reg4rec.model import Reg4RecModel
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.stored_histories import histories_of

FIT_DAY = 14_914
SAMPLING = Sampling(
    batch_users=6,
    targets=3,
    item_dropout=0.0,
    max_positions=32,
    flatten=0,
    repeat_weight=0.5,
    half_life_days=100.0,
    prior_delay_days=5,
    split_share=0.3,
)


def tables_of(world: Any, *, categories: int = 5) -> Tables:
    codebooks = Codebook.load(world.codebook).quantizer.codebooks
    sets = TokenSets.of(world.catalog.codes, 8)
    vectors = item_vectors(sets.codes, codebooks)
    histories = histories_of(world.baskets, world.catalog)
    prior = CodePrior.fit(histories, sets, Reg4RecTrainingConfig(), last_day=FIT_DAY)
    paths = world.catalog.categories
    found = fit_categories("auto", paths, vectors, categories, seed=0)
    return Tables(sets.codes, found.of(paths, vectors), prior)


def batch_of(world: Any, sampling: Sampling = SAMPLING) -> TrainingBatch:
    histories = histories_of(world.baskets, world.catalog)
    return next(TrainingSet(histories, sampling, fit_day=FIT_DAY, seed=0).batches(0))


def model_of(**change: Any) -> Reg4RecModel:
    """Return a small model without dropout, with different trust in the prior at each step."""
    torch.manual_seed(0)
    config = {"dim": 16, "ff_dim": 32, "dropout": 0.0, "num_categories": 5, "encoder_layers": 1, "decoder_layers": 2}
    model = Reg4RecModel(Reg4RecModelConfig(**config | change), num_slots=3, codebook_size=8)
    with torch.no_grad():
        model.prior_weight.copy_(torch.tensor([1.0, 0.5, 0.3]))
        model.same_day.copy_(torch.randn(16))
        model.cross_bias.table.copy_(torch.randn(model.cross_bias.table.shape))
        model.self_bias.table.copy_(torch.randn(model.self_bias.table.shape))
    return model


def prior_by_hand(tables: Tables, day: int, tokens: dict[int, int]) -> torch.Tensor:
    """Return the log shares [1, 1, slot, code] of the day among the items that have these tokens, item by item."""
    masses = tables.prior.masses[min(max(day - tables.prior.first_day, 0), len(tables.prior.masses) - 1)].tolist()
    sums = torch.zeros(3, 8, dtype=torch.float64)
    for own, mass in zip(tables.codes.tolist(), masses, strict=True):
        if all(own[slot] == code for slot, code in tokens.items()):
            for slot, code in enumerate(own):
                sums[slot, code] += mass
    if sums.sum() == 0:
        return torch.zeros(1, 1, 3, 8)
    return (sums / sums.sum(dim=1, keepdim=True) + 1e-6).log().float()[None, None]
