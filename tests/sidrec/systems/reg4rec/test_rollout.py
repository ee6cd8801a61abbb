"""Paths are drawn by the policy, and its log-probability of them is what it is by definition."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from sidrec.systems.reg4rec.losses import Tables
from sidrec.systems.reg4rec.model import Paths, Reg4RecModel
from sidrec.systems.reg4rec.rollout import Start, Walk, walk
from tests.sidrec.systems.reg4rec.world import SAMPLING, batch_of, model_of, prior_by_hand, tables_of


def start_of(model: Reg4RecModel, tables: Tables, world: Any) -> Start:
    batch = batch_of(world, replace(SAMPLING, points="last", split_share=0.0))
    return Start(model.encode(batch.inputs, tables.codes), batch.limit, tables.prior, batch.prior_day)


@torch.no_grad()
def by_hand(
    model: Reg4RecModel, tables: Tables, start: Start, taken: Walk, user: int, path: int, temperature: float
) -> list[float]:
    """One path of one user, step by step."""
    users = len(start.limit)
    paths = Paths(model, start.memory, start.limit)
    hidden, found, free, tokens = paths.begin(), [], [0, 1, 2], {}
    for step in range(3):
        slot, code, category = (int(part[user, path, step]) for part in (taken.slot, taken.code, taken.category))
        prior = prior_by_hand(tables, int(start.day[user]), tokens)
        log_probs = model.slot_log_probs(hidden, prior, step)[user, 0]
        sure = torch.stack([log_probs[s].max().exp() / temperature for s in free]).log_softmax(dim=0)
        own = float(log_probs[slot, code]) + float(model.category_log_probs(hidden)[user, 0, category])
        found.append(own + float(sure[free.index(slot)]))
        free.remove(slot)
        tokens[slot] = code
        hidden = paths.extend(torch.full((users, 1), slot), torch.full((users, 1), code))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_log_probabilities_are_by_definition_and_the_same_again(world: Any, temperature: float) -> None:
    """Sampled and given, every action has the product of slot, code and category: a ratio of 1."""
    tables, model = tables_of(world), model_of()
    start = start_of(model, tables, world)
    torch.manual_seed(0)
    taken = walk(model, start, slot_temperature=temperature, samples=4)
    again = walk(model, start, slot_temperature=temperature, given=taken)

    torch.testing.assert_close(again.log_probs, taken.log_probs)
    assert again.log_probs.requires_grad
    for user in range(2):
        for path in range(4):
            expected = by_hand(model, tables, start, taken, user, path, temperature)
            assert taken.log_probs[user, path].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_path_takes_every_slot_once(world: Any) -> None:
    tables, model = tables_of(world), model_of()
    taken = walk(model, start_of(model, tables, world), slot_temperature=1.0, samples=8)

    assert (taken.slot.sort(dim=-1).values == torch.arange(3)).all()
    for slot in range(3):
        assert (taken.tokens[..., slot] == (taken.code * (taken.slot == slot)).sum(dim=-1)).all()


def test_draws_follow_the_policy(world: Any) -> None:
    """Of 4,000 paths of one user, first actions come as often as their probability says (99.9 % bound)."""
    tables, model = tables_of(world), model_of()
    start = start_of(model, tables, world)
    torch.manual_seed(0)
    with torch.no_grad():
        taken = walk(model, start, slot_temperature=1.0, samples=4000)
    actions = torch.stack([taken.slot[0, :, 0], taken.code[0, :, 0], taken.category[0, :, 0]], dim=1).tolist()
    counts = Counter(tuple(action) for action in actions)
    probs = {tuple(a): p for a, p in zip(actions, taken.log_probs[0, :, 0].exp().tolist(), strict=True)}
    for action, count in counts.most_common(10):
        bound = 3.3 * (probs[action] * (1 - probs[action]) / 4000) ** 0.5
        assert count / 4000 == pytest.approx(probs[action], abs=bound)


def test_without_a_choice_of_slots_and_categories_only_codes_count(world: Any) -> None:
    tables, model = tables_of(world), model_of(order="fixed", category_weight=0.0)
    start = start_of(model, tables, world)
    taken = walk(model, start, slot_temperature=1.0, samples=2)
    hidden = Paths(model, start.memory, start.limit).begin()
    first = model.slot_log_probs(hidden, tables.prior.of_days(start.day), 0)[:, 0, 0]

    assert (taken.slot == torch.arange(3)).all()
    torch.testing.assert_close(taken.log_probs[..., 0], first.gather(1, taken.code[..., 0]))
