"""Every counting and linear floor equals its definition written as plain loops."""

from datetime import date
from itertools import pairwise

import numpy as np
import pytest

from sidrec.evaluation.protocol import NextBasket
from sidrec.floors.base import FloorModel, Scores
from sidrec.floors.frequency import LastBasket, PersonalFrequency
from sidrec.floors.linear import EASE, ItemKNN
from sidrec.floors.markov import Markov
from sidrec.floors.popularity import GlobalPopularity, RecentPopularity
from tests.basket_world import World, random_world

SEEDS = range(4)


def scores(model: FloorModel, data: NextBasket) -> Scores:
    return model.fit(data)(np.arange(data.num_rows))


def histories(world: World) -> list[tuple[date, list[tuple[date, list[int]]]]]:
    """Each row's day and its earlier baskets as item indices, by hand."""
    index = {item: number for number, item in enumerate(world.item_ids)}
    found = []
    for user, day in world.rows():
        earlier = sorted((d, items) for d, items in world.users[user].items() if d < day)
        found.append((day, [(d, [index[item] for item in items]) for d, items in earlier]))
    return found


def decay(day: date, earlier: date, half_life: float | None) -> float:
    return 1.0 if half_life is None else 0.5 ** ((day - earlier).days / half_life)


def hats(data: NextBasket) -> tuple[Scores, Scores]:
    return data.popularity / data.popularity.max(), data.recent_popularity / max(1, data.recent_popularity.max())


@pytest.mark.parametrize("seed", SEEDS)
def test_popularity_floors_are_counts(seed: int) -> None:
    """n; n28 + 0.001 n^."""
    data = random_world(seed).data()
    n_hat, _ = hats(data)

    for row in scores(GlobalPopularity(), data):
        assert row.tolist() == data.popularity.tolist()
    for row in scores(RecentPopularity(), data):
        np.testing.assert_allclose(row, data.recent_popularity + 0.001 * n_hat)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("half_life", [None, 120.0])
def test_personal_frequency_counts_own_baskets_and_fills(seed: int, half_life: float | None) -> None:
    """F + 0.5 (n28^ + 0.001 n^), and the decayed form."""
    world = random_world(seed)
    data = world.data()
    n_hat, recent_hat = hats(data)
    expected = np.tile(0.5 * (recent_hat + 0.001 * n_hat), (data.num_rows, 1))
    for row, (day, baskets) in enumerate(histories(world)):
        for earlier, items in baskets:
            expected[row, items] += decay(day, earlier, half_life)

    np.testing.assert_allclose(scores(PersonalFrequency(half_life=half_life), data), expected)


