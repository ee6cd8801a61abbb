"""Every floor of ordered events equals its definition written as plain loops, and learns from train alone."""

import functools
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from sidrec.evaluation.config import SequenceFloor
from sidrec.evaluation.judging import judge, rank_all
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets
from sidrec.evaluation.sequences import Target, leave_one_out, temporal
from sidrec.floors.base import FloorModel, Scores
from sidrec.floors.catalogue import (
    SEQUENCE_DESCRIPTIONS,
    SEQUENCE_SETTINGS,
    SequenceSettings,
    sequence_floor,
)
from sidrec.floors.linear import EASE
from sidrec.floors.sasrec_basket import SASRecBasket
from tests.sidrec.evaluation.sequence_world import RANDOM_ITEMS, events_of, items_of, random_events

SEEDS = range(3)
NAMES: tuple[SequenceFloor, ...] = get_args(SequenceFloor)
SETTINGS = SequenceSettings(ease_penalty=3.0, sasrec_epochs=4)
ITEMS = items_of(RANDOM_ITEMS)
NUM_ITEMS = ITEMS.height

Users = dict[str, str]


def floor(name: SequenceFloor) -> FloorModel:
    return sequence_floor(name, SETTINGS, seed=0)


def scores(name: SequenceFloor, data: NextBasket) -> Scores:
    return floor(name).fit(data)(np.arange(data.num_rows))


def parts(users: Users) -> list[tuple[list[int], list[int], list[int]]]:
    """Return each user's train, valid and test items as indices."""
    return [tuple([int(item[1:]) for item in part.split()] for part in users[user].split("|")) for user in users]  # type: ignore[misc]


def contexts(users: Users, *, fade: float, last_only: bool = False) -> Scores:
    """Return `[user, item]`, the weights of the history of the test event."""
    weights = np.zeros((len(users), NUM_ITEMS))
    for row, (train, valid, _) in enumerate(parts(users)):
        for distance, item in enumerate(reversed(train + valid), start=1):
            if distance == 1 or not last_only:
                weights[row, item] += fade**distance
    return weights


def popularity(users: Users) -> Scores:
    return np.bincount([item for train, _, _ in parts(users) for item in train], minlength=NUM_ITEMS).astype(float)


def owned(users: Users) -> Scores:
    table = np.zeros((len(users), NUM_ITEMS))
    for row, (train, _, _) in enumerate(parts(users)):
        table[row, train] = 1
    return table


@pytest.mark.parametrize("seed", SEEDS)
def test_popularity_counts_train_events(seed: int) -> None:
    """The same for everybody."""
    users = random_events(seed)
    data = leave_one_out(events_of(users), ITEMS, target="test")

    np.testing.assert_array_equal(scores("popularity", data), np.tile(popularity(users), (len(users), 1)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "fade"), [("markov", 1.0), ("markov_decayed", 0.7)])
def test_markov_sums_transitions_and_half_a_popular_event(seed: int, name: SequenceFloor, fade: float) -> None:
    """c(last, b), or the sum of 0.7^distance c(a, b) over the history, plus 0.5 pop(b) / sum pop."""
    users = random_events(seed)
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for train, _, _ in parts(users):
        for before, after in pairwise(train):
            counts[before, after] += 1
    pop = popularity(users)
    expected = contexts(users, fade=fade, last_only=name == "markov") @ counts + 0.5 * pop / pop.sum()

    np.testing.assert_allclose(scores(name, leave_one_out(events_of(users), ITEMS, target="test")), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "fade"), [("item_knn", 1.0), ("item_knn_decayed", 0.7)])
def test_item_knn_sums_shrunk_cosines_of_all_items(seed: int, name: SequenceFloor, fade: float) -> None:
    """Shrink 2, no item votes for itself, an item that the history holds twice votes twice."""
    users = random_events(seed)
    x = owned(users)
    together = x.T @ x
    norm = np.sqrt(x.sum(axis=0))
    cosine = together / (norm[:, None] * norm + 2)
    np.fill_diagonal(cosine, 0)

    data = leave_one_out(events_of(users), ITEMS, target="test")
    np.testing.assert_allclose(scores(name, data), contexts(users, fade=fade) @ cosine)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "fade"), [("ease", 1.0), ("ease_decayed", 0.7)])
def test_ease_is_ridge_regression_with_the_penalty_of_the_settings(seed: int, name: SequenceFloor, fade: float) -> None:
    """Column i of B solves (X'X + 3 I) restricted to the other items."""
    users = random_events(seed)
    x = owned(users)
    weights = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        others = [other for other in range(NUM_ITEMS) if other != item]
        gram = x[:, others].T @ x[:, others] + 3 * np.eye(NUM_ITEMS - 1)
        weights[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])

    data = leave_one_out(events_of(users), ITEMS, target="test")
    np.testing.assert_allclose(scores(name, data), contexts(users, fade=fade) @ weights, atol=1e-12)


