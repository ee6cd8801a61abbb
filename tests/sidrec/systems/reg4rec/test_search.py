"""The search finds what a walk over all paths finds, and prunes as the definition says."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidrec.decoding.nodes import NONE
from sidrec.decoding.token_sets import Matches, TokenSets, bitmap
from sidrec.systems.reg4rec.search import Found, Open, Pruning, Step, search

SIZE = 4
Path = tuple[tuple[int, int], ...]


class Steps:
    """A decoder whose answers are random, but the same for the same group and path."""

    def __init__(self, groups: int, slots: int, *, categories: Callable[[int, Path], int] | None = None) -> None:
        self.groups, self.slots, self.categories = groups, slots, categories
        self.paths: list[list[Path]] = []
        self.log: list[list[list[Path]]] = []

    def log_probs(self, group: int, path: Path) -> torch.Tensor:
        seed = hash((group % 7, path)) % 2**31
        logits = torch.randn(self.slots, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (2 * logits).log_softmax(dim=-1)

    def begin(self) -> Step:
        self.paths = [[()] for _ in range(self.groups)]
        return self._step()

    def extend(self, origin: torch.Tensor, slot: torch.Tensor, code: torch.Tensor, matches: Matches) -> Step:
        self.paths = [
            [(*self.paths[group][o], (s, c)) for o, s, c in zip(*columns, strict=True)]
            for group, columns in enumerate(zip(origin.tolist(), slot.tolist(), code.tolist(), strict=True))
        ]
        self.matches = matches
        return self._step()

    def _step(self) -> Step:
        self.log.append(self.paths)
        table = [torch.stack([self.log_probs(g, path) for path in own]) for g, own in enumerate(self.paths)]
        if self.categories is None:
            return Step(torch.stack(table), None)
        names = [[self.categories(g, path) for path in own] for g, own in enumerate(self.paths)]
        return Step(torch.stack(table), torch.tensor(names))


def every_item(steps: Steps, group: int, codes: np.ndarray, order: str, tries: int) -> dict[int, float]:
    """Walk set by set, keeping the better path of each, as the module defines an item's score."""
    best: dict[frozenset, tuple[float, Path]] = {frozenset(): (0.0, ())}
    slots = codes.shape[1]
    for _ in range(slots):
        following: dict[frozenset, tuple[float, Path]] = {}
        for tokens, (score, path) in best.items():
            log_probs = steps.log_probs(group, path)
            free = [slot for slot in range(slots) if slot not in dict(path)]
            if order == "confidence":
                free.sort(key=lambda slot: -float(log_probs[slot].max()))
            for slot in free[:tries]:
                items = [own for own in codes.tolist() if all(own[s] == c for s, c in path)]
                left = sorted({own[slot] for own in items})
                shares = log_probs[slot, left].log_softmax(dim=0)
                for code, share in zip(left, shares.tolist(), strict=True):
                    key = tokens | {(slot, code)}
                    rank = (score + share, -slot)
                    if key not in following or rank > (following[key][0], -following[key][1][-1][0]):
                        following[key] = (score + share, (*path, (slot, code)))
        best = following
    row = {frozenset(enumerate(own)): item for item, own in enumerate(codes.tolist())}
    return {row[tokens]: score for tokens, (score, _) in best.items()}


def by_item(found: Found, group: int = 0) -> dict[int, float]:
    pairs = zip(found.items[group].tolist(), found.scores[group].tolist(), strict=True)
    return {item: score for item, score in pairs if item != NONE}


def random_codes(seed: int, items: int, slots: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permutation(np.unique(rng.integers(0, SIZE, (items, slots)).astype(np.int32), axis=0))


@settings(max_examples=60, deadline=None)
@example(295, 19, 4, 2, "fixed")  # equal paths of one set
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["confidence", "fixed"]),
)
def test_a_wide_search_scores_every_item_as_a_walk_over_all_paths(
    seed: int, items: int, slots: int, tries: int, order: str
) -> None:
    """Also where several orders of one set meet and are merged."""
    codes = random_codes(seed, items, slots)
    steps = Steps(2, slots)
    found = search(
        steps, TokenSets.of(codes, SIZE), width=2000, order=order, salt=torch.zeros(2, dtype=torch.int64),
        openings=Open(), slots_per_step=tries,
    )  # fmt: skip
    for group in range(2):
        expected = every_item(steps, group, codes, order, tries)
        assert by_item(found, group) == pytest.approx(expected, abs=1e-9)
        assert found.scores[group].tolist() == sorted(found.scores[group].tolist(), reverse=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 4))
