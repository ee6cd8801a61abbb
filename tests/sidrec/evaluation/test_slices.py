"""Slices keep the right targets and rows; coverage counts what lists show."""

from datetime import timedelta

import numpy as np
import pytest

from sidrec.evaluation.coverage import coverage, gini, target_profile
from sidrec.evaluation.judging import judge
from sidrec.evaluation.slices import head_items, narrowed, slice_values
from tests.basket_world import GATE_START, World, random_world

# a is in 5 fit baskets, b in 2, c in 1 recent one, d in none; e is outside the catalogue.
DAYS = [GATE_START - timedelta(days=number) for number in (90, 80, 70, 60, 10)]
WORLD = World(
    {
        "u": {DAYS[0]: ["a", "b"], DAYS[1]: ["a"], DAYS[2]: ["a"], GATE_START: ["a", "b", "c", "d", "e"]},
        "v": {DAYS[3]: ["a", "b"], DAYS[4]: ["a", "c"], GATE_START: ["c"]},
    },
    ["a", "b", "c", "d", "f"],
)


def test_head_is_the_most_popular_fifth() -> None:
    """Of five items the head is one: the most popular."""
    assert head_items(WORLD.data()).tolist() == [1, 0, 0, 0, 0]


def test_slices_keep_the_targets_that_their_sentence_names() -> None:
    """Kept (row, item) pairs, by hand; e (-1) is new, in neither head nor tail."""
    data = WORLD.data()
    targets = data.targets("all")
    kept = {
        name: sorted(zip(targets.pair_row[places].tolist(), targets.pair_item[places].tolist(), strict=True))
        for name, (places, _) in narrowed(data, targets).items()
    }

    u_all = [(0, -1), (0, 0), (0, 1), (0, 2), (0, 3)]
    assert kept == {
        "head_items": [(0, 0)],
        "tail_items": [(0, 1), (0, 2), (0, 3), (1, 2)],
        "new_items": [(0, -1), (0, 2), (0, 3), (1, 2)],
        "short_history": [(1, 2)],
        "middle_history": u_all,
        "long_history": [],
    }


def test_item_slices_narrow_the_target_set_but_not_the_list() -> None:
    """A list that has head item a first and c second: full marks on the head, second place on the tail of v."""
    data = WORLD.data()
    targets = {kind: data.targets(kind) for kind in ("all", "novel")}
    lists = {"all": np.array([[0, 2], [0, 2]]), "novel": np.full((len(targets["novel"].rows), 2), -1)}
    values = slice_values(judge(lists, targets, data.num_items), data, targets, "all")  # type: ignore[arg-type]

    assert values["head_items"].ndcg_at_10 == pytest.approx(1.0)
    assert values["short_history"].ndcg_at_10 == pytest.approx(1 / np.log2(3))
    assert values["long_history"].rows == 0
    assert values["new_items"].recall_at_20 == pytest.approx((1 / 3 + 1) / 2)


def test_history_slices_share_out_the_rows() -> None:
    """Every row is in exactly one history slice."""
    data = random_world(4).data()
    targets = data.targets("all")
    parts = narrowed(data, targets)
    rows = sum((parts[name][1] > 0).astype(int) for name in ("short_history", "middle_history", "long_history"))

    assert rows.tolist() == [1] * len(targets.rows)


def test_coverage_counts_distinct_items_of_the_first_places() -> None:
    """Two of five items in the first two places; the third place and empty ones do not count."""
    result = coverage(np.array([[0, 1, 4], [0, -1, 3]]), WORLD.data(), k=2)

    assert (result.distinct_items, result.coverage) == (2, 0.4)
    assert result.head_share == pytest.approx(2 / 3)
    assert result.mean_popularity == pytest.approx((5 + 5 + 2) / 3)


def test_target_profile_leaves_out_items_beyond_the_catalogue() -> None:
    """-1 is no item."""
    assert target_profile(np.array([-1, 0, 2]), WORLD.data()).distinct_items == 2


@pytest.mark.parametrize(
    ("counts", "value"), [([3, 3, 3, 3], 0.0), ([0, 0, 0, 8], 0.75), ([0, 0], 0.0), ([1, 3], 0.25)]
)
def test_gini_of_known_shares(counts: list[int], value: float) -> None:
    """Equal shares are 0; one taker of four is 3/4; 1 and 3 are a quarter."""
    assert gini(np.array(counts)) == pytest.approx(value)


def test_a_list_that_repeats_an_item_is_refused() -> None:
    """Repeats would be counted as several hits."""
    data = WORLD.data()
    targets = {kind: data.targets(kind) for kind in ("all", "novel")}
    lists = {"all": np.array([[0, 0], [0, 2]]), "novel": np.full((len(targets["novel"].rows), 2), -1)}

    with pytest.raises(ValueError, match="names an item twice"):
        judge(lists, targets, data.num_items)  # type: ignore[arg-type]
