"""The token sets say what a look at every item says."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.nodes import NONE
from sidrec.decoding.token_sets import TokenSets, bitmap, is_set
from sidrec.errors import BundleError

SIZE = 5


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    items, slots = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    codes = np.unique(rng.integers(0, SIZE, (items, slots)).astype(np.int32), axis=0)
    return rng.permutation(codes), rng


def by_hand(codes: np.ndarray, tokens: list[tuple[int, int]]) -> list[int]:
    return [row for row, own in enumerate(codes.tolist()) if all(own[slot] == code for slot, code in tokens)]


@settings(max_examples=60, deadline=None)
@given(catalogues())
def test_matches_of_a_partial_set_are_the_items_that_have_its_tokens(given_: tuple) -> None:
    """Every subset of slots, with codes of some item or of none."""
    codes, rng = given_
    sets = TokenSets.of(codes, SIZE)
    for size in range(codes.shape[1] + 1):
        for slots in combinations(range(codes.shape[1]), size):
            real = [(slot, int(codes[rng.integers(len(codes)), slot])) for slot in slots]
            assert sets.matching(real).tolist() == by_hand(codes, real)


@settings(max_examples=60, deadline=None)
@given(catalogues())
def test_narrowing_token_by_token_in_any_order_gives_the_same_matches(given_: tuple) -> None:
    """Rows of different users and slots go on together, some of them twice, some into nothing."""
    codes, rng = given_
    sets, rows, slots = TokenSets.of(codes, SIZE), 6, codes.shape[1]
    wanted = [codes[rng.integers(len(codes))].tolist() for _ in range(rows)]
    wanted[0] = rng.integers(0, SIZE, slots).tolist()
    chosen: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    for step in range(slots):
        origin = rng.integers(0, rows, rows) if step else np.arange(rows)
        wanted, chosen = [wanted[row] for row in origin], [chosen[row] for row in origin]
        free = [[slot for slot in range(slots) if slot not in dict(own)] for own in chosen]
        slot = [int(rng.choice(left)) for left in free]
        code = [own[s] for own, s in zip(wanted, slot, strict=True)]
        chosen = [[*own, (s, c)] for own, s, c in zip(chosen, slot, code, strict=True)]
        if step == 0:
            matches = sets.first(torch.tensor(slot), torch.tensor(code))
        else:
            matches = sets.narrowed(matches, torch.from_numpy(origin), torch.tensor(slot), torch.tensor(code))
        assert [matches.item[matches.row == row].tolist() for row in range(rows)] == [
            by_hand(codes, own) for own in chosen
        ]
    assert matches.only().tolist() == [(by_hand(codes, own) or [NONE])[0] for own in chosen]


@settings(max_examples=40, deadline=None)
@given(catalogues())
def test_whole_sets_are_their_items_and_others_none(given_: tuple) -> None:
    codes, rng = given_
    asked = np.concatenate([rng.permutation(codes), rng.integers(0, SIZE, (20, codes.shape[1]))]).astype(np.int64)
    rows = {tuple(own): row for row, own in enumerate(codes.tolist())}
    found = TokenSets.of(codes, SIZE).items_of(torch.from_numpy(asked))

    assert found.tolist() == [rows.get(tuple(own), NONE) for own in asked.tolist()]


@settings(max_examples=60, deadline=None)
@given(catalogues())
def test_the_codes_left_are_those_of_open_matches(given_: tuple) -> None:
    """At the first step by counting what is closed, later by a look at the matches; closed items are a bitmap."""
    codes, rng = given_
    sets, users = TokenSets.of(codes, SIZE), 3
    closed = rng.random((users, len(codes))) < 0.5
    bits = bitmap(torch.from_numpy(closed))
    real, left = sets.first_codes_left(bits, users)
    for slot in range(codes.shape[1]):
        for code in range(SIZE):
            has = codes[:, slot] == code
            assert bool(real[slot, code]) == has.any()
            assert left[:, slot, code].tolist() == (has & ~closed).any(axis=1).tolist()
    assert sets.first_codes_left(None, users)[1].tolist() == [real.tolist()] * users
    slot, code = torch.zeros(users, dtype=torch.int64), torch.from_numpy(codes[:1, 0]).long().expand(users)
    matches = sets.first(slot, code)
    last = torch.full((users,), codes.shape[1] - 1)
    found = sets.codes_left(matches, last, ~is_set(bits, matches.row, matches.item))
    for user in range(users):
        own = {int(codes[item, -1]) for item in by_hand(codes, [(0, int(codes[0, 0]))]) if not closed[user, item]}
        assert torch.nonzero(found[user]).flatten().tolist() == sorted(own)


def test_sums_are_the_masses_of_a_tokens_items() -> None:
    """Worked by hand: three items, two slots."""
    sets = TokenSets.of(np.array([[0, 1], [0, 2], [3, 1]], dtype=np.int32), SIZE)
    sums = sets.token_sums(torch.tensor([1.0, 2.0, 5.0]))

    assert sums.tolist() == [[3, 0, 0, 5, 0], [0, 6, 2, 0, 0]]


@pytest.mark.parametrize(
    ("codes", "said"),
    [([[0, 1], [0, 1]], "same set"), ([[0, -1]], "in every slot"), ([[0, SIZE]], "in every slot")],
)
def test_what_is_no_set_of_tokens_is_refused(codes: list[list[int]], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        TokenSets.of(np.array(codes, dtype=np.int32), SIZE)
