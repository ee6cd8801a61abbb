"""The objective's terms, each against its definition."""

from typing import Any

import numpy as np
import pytest
import torch

from sidrec.codebook.artefact import Codebook
from sidrec.decoding.beam import score_items
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.batches import Sampling, TrainingBatch, TrainingSet, encoder_input
from sidrec.systems.history import History, code_table, has_code
from sidrec.systems.s2gr.clusters import cluster_codewords
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig
from sidrec.systems.s2gr.losses import Tables, _smoothed, alignment_loss, contrast_loss, losses, regulariser
from sidrec.systems.s2gr.model import Decoding, S2GRModel
from sidrec.systems.s2gr.prior import PopularityPrior
from sidrec.systems.s2gr.steps import GeneratorSteps
from sidrec.systems.stored_histories import histories_of

FIT_DAY = 14_914
HISTORY = History(np.array([3, 9, 40]), np.array([0, 2, 3]), np.array([10, 20]))
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


def test_one_masked_pass_with_the_tokens_as_constants_gives_the_incremental_states(tables: Tables) -> None:
    """The cache changes nothing: BOS, t_1, s_1, t_2, s_2, t_3 at once, each seeing its past, is the same decoder."""
    model = model_of(tables).eval()
    memory = model.encode(encoder_input([HISTORY]), tables.codes, tables.present)
    decoding = Decoding(model, memory, torch.tensor([[1]]))
    codes, fed, states = (5, 2), [decoding.begin()], []
    for level in range(3):
        states.append(decoding.feed(fed[-1]))
        fed.append((states[-1] + model.level_position[level]).detach())
        states.append(decoding.feed(fed[-1]))
        if level < 2:
            fed.append(model.code_in[level][codes[level]][None, None])

    hidden = torch.cat(fed, dim=1)
    causal = torch.full((6, 6), -torch.inf).triu(1)[None, None]
    for layer, block in enumerate(model.decoder):
        normed = block.self_norm(hidden)
        hidden = hidden + block.self_attention(normed, block.self_attention.remember(normed), causal)
        bias = decoding.bias.expand(-1, -1, 6, -1)
        hidden = hidden + block.cross_attention(block.cross_norm(hidden), memory.layers[layer], bias)
        hidden = hidden + block.ff(block.ff_norm(hidden))

    torch.testing.assert_close(model.decoder_norm(hidden), torch.cat(states, dim=1), atol=1e-5, rtol=1e-5)


def test_without_supervision_thinking_is_pausing_with_vectors(batch: TrainingBatch, tables: Tables) -> None:
    """Lambda 0, no alignment, no contrast: only the codes' terms are left, and they are those of the full objective."""
    off = {"align_weight": 0.0, "contrast_weight": 0.0, "regulariser_weight": 0.0}
    bare = terms_of(model_of(tables, **off), batch, tables)
    full = terms_of(model_of(tables), batch, tables)

    assert set(bare) == {"rec_1", "rec_2", "rec_3", "total"}
    torch.testing.assert_close(bare["total"], sum(full[f"rec_{level}"] for level in (1, 2, 3)))


def test_a_pause_is_the_level_position_whatever_the_history_says(tables: Tables) -> None:
    model = model_of(tables, thinking="pause").eval()
    memory = model.encode(encoder_input([HISTORY]), tables.codes, tables.present)
    decoding = Decoding(model, memory, torch.tensor([[1]]))
    logits, tokens = decoding.next_logits(0, decoding.begin())
    by_hand = Decoding(model, memory, torch.tensor([[1]]))
    by_hand.feed(by_hand.begin())

    assert tokens == {}
    torch.testing.assert_close(logits, by_hand.feed(model.level_position[0][None, None]) @ model.code_out[0].T)


def test_thinking_ahead_aligns_every_level_before_the_first_code(batch: TrainingBatch, tables: Tables) -> None:
    model = model_of(tables, thinking="ahead").eval()
    memory = model.encode(batch.inputs, tables.codes, tables.present)
    decoding = Decoding(model, memory, batch.limit)

    assert sorted(decoding.next_logits(0, decoding.begin())[1]) == [0, 1, 2]
    assert {"align_1", "align_2", "align_3"} <= set(terms_of(model, batch, tables))


def test_label_smoothing_mixes_in_the_mean_over_real_continuations() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]])
    real = torch.tensor([[True, True, False], [True, False, False]])

    smoothed = _smoothed(log_probs[:, 0], log_probs, real, 0.2)
    torch.testing.assert_close(smoothed, torch.tensor([0.8 * -1.0 + 0.2 * -1.5, -0.5]))
    assert torch.equal(_smoothed(log_probs[:, 0], log_probs, real, 0.0), log_probs[:, 0])


def test_in_token_space_a_centre_is_the_mean_embedding_of_its_codes_without_gradient(
    batch: TrainingBatch, tables: Tables
) -> None:
    model = model_of(tables, align_space="token")
    members = torch.nn.functional.one_hot(tables.clusters[0], 3).float()
    token = torch.randn(2, 16)
    same, centres = model.in_cluster_space(0, token, tables.centres[0], members)
    expected = torch.stack([model.code_in[0][tables.clusters[0] == cluster].mean(dim=0) for cluster in range(3)])

    assert torch.equal(same, token)
    torch.testing.assert_close(centres, expected)
    assert not centres.requires_grad


def test_the_contrast_moves_the_codes_unless_told_not_to(batch: TrainingBatch, tables: Tables) -> None:
    moved = {}
    for flag in (True, False):
        model = model_of(tables, contrast_to_codes=flag)
        terms_of(model, batch, tables)["contrast"].backward()
        moved[flag] = [table.grad.clone() for table in model.code_in]

    assert not all(torch.equal(a, b) for a, b in zip(moved[True], moved[False], strict=True))
