"""Batches hold every sample once an epoch, within their budget, and an interrupted epoch goes on as it would have."""

import numpy as np
import pytest
import torch

from sidrec.errors import UsageError
from sidrec.systems.sidreasoner.batches import TokenBatches
from sidrec.systems.sidreasoner.encoding import Sample

BUDGET = 200


def samples(count: int = 60) -> list[Sample]:
    """Return samples of 5 to 60 tokens; all tokens of one are its number."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, count)
    return [Sample(np.full(n, row + 1, dtype=np.int32), np.arange(n) > n // 2) for row, n in enumerate(lengths)]


def batches(count: int = 60, seed: int = 0, budget: int = BUDGET) -> TokenBatches:
    return TokenBatches(samples(count), tokens_per_batch=budget, padding=0, seed=seed)


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_has_every_sample_once_and_no_batch_is_too_large(epoch: int) -> None:
    made, seen = samples(), []
    data = batches()
    found = list(data.batches(epoch))
    for batch in found:
        assert batch.tokens.numel() <= BUDGET
        for tokens, learnt in zip(batch.tokens, batch.learnt, strict=True):
            row = int(tokens[0]) - 1
            seen.append(row)
            size = len(made[row])

            assert (tokens[:size] == row + 1).all()
            assert (tokens[size:] == 0).all()
            assert learnt.tolist() == [*made[row].learnt.tolist(), *[False] * (len(tokens) - size)]

    assert sorted(seen) == list(range(60))
    assert len(found) == len(data)


def test_little_of_a_batch_is_padding() -> None:
    found = list(batches().batches(0))
    padding = sum(float((batch.tokens == 0).sum()) for batch in found) / sum(batch.tokens.numel() for batch in found)

    assert padding < 0.25


def test_a_later_start_gives_the_same_batches() -> None:
    data = batches()
    whole, rest = list(data.batches(2)), list(data.batches(2, first=4))

    assert len(rest) == len(data) - 4
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(whole[4:], rest, strict=True))


def test_epochs_and_seeds_mix_otherwise() -> None:
    first, second, other = (
        [batch.tokens[:, 0].tolist() for batch in data.batches(epoch)]
        for data, epoch in ((batches(), 0), (batches(), 1), (batches(seed=1), 0))
    )

    assert first != second
    assert first != other


def test_a_sample_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert sorted(len(batch.tokens) for batch in batches(budget=10).batches(0)) == [1] * 60


def test_the_first_token_is_never_learnt() -> None:
    """There is nothing to predict it from."""
    whole = [Sample(np.ones(4, dtype=np.int32), np.ones(4, dtype=np.bool_))]
    [batch] = TokenBatches(whole, tokens_per_batch=9, padding=0, seed=0).batches(0)

    assert batch.learnt.tolist() == [[False, True, True, True]]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(UsageError, match="no sample to learn from"):
        batches(0)
