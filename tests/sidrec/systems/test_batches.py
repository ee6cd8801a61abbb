"""Histories become batches without losing, leaking or repeating anything."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.batches import Sampling, TrainingSet, encoder_input
from sidrec.systems.history import History
from sidrec.systems.s2gr.prior import PopularityPrior
from sidrec.systems.stored_histories import histories_of

SAMPLING = Sampling(
    batch_users=2,
    targets=4,
    item_dropout=0.0,
    max_positions=32,
    flatten=0,
    repeat_weight=1.0,
    half_life_days=None,
    prior_delay_days=0,
    split_share=0.0,
)
TWO = [
    History(np.array([1, 2, 3, 2, 4]), np.array([0, 2, 3, 5]), np.array([10, 20, 30])),
    History(np.array([5, 6, 7]), np.array([0, 1, 3]), np.array([11, 41])),
]


def first_batch(histories: list[History], **change: Any) -> Any:
    return next(TrainingSet(histories, replace(SAMPLING, **change), fit_day=50, seed=0).batches(0))


def targets_of(batch: Any) -> list[dict[int, float]]:
    points = batch.limit.numel()
    found: list[dict[int, float]] = [{} for _ in range(points)]
    for point, item, weight in zip(batch.target_point, batch.target_item, batch.target_weight, strict=True):
        found[int(point)][int(item)] = round(float(weight), 4)
    return sorted((row for row in found if row), key=str)


def test_every_later_basket_is_a_point_with_all_its_items() -> None:
    """Three points of two users; each point's weights sum to one."""
    assert targets_of(first_batch(TWO)) == [{2: 0.5, 4: 0.5}, {3: 1.0}, {6: 0.5, 7: 0.5}]


def test_repeats_weigh_less() -> None:
    """Item 2 was bought before; with weight 0 a basket of repeats alone is no point."""
    assert targets_of(first_batch(TWO, repeat_weight=0.25))[0] == {2: 0.2, 4: 0.8}
    only = [History(np.array([1, 1, 2]), np.array([0, 1, 2, 3]), np.array([1, 2, 3]))]
    weight = first_batch(only, repeat_weight=0.0).point_weight

    assert weight.tolist() == [[0.0, 1.0]]


def test_older_baskets_weigh_less() -> None:
    """Ten days more halve the weight with a half-life of ten days; weights of a batch sum to one."""
    weight = first_batch([TWO[0]], half_life_days=10.0).point_weight

    torch.testing.assert_close(weight, torch.tensor([[1 / 3, 2 / 3]]))


def test_the_encoder_reads_all_but_the_last_basket() -> None:
    """Nothing of what is to be predicted last is among the inputs."""
    batch = first_batch([TWO[0]])

    assert batch.inputs.items.tolist() == [1, 2, 3]
    assert batch.inputs.rank.tolist() == [[0, 1]]
    assert batch.limit.tolist() == [[0, 1]]


def test_padding_has_no_weight_and_no_rank() -> None:
    """The shorter user of a batch is padded on the right."""
    batch = first_batch(TWO)
    shorter = int((batch.inputs.rank == -1).any(dim=1).int().argmax())

    assert batch.inputs.rank[shorter].tolist() == [0, -1]
    assert float(batch.point_weight[shorter, 1]) == 0.0
    assert float(batch.point_weight.sum()) == pytest.approx(1.0)


def test_sampled_items_are_the_points_own(world: Any) -> None:
    """Whatever the weights, a point's sample comes out of its own basket."""
    histories = histories_of(world.baskets, world.catalog)
    for batch in TrainingSet(histories, replace(SAMPLING, batch_users=16), fit_day=14_914, seed=3).batches(1):
        own = {}
        for point, item in zip(batch.target_point.tolist(), batch.target_item.tolist(), strict=True):
            own.setdefault(point, set()).add(item)
        flat = batch.sampled.flatten(0, 1)
        real = batch.point_weight.flatten() > 0

        assert all(set(flat[point].tolist()) <= own[point] for point in torch.nonzero(real).flatten().tolist())


