"""Selection agrees with a softmax over each hypothesis and a sort, wherever the continuations come from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.selection import NOTHING, Candidates, best, log_probs

CODES = 9


def of_mask(mask: torch.Tensor, bias: torch.Tensor | None = None) -> Candidates:
    """Return the continuations that a set of tokens allows each hypothesis: no trie anywhere."""
    row, codes = mask.nonzero(as_tuple=True)
    return Candidates(mask.sum(dim=1), row, codes, bias)


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), width=st.integers(1, 12), density=st.floats(0.0, 1.0))
@settings(max_examples=150, deadline=None)
def test_the_best_are_those_of_a_sort(seed: int, batch: int, width: int, density: float) -> None:
    """Hypotheses with all, some and no continuations, biased, some candidates closed."""
    rng = np.random.default_rng(seed)
    beams = int(rng.integers(1, 5))
    mask = torch.from_numpy(rng.random((batch * beams, CODES)) < density)
    logits = torch.from_numpy(rng.normal(size=mask.shape) * 3)
    scores = torch.from_numpy(rng.normal(size=(batch, beams)))
    candidates = of_mask(mask)
    candidates = Candidates(
        candidates.counts, candidates.row, candidates.codes, torch.from_numpy(rng.normal(size=len(candidates.row)))
    )
    if len(candidates.row) == 0:
        return
    closed = torch.from_numpy(np.flatnonzero(rng.random(len(candidates.row)) < 0.2))

    values, picked = best(scores, log_probs(logits, candidates), candidates, width, closed)

    for user in range(batch):
        expected = []
        for beam in range(beams):
            own = (candidates.row == user * beams + beam).nonzero().flatten()
            raw = logits[user * beams + beam, candidates.codes[own]] + candidates.bias[own]
            log_p = scores[user, beam] + raw.log_softmax(dim=0)
            expected += [(float(p), int(n)) for p, n in zip(log_p, own, strict=True) if n not in closed]
        expected = sorted(expected, reverse=True)[:width]
        kept = picked[user] != NOTHING
        assert picked[user][kept].tolist() == [number for _, number in expected]
        assert values[user][kept].tolist() == pytest.approx([p for p, _ in expected], abs=1e-12)
        assert (values[user][~kept] == -torch.inf).all()


def test_one_continuation_costs_nothing() -> None:
    """Its log-probability is exactly 0, whatever the logit and the bias."""
    mask = torch.zeros(2, CODES, dtype=torch.bool)
    mask[0, 3] = mask[1, 8] = True
    candidates = of_mask(mask, torch.tensor([0.3, 1e6]))
    scores = torch.tensor([[-1.7, -0.1]])

    values, picked = best(scores, log_probs(torch.randn(2, CODES), candidates), candidates, 2)

    assert values.tolist() == torch.tensor([[-0.1, -1.7]]).tolist()
    assert picked.tolist() == [[1, 0]]


def test_a_logit_far_below_codes_that_cannot_follow_still_counts() -> None:
    """Ten thousand below the greatest of the row, which no item has: probabilities are among the real two alone."""
    logits = torch.tensor([[10_000.0, 0.0, 1.0]])
    candidates = of_mask(torch.tensor([[False, True, True]]))

    found = log_probs(logits, candidates)

    torch.testing.assert_close((found.above - found.log_norm).exp().sum(), torch.tensor(1.0))