def test_global_fill_uses_the_whole_period() -> None:
    """GP-TopFreq: F + 0.5 n^."""
    data = random_world(0).data()

    np.testing.assert_allclose(
        scores(PersonalFrequency(fill="global"), data), data.history().toarray() + 0.5 * hats(data)[0]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_last_basket_ignores_older_ones(seed: int) -> None:
    """Membership in the newest basket plus a small fill."""
    world = random_world(seed)
    data = world.data()
    n_hat, recent_hat = hats(data)
    expected = np.tile(1e-4 * (recent_hat + 0.001 * n_hat), (data.num_rows, 1))
    for row, (_, baskets) in enumerate(histories(world)):
        expected[row, baskets[-1][1]] += 1

    np.testing.assert_allclose(scores(LastBasket(), data), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("half_life", [None, 60.0])
def test_markov_counts_pairs_of_consecutive_fit_baskets(seed: int, half_life: float | None) -> None:
    """(c(a, b) + 30 q(b)) / (c(a) + 30), averaged over the context's items; gate baskets are not learnt from."""
    world = random_world(seed)
    data = world.data()
    index = {item: number for number, item in enumerate(world.item_ids)}
    pairs, total = np.zeros((data.num_items, data.num_items)), np.zeros(data.num_items)
    for user in world.users:
        fit = [[index[item] for item in items] for _, items in world.fit(user)]
        for before, after in pairwise(fit):
            for a in before:
                total[a] += 1
                for b in after:
                    pairs[a, b] += 1
    q = data.recent_popularity / max(1, data.recent_popularity.sum())
    table = (pairs + 30 * q) / (total + 30)[:, None]
    expected = np.zeros((data.num_rows, data.num_items))
    for row, (day, baskets) in enumerate(histories(world)):
        weights = np.zeros(data.num_items)
        for earlier, items in baskets[-1:] if half_life is None else baskets:
            weights[items] += decay(day, earlier, half_life)
        expected[row] = weights @ table / weights.sum()

    np.testing.assert_allclose(scores(Markov(half_life=half_life), data), expected)


def fit_matrix(world: World, unit: str) -> Scores:
    groups = [[items] for _, items in world.fit_baskets()]
    if unit == "user":
        groups = [[items for _, items in world.fit(user)] for user in world.users]
    return np.array([[float(any(item in basket for basket in group)) for item in world.item_ids] for group in groups])


def history_weights(world: World, half_life: float | None) -> Scores:
    weights = np.zeros((len(world.rows()), len(world.item_ids)))
    for row, (day, baskets) in enumerate(histories(world)):
        for earlier, items in baskets:
            if half_life is None:
                weights[row, items] = 1
            else:
                weights[row, items] += decay(day, earlier, half_life)
    return weights


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("unit", ["user", "basket"])
@pytest.mark.parametrize("half_life", [None, 60.0])
def test_ease_is_ridge_regression_of_each_item_on_the_others(seed: int, unit: str, half_life: float | None) -> None:
    """Column i of B solves (X'X + penalty I) restricted to the other items, solved one item at a time."""
    world = random_world(seed)
    x = fit_matrix(world, unit)
    items = x.shape[1]
    weights = np.zeros((items, items))
    for item in range(items):
        others = [other for other in range(items) if other != item]
        gram = x[:, others].T @ x[:, others] + 7.0 * np.eye(items - 1)
        weights[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])
    model = EASE(unit=unit, penalty=7.0, half_life=half_life)  # type: ignore[arg-type]

    np.testing.assert_allclose(scores(model, world.data()), history_weights(world, half_life) @ weights, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("unit", ["user", "basket"])
def test_item_knn_sums_the_cosines_of_the_nearest_items(seed: int, unit: str) -> None:
    """Shrunk cosine; each recommended item hears its own four nearest, ties with the fourth included."""
    world = random_world(seed)
    x = fit_matrix(world, unit)
    items = x.shape[1]
    expected = np.zeros((len(world.rows()), items))
    history = history_weights(world, 60.0)
    for item in range(items):
        cosine = np.array(
            [
                0.0
                if other == item
                else x[:, other] @ x[:, item] / (np.sqrt(x[:, other].sum() * x[:, item].sum()) + 10)
                for other in range(items)
            ]
        )
        nearest = cosine >= sorted(cosine, reverse=True)[3]
        expected[:, item] = history[:, nearest] @ cosine[nearest]
    model = ItemKNN(unit=unit, neighbours=4)  # type: ignore[arg-type]

    np.testing.assert_allclose(scores(model, world.data()), expected, atol=1e-12)


@pytest.mark.parametrize(
    "model", [GlobalPopularity(), RecentPopularity(), PersonalFrequency(), Markov(), ItemKNN(), EASE()]
)
def test_gate_baskets_of_others_change_no_floor(model: FloorModel) -> None:
    """Without everybody else's gate baskets the scores of a row stay the same: nothing leaks from the window."""
    world = random_world(3)
    user, day = world.rows()[0]
    alone = World(
        {
            name: {d: items for d, items in history.items() if d < date(2010, 11, 1) or (name, d) == (user, day)}
            for name, history in world.users.items()
        },
        world.item_ids,
    )

    np.testing.assert_allclose(model.fit(world.data())(np.array([0])), model.fit(alone.data())(np.array([0])))