def test_sampling_follows_the_weights() -> None:
    """Item 2 has a fifth of the weight and is drawn a fifth of the time."""
    data = TrainingSet([TWO[0]], replace(SAMPLING, repeat_weight=0.25, targets=3), fit_day=50, seed=0)
    drawn = torch.cat([batch.sampled[0, 1] for epoch in range(400) for batch in data.batches(epoch)])

    assert float((drawn == 2).float().mean()) == pytest.approx(0.2, abs=0.03)


def test_an_epoch_from_the_middle_is_the_rest_of_the_epoch(world: Any) -> None:
    """A resumed epoch draws what it would have drawn."""
    data = TrainingSet(histories_of(world.baskets, world.catalog), SAMPLING, fit_day=14_914, seed=0)
    whole, rest = list(data.batches(2)), list(data.batches(2, first=7))

    assert len(whole) == len(data) == len(rest) + 7
    for one, other in zip(whole[7:], rest, strict=True):
        assert torch.equal(one.sampled, other.sampled)
        assert torch.equal(one.inputs.items, other.inputs.items)


def test_a_split_basket_predicts_its_rest() -> None:
    """Both parts together are the basket, on one day, and the point says so; a single basket is always split."""
    single = [History(np.array([1, 2, 3, 4]), np.array([0, 4]), np.array([9]))]
    batch = first_batch(single, split_share=1e-9)

    assert batch.same_day.tolist() == [[1.0]]
    assert sorted([*batch.inputs.items.tolist(), *batch.target_item.tolist()]) == [1, 2, 3, 4]


def test_without_splits_a_single_basket_teaches_nothing() -> None:
    """There is nothing to predict after it."""
    single = History(np.array([1, 2]), np.array([0, 2]), np.array([9]))

    assert len(TrainingSet([single], SAMPLING, fit_day=50, seed=0)) == 0


def test_items_dropped_from_a_basket_leave_its_position() -> None:
    """With everything dropped the positions are still there, empty."""
    keep = np.zeros(5, dtype=bool)
    inputs = encoder_input(TWO[:1], keep=keep)

    assert inputs.items.tolist() == []
    assert inputs.rank.tolist() == [[0, 1, 2]]


def test_the_flat_layout_has_a_position_a_code() -> None:
    """Codes of one item follow one another; items of one basket share a rank."""
    inputs = encoder_input(TWO[1:], flatten=3)

    assert inputs.rank.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1]]
    assert inputs.items.tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7]
    assert inputs.level is not None
    assert inputs.level.tolist() == [[0, 1, 2] * 3]


def test_newest_items_keep_their_baskets() -> None:
    """Cutting inside a basket keeps its newer neighbours and its day."""
    cut = TWO[0].newest_items(4)

    assert (cut.items.tolist(), cut.start.tolist(), cut.days.tolist()) == ([2, 3, 2, 4], [0, 1, 2, 4], [10, 20, 30])


def test_unknown_items_leave_and_empty_baskets_with_them(world: Any) -> None:
    """A basket of items that the catalogue lacks is no position."""
    table = pl.DataFrame(
        {"user_id": ["u", "u"], "day": [world.baskets["day"][0]] * 2, "item_ids": [["i03", "?"], ["?"]]}
    )
    histories = histories_of(table, world.catalog)

    assert [history.items.tolist() for history in histories] == [[3]]


def test_the_prior_knows_nothing_of_its_own_day(world: Any) -> None:
    """Purchases on a day first move the prior of the day after."""
    trie = PrefixTrie.from_codes(world.catalog.codes)
    quiet = History(np.array([0]), np.array([0, 1]), np.array([0]))
    loud = History(np.full(50, 63), np.array([0, 50]), np.array([5]))
    without = PopularityPrior.fit([quiet], trie, last_day=9, window_days=28)
    prior = PopularityPrior.fit([quiet, loud], trie, last_day=9, window_days=28)
    first = trie.ancestors[63, 0]

    torch.testing.assert_close(prior.table[:6], without.table[:6])
    assert float(prior.table[6, first]) > float(without.table[6, first]) + 0.5


