"""The objective's terms, each against its definition."""

from typing import Any

import numpy as np
import pytest
import torch

from sidrec.codebook.artefact import Codebook
from sidrec.decoding.beam import score_items
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.s2gr.batches import (
    Sampling,
    TrainingBatch,
    TrainingSet,
    code_table,
    encoder_input,
    has_code,
    histories_of,
)
from sidrec.systems.s2gr.clusters import cluster_codewords
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig
from sidrec.systems.s2gr.losses import Tables, alignment_loss, contrast_loss, losses, regulariser
from sidrec.systems.s2gr.model import S2GRModel
from sidrec.systems.s2gr.prior import PopularityPrior
from sidrec.systems.s2gr.steps import GeneratorSteps

FIT_DAY = 14_914
SAMPLING = Sampling(
    batch_users=16,
    targets=3,
    item_dropout=0.0,
    max_positions=32,
    flatten=0,
    repeat_weight=1.0,
    half_life_days=None,
    prior_delay_days=0,
    split_share=0.0,
)


@pytest.fixture
def tables(world: Any, codebook_config: S2GRCodebookConfig) -> Tables:
    trie = PrefixTrie.from_codes(world.catalog.codes)
    words = Codebook.load(world.codebook).quantizer.codebooks
    clusters = cluster_codewords(words, world.catalog.codes, codebook_config, seed=0)
    histories = histories_of(world.baskets, world.catalog)
    return Tables(
        trie=trie,
        ancestors=trie.ancestors,
        codes=code_table(world.catalog),
        present=has_code(world.catalog).float(),
        clusters=list(clusters.of),
        centres=list(clusters.centres),
        prior=PopularityPrior.fit(histories, trie, last_day=FIT_DAY, window_days=28),
    )


@pytest.fixture
def batch(world: Any) -> TrainingBatch:
    return next(TrainingSet(histories_of(world.baskets, world.catalog), SAMPLING, fit_day=FIT_DAY, seed=0).batches(0))


def model_of(tables: Tables, **change: Any) -> S2GRModel:
    torch.manual_seed(0)
    config = S2GRModelConfig(dim=16, ff_dim=32, dropout=0.0).model_copy(update=change)
    return S2GRModel(config, codebook_sizes=[8, 8, 8], code_dim=4, num_nodes=tables.trie.num_nodes)


def terms_of(model: S2GRModel, batch: TrainingBatch, tables: Tables) -> dict[str, torch.Tensor]:
    return losses(model, batch, tables, tables.prior.on(batch.prior_day))


def test_alignment_is_cross_entropy_of_cosines() -> None:
    """Two rows by hand: one on its cluster's centre, one on another's."""
    centres = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    tokens = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    loss = alignment_loss(tokens, centres, target, torch.tensor([0.5, 0.5]), temperature=0.5)

    right, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    torch.testing.assert_close(float(loss), 0.5 * (right + wrong), rtol=1e-5, atol=1e-6)


def test_the_contrast_has_no_negative_of_the_same_item() -> None:
    """Two rows with one item: each has only itself to find, so nothing is lost."""
    truth = torch.randn(2, 3)

    loss = contrast_loss(torch.randn(2, 3), truth, torch.tensor([7, 7]), torch.ones(2), 0.1)

    torch.testing.assert_close(loss, torch.tensor(0.0))


def test_the_regulariser_teaches_the_token_only() -> None:
    """v_g is behind a stop-gradient."""
    token, guess = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    regulariser(token, guess, torch.ones(2)).backward()

    assert guess.grad is None
    assert token.grad is not None


def test_without_its_contrast_the_auxiliary_decoder_learns_nothing(tables: Tables, batch: TrainingBatch) -> None:
    """The auxiliary decoder's gradient comes from L_InfoNCE alone, L_Reg's is stopped."""
    model = model_of(tables, contrast_weight=1e-30)
    terms_of(model, batch, tables)["reg"].backward()

    assert model.auxiliary_query.grad is None or not model.auxiliary_query.grad.any()


@pytest.mark.parametrize("term", ["align", "contrast", "regulariser"])
def test_a_weight_of_zero_leaves_the_rest_bit_for_bit(tables: Tables, batch: TrainingBatch, term: str) -> None:
    """The total is the weighted sum of its terms and nothing else."""
    whole = terms_of(model_of(tables), batch, tables)
    without = terms_of(model_of(tables, **{f"{term}_weight": 0.0}), batch, tables)
    prefix = {"align": ("align",), "contrast": ("contrast", "reg"), "regulariser": ("reg",)}[term]
    weights = {"reg": 0.1}
    if term == "regulariser":
        weights["reg"] = 0.0
    expected = sum(
        weights.get(name, 1.0) * float(value.detach())
        for name, value in whole.items()
        if name != "total" and not name.startswith(prefix if term != "regulariser" else ())
    )

    assert float(without["total"].detach()) == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_the_codes_losses_are_the_items_log_probability(world: Any, tables: Tables) -> None:
    """With every target item sampled, the three code losses sum to -log p(item), the mean over the basket."""
    longer = next(history for history in histories_of(world.baskets, world.catalog) if len(history) > 3)
    histories = [longer.before(int(longer.days[3]))]
    sampling = Sampling(1, 64, 0.0, 32, 0, 1.0, None, 0, 0.0)
    batch = next(TrainingSet(histories, sampling, fit_day=FIT_DAY, seed=0).batches(0))
    model = model_of(tables).eval()
    terms = terms_of(model, batch, tables)

    memory = model.encode(batch.inputs, tables.codes, tables.present)
    total = torch.tensor(0.0)
    for point in range(2):
        steps = GeneratorSteps(model, memory)
        steps.limit = torch.tensor([[point]])
        prior = tables.prior.table[tables.prior.on(batch.prior_day[0, point])]
        # The prior's weights start at one, the learnt bias at zero.
        scores = score_items(steps, tables.trie, prior, torch.arange(64)[None])[0]
        mine = batch.target_point == point
        total -= 0.5 * (scores[batch.target_item[mine]] * batch.target_weight[mine]).sum()

    assert float(terms["rec_1"] + terms["rec_2"] + terms["rec_3"]) == pytest.approx(float(total), rel=0.03)


@torch.no_grad()
def test_an_untrained_generator_is_the_popularity_prior(world: Any, tables: Tables) -> None:
    """With silent code tables the distribution is that of the smoothed recent counts, whatever the user."""
    model = model_of(tables).eval()
    for table in model.code_out:
        table.zero_()
    histories = histories_of(world.baskets, world.catalog)
    memory = model.encode(encoder_input(histories[:2]), tables.codes, tables.present)
    prior = tables.prior.table[-1]
    scores = score_items(GeneratorSteps(model, memory), tables.trie, prior, torch.arange(64).expand(2, -1))

    recent, past = np.zeros(64), np.full(64, 0.02)
    for history in histories:
        for start, end, day in zip(history.start[:-1], history.start[1:], history.days, strict=True):
            past[history.items[start:end]] += day < FIT_DAY
            recent[history.items[start:end]] += FIT_DAY - 28 <= day < FIT_DAY
    share = recent + 30 * past / past.sum()
    expected = torch.from_numpy(np.log(share / share.sum())).float()

    torch.testing.assert_close(scores, expected.expand(2, -1), atol=1e-4, rtol=1e-4)