def test_with_one_slot_a_step_scores_are_log_probabilities_of_the_catalogue(seed: int, items: int, slots: int) -> None:
    codes = random_codes(seed, items, slots)
    steps = Steps(1, slots)
    found = search(
        steps, TokenSets.of(codes, SIZE), width=2000, order="confidence", salt=torch.tensor([5]), openings=Open()
    )

    assert found.scores.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert sorted(item for item in found.items[0].tolist() if item != NONE) == list(range(len(codes)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 4), st.integers(1, 2))
def test_closed_items_leave_the_search_and_the_others_keep_their_scores(
    seed: int, items: int, slots: int, tries: int
) -> None:
    codes = random_codes(seed, items, slots)
    sets, steps, salt = TokenSets.of(codes, SIZE), Steps(3, slots), torch.zeros(3, dtype=torch.int64)
    closed = torch.from_numpy(np.random.default_rng(seed).random((3, len(codes))) < 0.6)
    settings_ = {"width": 2000, "order": "confidence", "salt": salt, "slots_per_step": tries}
    everything = search(steps, sets, openings=Open(), **settings_)
    found = search(steps, sets, openings=Open(closed=bitmap(closed)), **settings_)
    for group in range(3):
        own, all_ = by_item(found, group), by_item(everything, group)
        assert not any(closed[group, item] for item in own)
        # With one slot a step an item has one path, and it is the same whoever else is open.
        if tries == 1:
            assert own == pytest.approx({item: score for item, score in all_.items() if not closed[group, item]})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4), st.sampled_from(["confidence", "random"]))
def test_a_wanted_item_is_scored_as_in_the_search_of_all(seed: int, items: int, slots: int, order: str) -> None:
    """One group an item, each looking for its own, at width 1."""
    codes = random_codes(seed, items, slots)
    sets, count_ = TokenSets.of(codes, SIZE), len(codes)

    class Same(Steps):
        def log_probs(self, group: int, path: Path) -> torch.Tensor:
            return super().log_probs(0, path)

    salt = torch.full((count_,), 11)
    everything = search(Same(1, slots), sets, width=2000, order=order, salt=salt[:1], openings=Open())
    own = search(Same(count_, slots), sets, width=1, order=order, salt=salt, openings=Open(wanted=torch.arange(count_)))

    assert own.items[:, 0].tolist() == list(range(count_))
    assert dict(enumerate(own.scores[:, 0].tolist())) == pytest.approx(by_item(everything))


def test_a_narrow_search_keeps_the_best_at_every_step() -> None:
    """By hand: the two best of each depth, then the two best of what follows from them."""
    codes = random_codes(3, 40, 3)
    steps = Steps(1, 3)
    found = search(steps, TokenSets.of(codes, SIZE), width=2, order="fixed", salt=torch.tensor([0]), openings=Open())
    kept: list[tuple[float, Path]] = [(0.0, ())]
    for slot in range(3):
        pool = []
        for score, path in kept:
            left = sorted({own[slot] for own in codes.tolist() if all(own[s] == c for s, c in path)})
            shares = steps.log_probs(0, path)[slot, left].log_softmax(dim=0).tolist()
            pool += [(score + share, (*path, (slot, code))) for code, share in zip(left, shares, strict=True)]
        kept = sorted(pool, reverse=True)[:2]
    row = {tuple(own): item for item, own in enumerate(codes.tolist())}

    assert found.items[0].tolist() == [row[tuple(dict(path)[s] for s in range(3))] for _, path in kept]
    assert found.scores[0].tolist() == pytest.approx([score for score, _ in kept])


def categories(group: int, path: Path) -> int:
    return hash((path[:1], len(path) % 3 if len(path) % 2 else 0)) % 3


