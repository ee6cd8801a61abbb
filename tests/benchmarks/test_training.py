"""The benchmark of training runs whole at small sizes; both sides learn from the same tokens; products are counted."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import training
from benchmarks.t5_peer import Rows, Work
from benchmarks.training import CAP, LEVELS, QUICK, Ours, Products, Sizes, World


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(QUICK)


def test_every_row_is_measured_and_none_is_judged_at_quick_sizes() -> None:
    """Five rows with the schema's keys; each has a figure, so both sides learnt and read as many tokens."""
    rows = training.run(quick=True)["results"]

    assert [row["unit"] for row in rows] == ["tokens/s", "codes/s", "GFLOP/s", "GFLOP/s", "x"]
    assert all({"name", "ours", "peer", "ratio", "goal", "met", "spread"} <= row.keys() for row in rows)
    assert all(row["met"] is None and row["goal"] is None for row in rows)
    assert all(row["ours"] > 0 for row in rows)
    assert "codes learnt by both; loss a code in" in rows[0]["notes"]


def test_a_full_run_judges_what_the_goals_name() -> None:
    """At full size goals stand; at quick size the same goals are none."""
    assert Sizes().goal(1.8) == 1.8
    assert QUICK.goal(1.8) is None


def test_lengths_are_those_of_beauty() -> None:
    """Median 6, mean 8.9, 5 to 50, for any number of users and the same every time."""
    lengths = training.sequence_lengths(1024)

    assert (np.median(lengths), lengths.min(), lengths.max()) == (6, 5, 50)
    assert lengths.mean() == pytest.approx(8.9, abs=0.1)
    assert training.sequence_lengths(20_000).mean() == pytest.approx(8.9, abs=0.1)
    assert np.array_equal(lengths, training.sequence_lengths(1024))


def test_one_target_a_user_is_the_same_work_for_both(world: World) -> None:
    """Tokens read are three an item before the last, codes learnt three a user: by hand, by ours and by the peer."""
    (shape,) = QUICK.shapes
    rows = Rows.of(world.sequences, world.item_codes, QUICK.codes, CAP)
    ours = Ours(world, shape, world.sequences, batch=8).epoch()
    peer = training._peer(world, shape).epoch(rows, 8)
    by_hand = LEVELS * sum(len(items) - 1 for items in world.sequences), LEVELS * QUICK.users

    assert (ours.read, ours.learnt) == (peer.read, peer.learnt) == by_hand
    assert max(map(len, world.sequences)) == CAP + 1


def test_all_points_are_as_many_targets_as_prefixes(world: World) -> None:
    """A causal pass learns three codes for every item after the first and reads each history once."""
    sequences = world.sequences[:8]
    ours = Ours(world, QUICK.shapes[0], sequences, points="all", batch=4).epoch()
    after_first = sum(len(items) - 1 for items in sequences)

    assert (ours.read, ours.learnt) == (LEVELS * after_first, LEVELS * after_first)


def test_unequal_work_is_never_timed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that read less gets no time, and the row says so."""
    monkeypatch.setattr(training, "_both_learn", lambda world, shape: "")
    monkeypatch.setattr(training.T5Peer, "epoch", lambda self, rows, batch_rows: Work(1, 1, 0.0))
    row = next(training._beside_t5(world, QUICK.shapes[0]))

    assert (row.ours, row.peer, row.ratio) == (None, None, None)
    assert "peer 1, 1" in row.notes


def test_what_does_not_learn_is_refused(world: World) -> None:
    """One step is no fall by a quarter, and the refusal names the side."""
    with pytest.raises(training.CheckFailedError, match="ours does not learn"):
        training._both_learn(world, QUICK.shapes[0], epochs=1)


def test_rows_hold_a_vocabulary_for_each_level() -> None:
    """Items 0 and 1 of codes (0, 1) and (3, 2), four codes a level: tokens 1 and 6, 4 and 7; the last is the target."""
    rows = Rows.of([np.array([0, 1, 0])], np.array([[0, 1], [3, 2]], dtype=np.int32), codes=4, cap=5)
    ((tokens, labels),) = rows.batches(8)

    assert tokens.tolist() == [[1, 6, 4, 7]]
    assert labels.tolist() == [[1, 6]]


def test_products_are_counted_as_torch_counts_them() -> None:
    """Forward and backward of a linear map and a batched product have the operations of torch's own counter."""
    linear = torch.nn.Linear(7, 5)
    inputs = torch.randn(2, 3, 7)
    with FlopCounterMode(display=False) as counter, Products() as products:
        hidden = linear(inputs)
        (hidden @ hidden.transpose(1, 2)).sum().backward()

    assert products.flops == counter.get_total_flops() > 0


def test_a_replay_does_the_products_that_were_counted() -> None:
    """Of the same shapes, as often; a factor that was transposed is so again."""
    left, right = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    with Products() as products:
        for _ in range(3):
            left @ right.transpose(1, 2)
    with Products() as again:
        products.replay()()

    assert again.counts == products.counts
    assert sum(products.counts.values()) == 3
