"""The sequence floor reads baskets as sets in order, up to its own row, and learns what follows what."""

from datetime import timedelta

import numpy as np
import pytest
import torch

from sidrec.floors.sasrec_basket import SASRecBasket
from tests.basket_world import GATE_START, History, World, random_world

SMALL = SASRecBasket(dim=16, epochs=2, max_positions=4)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_learns_a_cycle_that_popularity_cannot() -> None:
    """Users walk a -> b -> c -> d -> a; the item after the last one is ranked first for nearly all."""
    items = ["a", "b", "c", "d"]
    users: dict[str, History] = {}
    for number in range(40):
        days = [GATE_START + timedelta(days=day) for day in (-50, -40, -30, -20, -10, 0)]
        users[f"u{number:02d}"] = {day: [items[(number + step) % 4]] for step, day in enumerate(days)}
    data = World(users, items).data()
    scores = SASRecBasket(dim=16, epochs=60, dropout=0.0, item_dropout=0.0).fit(data)(np.arange(data.num_rows))
    targets = data.targets("all")

    assert (scores.argmax(axis=1) == targets.pair_item).mean() > 0.95


def test_a_row_scores_the_same_alone_and_in_a_batch() -> None:
    """Padding to the longest history of a batch changes nothing."""
    data = random_world(2).data()
    scorer = SMALL.fit(data)
    together = scorer(np.arange(data.num_rows))
    alone = np.concatenate([scorer(np.array([row])) for row in range(data.num_rows)])

    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_order_of_items_in_a_basket_does_not_matter() -> None:
    """A basket is a set."""
    world = random_world(2)
    turned = World(
        {user: {day: items[::-1] for day, items in history.items()} for user, history in world.users.items()},
        world.item_ids,
    )
    rows = np.arange(world.data().num_rows)
    scorer = SMALL.fit(world.data())
    np.testing.assert_allclose(
        scorer(rows),
        type(scorer)(scorer.model, turned.data(), scorer.max_positions)(rows),
        atol=1e-5,  # type: ignore[attr-defined,call-arg]
    )


def test_only_the_newest_positions_are_read() -> None:
    """Baskets older than `max_positions` do not change a score, newer ones do."""
    days = [GATE_START + timedelta(days=day) for day in (-60, -50, -40, -30, -20, -10, 0)]
    base = {day: ["a", "b"] if number % 2 else ["c"] for number, day in enumerate(days)}
    others = {f"w{number}": dict(history) for number, history in enumerate(random_world(1).users.values())}
    items = ["a", "b", "c", *random_world(1).item_ids]

    def row_of(first: list[str], last: list[str]) -> World:
        return World({"a": {**base, days[0]: first, days[5]: last}, **others}, items)

    plain = row_of(["c"], ["a"]).data()
    scorer = SMALL.fit(plain)
    again = lambda world: type(scorer)(scorer.model, world.data(), 4)(np.array([0]))  # type: ignore[attr-defined,call-arg]  # noqa: E731

    np.testing.assert_allclose(again(row_of(["b"], ["a"])), scorer(np.array([0])), atol=1e-6)
    assert np.abs(again(row_of(["c"], ["b"])) - scorer(np.array([0]))).max() > 1e-6


def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone() -> None:
    """Two fits are equal bit for bit, another seed differs, and torch's own stream goes on undisturbed."""
    data = random_world(2).data()
    rows = np.arange(data.num_rows)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = SMALL.fit(data)(rows)

    torch.testing.assert_close(torch.rand(3), expected)
    np.testing.assert_array_equal(first, SMALL.fit(data)(rows))
    assert np.abs(first - SASRecBasket(dim=16, epochs=2, max_positions=4, seed=1).fit(data)(rows)).max() > 0


def test_loss_is_the_mean_over_baskets_of_the_mean_negative_log_probability() -> None:
    """Against a loop over every next basket of every user, without dropout."""
    world = random_world(4)
    data = world.data()
    config = SASRecBasket(dim=8, dropout=0.0, item_dropout=0.0, epochs=1)
    model = config.fit(data).model  # type: ignore[attr-defined]
    spans = [(0, 3)] if data.basket_user[0] == data.basket_user[2] else []
    spans += [
        (start, start + 2)
        for start in range(3, len(data.basket_day) - 1)
        if data.basket_user[start] == data.basket_user[start + 1] and data.basket_day[start + 1] < data.gate_day
    ]
    expected = []
    for start, stop in spans:
        for target in range(start + 1, stop):
            baskets = [torch.tensor(data.events[data.offsets[b] : data.offsets[b + 1]]) for b in range(start, stop - 1)]
            offsets = torch.tensor([0, *np.cumsum([len(basket) for basket in baskets])])
            states = model.encode(torch.cat(baskets), offsets, torch.tensor([len(baskets)]))
            log_probs = model.logits(states[target - start - 1][None]).log_softmax(dim=-1)[0]
            wanted = data.events[data.offsets[target] : data.offsets[target + 1]]
            expected.append(-log_probs[torch.tensor(wanted)].mean())

    assert len(spans) > 2
    torch.testing.assert_close(model.loss(data, spans, np.random.default_rng(0)), torch.stack(expected).mean())


def test_positions_count_back_from_the_newest_basket() -> None:
    """The basket that is asked about has the same position vector whatever the length of the history."""
    data = random_world(2).data()
    model = SMALL.fit(data).model  # type: ignore[attr-defined]
    model.blocks = torch.nn.ModuleList()
    three = model.encode(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 3]), torch.tensor([3]))
    one = model.encode(torch.tensor([2]), torch.tensor([0, 1]), torch.tensor([1]))

    torch.testing.assert_close(three[-1], one[0])