def pruned_by_hand(
    steps: Steps, codes: np.ndarray, *, width: int, consistency: float, first: int, refill: int
) -> list[tuple[float, int]]:
    """CORP by its definition: drop, refill by the best dropped, and only then cut to the width."""
    slots = codes.shape[1]
    kept: list[tuple[float, Path, list[int]]] = [(0.0, (), [])]
    for depth in range(slots):
        pool = []
        for score, path, named in kept:
            log_probs = steps.log_probs(0, path)
            slot = max((s for s in range(slots) if s not in dict(path)), key=lambda s: float(log_probs[s].max()))
            names = [*named, categories(0, path)]
            left = sorted({own[slot] for own in codes.tolist() if all(own[s] == c for s, c in path)})
            shares = log_probs[slot, left].log_softmax(dim=0).tolist()
            pool += [(score + share, (*path, (slot, code)), names) for code, share in zip(left, shares, strict=True)]
        pool.sort(key=lambda one: -one[0])
        if depth + 1 >= first:
            agree = [sum(a == b for a, b in pairwise(names)) / depth >= consistency for _, _, names in pool]
            survivors = [one for one, ok in zip(pool, agree, strict=True) if ok]
            dropped = [one for one, ok in zip(pool, agree, strict=True) if not ok]
            pool = survivors + dropped[: max(0, refill - len(survivors))]
        kept = pool[:width]
    row = {tuple(own): item for item, own in enumerate(codes.tolist())}
    items = [(score, row[tuple(dict(path)[s] for s in range(slots))]) for score, path, _ in kept]
    return sorted(items, reverse=True)


@pytest.mark.parametrize(("width", "consistency", "refill"), [(3, 0.5, 1), (5, 1.0, 3), (40, 0.5, 2), (4, 0.0, 1)])
def test_inconsistent_paths_are_dropped_and_refilled_by_definition(width: int, consistency: float, refill: int) -> None:
    changed = 0
    for seed in range(12):
        codes = random_codes(seed, 60, 4)
        steps, salt, sets = Steps(1, 4, categories=categories), torch.tensor([0]), TokenSets.of(codes, SIZE)
        same = {"width": width, "order": "confidence", "salt": salt, "openings": Open()}
        found = search(steps, sets, pruning=Pruning(consistency, 2, torch.tensor([refill])), **same)
        plain = search(steps, sets, **same)
        expected = pruned_by_hand(steps, codes, width=width, consistency=consistency, first=2, refill=refill)
        real = found.items[0] != NONE
        assert found.items[0][real].tolist() == [item for _, item in expected]
        assert found.scores[0][real].tolist() == pytest.approx([score for score, _ in expected])
        changed += found.items.tolist() != plain.items.tolist()

    assert (changed > 0) == (consistency > 0)


def test_a_path_with_one_item_left_asks_the_decoder_no_more() -> None:
    """What follows is certain: the decoder is not run for it, and scores are those of the full walk."""
    codes = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]], dtype=np.int32)
    steps = Steps(1, 4)
    found = search(
        steps, TokenSets.of(codes, SIZE), width=9, order="confidence", salt=torch.tensor([0]), openings=Open()
    )

    assert len(steps.log) == 1
    assert by_item(found) == pytest.approx(every_item(steps, 0, codes, "confidence", 1))


def test_the_decoder_is_given_what_matches_each_path() -> None:
    """Closed items too: a path's probabilities are over the catalogue."""
    codes = random_codes(2, 60, 3)
    steps, sets = Steps(2, 3), TokenSets.of(codes, SIZE)
    closed = bitmap(torch.rand(2, len(codes), generator=torch.Generator().manual_seed(0)) < 0.5)
    search(steps, sets, width=5, order="confidence", salt=torch.zeros(2, dtype=torch.int64), openings=Open(closed))
    for row, path in enumerate(path for own in steps.paths for path in own):
        expected = [item for item, own in enumerate(codes.tolist()) if all(own[s] == c for s, c in path)]
        assert steps.matches.item[steps.matches.row == row].tolist() == expected


def test_another_salt_draws_another_order() -> None:
    """The random order is the user's: the same salt walks the same slots, others walk others."""
    codes, firsts = random_codes(0, 60, 4), set()
    for salt in range(30):
        for _ in range(2):
            steps = Steps(1, 4)
            search(
                steps, TokenSets.of(codes, SIZE), width=1, order="random", salt=torch.tensor([salt]), openings=Open()
            )
            firsts.add((salt, tuple(slot for slot, _ in steps.log[-1][0][0])))

    assert len(firsts) == 30
    assert {order[0] for _, order in firsts} == {0, 1, 2, 3}