def test_the_prior_is_a_distribution_at_every_prefix(world: Any) -> None:
    """Shares of a node's children sum to one on every day."""
    trie = PrefixTrie.from_codes(world.catalog.codes)
    prior = PopularityPrior.fit(histories_of(world.baskets, world.catalog), trie, last_day=14_914, window_days=28)
    sums = torch.zeros(len(prior.table), trie.num_nodes)
    sums.index_add_(1, trie.parent[1:], prior.table[:, 1:].exp())
    inner = trie.item == -1

    torch.testing.assert_close(sums[:, inner], torch.ones_like(sums[:, inner]), atol=1e-4, rtol=1e-4)


def test_one_basket_a_user_where_an_epoch_predicts_the_newest_alone() -> None:
    """No augmentation: the history is read whole, and only its last basket is a target."""
    batch = first_batch(TWO, points="last")

    assert targets_of(batch) == [{2: 0.5, 4: 0.5}, {6: 0.5, 7: 0.5}]
    assert sorted(batch.limit.flatten().tolist()) == [0, 1]
    assert batch.point_weight.tolist() == [[0.5], [0.5]]


def test_a_sampled_point_reads_what_is_before_it_and_every_basket_has_its_turn() -> None:
    data = TrainingSet([TWO[0]], replace(SAMPLING, points="sampled"), fit_day=50, seed=0)
    seen = set()
    for epoch in range(20):
        [batch] = data.batches(epoch)
        newest = int(batch.limit)
        assert batch.inputs.items.tolist() == TWO[0].items[: TWO[0].start[newest + 1]].tolist()
        assert set(batch.target_item.tolist()) == set(TWO[0].items[TWO[0].start[newest + 1] : TWO[0].start[newest + 2]])
        seen.add(newest)

    assert seen == {0, 1}


def test_the_static_prior_is_the_share_of_all_baskets_on_every_day(world: Any) -> None:
    histories = histories_of(world.baskets, world.catalog)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    prior = PopularityPrior.static(histories, trie)
    counts = np.bincount(np.concatenate([history.items for history in histories]), minlength=64) + 0.02
    item = 5
    log_p = sum(float(prior.table[0, node]) for node in trie.ancestors[item].unique())

    assert prior.on(torch.tensor([0, 99_999])).tolist() == [0, 0]
    assert log_p == pytest.approx(float(np.log(counts[item] / counts.sum())), abs=1e-4)


def test_smoothing_gives_an_item_that_was_never_bought_a_prior(world: Any) -> None:
    """Item 63 is taken out of every basket: by hand its share is the smoothing over the window's purchases."""
    kept = [History(h.items[h.items != 63], h.start, h.days) for h in histories_of(world.baskets, world.catalog)]
    kept = [History(h.items, np.array([0, len(h.items)]), h.days[:1]) for h in kept if len(h.items)]
    last = max(int(history.days[0]) for history in kept) + 1
    trie = PrefixTrie.from_codes(world.catalog.codes)

    def share(smoothing: float) -> float:
        prior = PopularityPrior.fit(kept, trie, last_day=last, window_days=10_000, smoothing=smoothing)
        row = prior.on(torch.tensor(last))
        return float(np.exp(sum(float(prior.table[row, node]) for node in trie.ancestors[63].unique())))

    bought = sum(len(history.items) for history in kept)
    past = bought + 64 * 0.02
    assert share(0.0) == pytest.approx(30 * 0.02 / past / (bought + 30), rel=1e-3)
    assert share(0.5) == pytest.approx((0.5 + 30 * 0.02 / past) / (bought + 30 + 64 * 0.5), rel=1e-3)
