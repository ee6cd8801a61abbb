"""`next_basket_v1` agrees with plain loops over the baskets, and nothing from `as_of` on gets in."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from sidrec.errors import CheckFailedError
from sidrec.evaluation.protocol import next_basket_v1
from tests.basket_world import AS_OF, GATE_START, World, random_world

SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_the_first_gate_basket_of_every_user_with_an_earlier_one(seed: int) -> None:
    """One row a user; users whose first basket lies in the window are counted as cold."""
    world = random_world(seed)
    data = world.data()
    days = [date(1970, 1, 1) + timedelta(days=int(day)) for day in data.basket_day[data.row_basket]]
    users = [data.user_ids[user] for user in data.basket_user[data.row_basket]]

    assert list(zip(users, days, strict=True)) == world.rows()
    assert data.cold_users == sum(not world.fit(user) for user in world.users)


@pytest.mark.parametrize("seed", SEEDS)
def test_history_counts_the_baskets_strictly_before_the_day(seed: int) -> None:
    """f(i), and its decayed form with age in days, by hand."""
    world = random_world(seed)
    data = world.data()
    counts, decayed = np.zeros((data.num_rows, data.num_items)), np.zeros((data.num_rows, data.num_items))
    for row, (user, day) in enumerate(world.rows()):
        for earlier, items in world.users[user].items():
            if earlier < day:
                for item in items:
                    counts[row, world.item_ids.index(item)] += 1
                    decayed[row, world.item_ids.index(item)] += 0.5 ** ((day - earlier).days / 30)

    np.testing.assert_array_equal(data.history().toarray(), counts)
    np.testing.assert_allclose(data.history(half_life=30).toarray(), decayed)


@pytest.mark.parametrize("seed", SEEDS)
def test_targets_are_the_basket_and_novel_ones_are_not_in_the_history(seed: int) -> None:
    """Items outside the catalogue stay as misses, and are novel."""
    world = random_world(seed)
    data = world.data()
    index = {item: number for number, item in enumerate(world.item_ids)}
    for kind in ("all", "novel"):
        expected = []
        for row, (user, day) in enumerate(world.rows()):
            seen = {item for d, items in world.users[user].items() if d < day for item in items}
            wanted = [i for i in world.users[user][day] if kind == "all" or i not in seen]
            expected += [(row, index.get(item, -1)) for item in wanted]
        targets = data.targets(kind)  # type: ignore[arg-type]

        found = zip(targets.rows[targets.pair_row].tolist(), targets.pair_item.tolist(), strict=True)
        assert sorted(found) == sorted(expected)
        assert targets.sizes.tolist() == np.bincount(targets.pair_row).tolist()
        assert (targets.sizes > 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_popularity_counts_fit_baskets_and_recent_the_last_28_days(seed: int) -> None:
    """Gate baskets never count; the 28th day before the gate still does."""
    world = random_world(seed)
    data = world.data()
    border = GATE_START - timedelta(days=28)
    n = [sum(item in items for _, items in world.fit_baskets()) for item in world.item_ids]
    n28 = [sum(item in items for day, items in world.fit_baskets() if day >= border) for item in world.item_ids]

    assert data.popularity.tolist() == n
    assert data.recent_popularity.tolist() == n28


def test_the_order_of_the_input_rows_does_not_matter() -> None:
    """Shuffled baskets give the same rows and histories."""
    world = random_world(1)
    shuffled = world.baskets.sample(fraction=1, shuffle=True, seed=3)
    data = next_basket_v1(shuffled, world.items, gate_start=GATE_START, as_of=AS_OF)

    assert data.user_ids == world.data().user_ids
    np.testing.assert_array_equal(data.history().toarray(), world.data().history().toarray())


@pytest.mark.parametrize("late", [AS_OF, AS_OF + timedelta(days=8)])
def test_a_basket_on_or_after_as_of_is_refused(late: date) -> None:
    """December never reaches a metric: not as a row, not as a history, not silently cut."""
    world = World({"u": {GATE_START - timedelta(days=1): ["a"], GATE_START: ["b"]}, "v": {late: ["a"]}}, ["a", "b"])

    with pytest.raises(CheckFailedError, match=f"1 baskets lie on or after as_of {AS_OF}.*{late}"):
        world.data()


def test_the_last_day_before_as_of_is_judged() -> None:
    """The window is [gate_start, as_of): its last day is in."""
    last = AS_OF - timedelta(days=1)
    world = World({"u": {GATE_START - timedelta(days=1): ["a"], last: ["b"]}}, ["a", "b"])

    assert world.data().num_rows == 1


def test_a_window_without_returning_users_is_refused() -> None:
    """Nothing to judge is an error that names the window, not an empty report."""
    world = World({"u": {GATE_START: ["a"]}}, ["a"])

    with pytest.raises(CheckFailedError, match=r"no user with a basket in \[2010-11-01, 2010-12-01\)"):
        world.data()


def test_last_basket_is_the_newest_one_before_the_row() -> None:
    """Not the row's own, not an older one."""
    days = {GATE_START - timedelta(days=9): ["a"], GATE_START - timedelta(days=2): ["b", "c"], GATE_START: ["a"]}
    data = World({"u": days}, ["a", "b", "c"]).data()

    assert data.last_basket().toarray().tolist() == [[0, 1, 1]]


def test_user_ids_are_strings_in_sorted_order() -> None:
    """Row order follows the text of the id, whatever order the file has."""
    frame = pl.concat([random_world(2).baskets.reverse()])
    data = next_basket_v1(frame, random_world(2).items, gate_start=GATE_START, as_of=AS_OF)

    assert list(data.user_ids) == sorted(data.user_ids)