def test_float32_ease_differs_by_rounding_only() -> None:
    """The lower precision is that of the inversion, and is used."""
    data = leave_one_out(events_of(random_events(0, users=60)), ITEMS, target="test")
    rows = np.arange(data.num_rows)
    double = EASE(penalty=3).fit(data)(rows)
    single = EASE(penalty=3, precision="float32").fit(data)(rows)

    np.testing.assert_allclose(single, double, atol=1e-6)
    assert np.abs(single - double).max() > 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["valid", "test"])
def test_targets_and_later_events_change_no_score(name: SequenceFloor, target: Target) -> None:
    """Other items as everybody's targets, and after them, leave the scores of every row as they are."""
    users = random_events(5)
    turned = {}
    for user, text in users.items():
        train, valid, test = text.split("|")
        later = [" i0 ", " i1 "] if target == "valid" else [valid, " i1 "]
        assert [train, valid, test] != [train, *later]
        turned[user] = "|".join([train, *later])
    change = [leave_one_out(events_of(world), ITEMS, target=target) for world in (users, turned)]

    np.testing.assert_array_equal(scores(name, change[0]), scores(name, change[1]))


@pytest.mark.parametrize("name", NAMES)
def test_histories_of_others_beyond_train_change_no_score(name: SequenceFloor) -> None:
    """A test row reads its own validation event; those of others are not learnt from."""
    users = random_events(6)
    first, *others = users
    turned = {user: users[user].split("|")[0] + "| i0 | i0" for user in others}
    kept = leave_one_out(events_of(users), ITEMS, target="test")
    changed = leave_one_out(events_of({first: users[first], **turned}), ITEMS, target="test")
    row = np.array([0])

    np.testing.assert_array_equal(floor(name).fit(kept)(row), floor(name).fit(changed)(row))


@pytest.mark.parametrize("name", NAMES)
def test_temporal_rows_of_one_user_see_what_lies_before_each(name: SequenceFloor) -> None:
    """The scores of a row are those of leave-one-out whose target is this event."""
    users = random_events(7, last=2)
    rows = temporal(events_of(users), ITEMS, target="test", max_history=3)
    second = {}
    for user, text in users.items():
        train, valid, test = text.split("|")
        second[user] = f"{train}| {valid} {test.split()[0]} | {test.split()[1]}"
    alone = leave_one_out(events_of(second), ITEMS, target="test", max_history=3)

    assert rows.num_rows == 2 * alone.num_rows
    np.testing.assert_allclose(scores(name, rows)[1::2], scores(name, alone), rtol=1e-5)


def test_names_descriptions_and_settings_belong_together() -> None:
    """Every name is described; every data set inverts at its own penalty."""
    assert [*SEQUENCE_DESCRIPTIONS] == [*NAMES]
    for settings in SEQUENCE_SETTINGS.values():
        model = sequence_floor("ease", settings, seed=0)
        assert isinstance(model, EASE)
        assert (model.penalty, model.precision) == (settings.ease_penalty, settings.ease_precision)
    assert SEQUENCE_SETTINGS["amazon_scientific_2018"].ease_penalty == 800
    assert SEQUENCE_SETTINGS["amazon_beauty_2014"].ease_penalty == 500


@functools.cache
def sasrec() -> tuple[SASRecBasket, NextBasket, list[float]]:
    """Return a small model, validation rows, and their NDCG@10 after every number of epochs up to its own."""
    model = sequence_floor("sasrec", SequenceSettings(ease_penalty=1.0, sasrec_epochs=8), seed=25)
    assert isinstance(model, SASRecBasket)
    model = replace(model, dim=16, batch_size=6, learning_rate=0.03)
    data = leave_one_out(events_of(random_events(8, users=30)), ITEMS, target="valid")
    targets: dict[TargetKind, Targets] = {"all": data.targets("all")}
    values = []
    for epochs in range(1, model.epochs + 1):
        lists = rank_all(replace(model, epochs=epochs).fit(data), data, targets)
        values.append(judge(lists, targets, data.num_items).means("all")["ndcg@10"])
    return model, data, values


@pytest.mark.parametrize("patience", [1, 2, 8])
def test_sasrec_tunes_its_epochs_to_the_best_validation_ndcg(patience: int) -> None:
    """The best among fits of every number of epochs, up to the first `patience` in a row without a better one."""
    model, data, values = sasrec()
    best = 1
    for epochs, value in enumerate(values, start=1):
        if value > values[best - 1]:
            best = epochs
        if epochs - best == patience:
            break

    assert model.tuned(data, patience=patience) == replace(model, epochs=best)


def test_sasrec_validation_has_a_first_peak_that_is_not_its_best() -> None:
    """Otherwise patience would be no matter above."""
    _, _, values = sasrec()

    assert np.argmax(values) + 1 > next(epochs for epochs in range(1, 8) if values[epochs] <= values[epochs - 1])
