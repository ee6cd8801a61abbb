"""What logits start from: popularity before the day, of what still matches."""

from typing import Any

import numpy as np
import pytest
import torch

from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.history import History
from sidrec.systems.reg4rec.config import Reg4RecTrainingConfig
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.reg4rec.search import Open, search
from sidrec.systems.reg4rec.steps import PathSteps
from sidrec.systems.stored_histories import histories_of
from tests.sidrec.systems.reg4rec.world import FIT_DAY, batch_of, model_of, prior_by_hand, tables_of


def test_shares_are_those_of_matching_items(world: Any) -> None:
    """Of several days, after none, one and two tokens, by a look at every item; a set of no item has no prior."""
    tables = tables_of(world)
    sets, days = tables.prior.sets, torch.tensor([FIT_DAY - 100, FIT_DAY, FIT_DAY - 100, FIT_DAY + 9, 3])
    codes = sets.codes[torch.tensor([3, 20, 63, 8, 40])]
    torch.testing.assert_close(
        tables.prior.of_days(days), torch.cat([prior_by_hand(tables, int(day), {})[0] for day in days])
    )
    first, second = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    codes[3, 2] = (sets.codes[sets.matching([(0, int(codes[3, 0]))]), 2].max() + 1) % 8
    matches = None
    seen: list[dict[int, int]] = [{} for _ in range(5)]
    for slot in (first, second):
        code = codes.gather(1, slot[:, None])[:, 0]
        matches = sets.after(matches, slot, code)
        for own, s, c in zip(seen, slot.tolist(), code.tolist(), strict=True):
            own[s] = c
        expected = [prior_by_hand(tables, int(day), own)[0] for day, own in zip(days, seen, strict=True)]
        torch.testing.assert_close(tables.prior.given(matches, days), torch.cat(expected))


def test_a_day_counts_only_earlier_ones(world: Any) -> None:
    """Purchases on a day first move the prior of the day after."""
    sets, training = TokenSets.of(world.catalog.codes, 8), Reg4RecTrainingConfig()
    quiet = History(np.array([0]), np.array([0, 1]), np.array([0]))
    loud = History(np.full(50, 63), np.array([0, 50]), np.array([5]))
    without, with_ = (CodePrior.fit(own, sets, training, last_day=9) for own in ([quiet], [quiet, loud]))
    moved = [not torch.equal(without.masses[day], with_.masses[day]) for day in range(10)]

    assert moved == [False] * 6 + [True] * 4


def test_a_model_that_says_nothing_ranks_by_popularity(world: Any) -> None:
    """With the decoder's cosines gone, an item's probability is its share of the masses, whatever the order."""
    tables, model = tables_of(world), model_of()
    with torch.no_grad():
        model.towers.zero_()
        model.prior_weight.fill_(1.0)
    masses = tables.prior.masses[-1]
    memory = model.encode(batch_of(world).inputs, tables.codes)
    found = search(
        PathSteps(model, memory, CodePrior(tables.prior.sets, masses[None], 0)),
        tables.prior.sets,
        width=64,
        order="confidence",
        salt=torch.zeros(len(memory.rank), dtype=torch.int64),
        openings=Open(),
    )
    expected = (masses / masses.sum()).log()
    for row in range(len(memory.rank)):
        own = dict(zip(found.items[row].tolist(), found.scores[row].tolist(), strict=True))
        assert [own[item] for item in range(64)] == pytest.approx(expected.tolist(), abs=1e-2)


def test_without_a_prior_nothing_is_added(world: Any) -> None:
    sets = TokenSets.of(world.catalog.codes, 8)
    prior = CodePrior.fit(
        histories_of(world.baskets, world.catalog), sets, Reg4RecTrainingConfig(prior="none"), last_day=FIT_DAY
    )

    assert not prior.of_days(torch.tensor([FIT_DAY])).any()
    assert not prior.given(sets.first(torch.tensor([0]), torch.tensor([1])), torch.tensor([FIT_DAY])).any()


def test_a_static_prior_is_the_same_on_every_day(world: Any) -> None:
    sets, histories = TokenSets.of(world.catalog.codes, 8), histories_of(world.baskets, world.catalog)
    prior = CodePrior.fit(histories, sets, Reg4RecTrainingConfig(prior="static"), last_day=FIT_DAY)
    counts = np.bincount(np.concatenate([history.items for history in histories]), minlength=64) + 0.02
    shares = np.bincount(world.catalog.codes[:, 1], counts, minlength=8) / counts.sum()

    for day in (0, FIT_DAY):
        assert prior.of_days(torch.tensor(day))[1].exp().tolist() == pytest.approx(shares, rel=1e-3)
