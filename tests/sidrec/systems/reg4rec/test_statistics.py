"""What is said of a search is what its hypotheses did, counted by hand."""

import itertools
from collections import Counter
from math import log

import pytest
import torch

from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.reg4rec.search import Open, Pruning, Taken, search
from sidrec.systems.reg4rec.statistics import statistics
from tests.sidrec.systems.reg4rec.test_search import SIZE, Steps, categories, random_codes


def taken(slots: list[int], alive: list[bool], tested: list[bool], dropped: list[bool]) -> Taken:
    return Taken(*(torch.tensor([values]) for values in (slots, alive, tested, dropped)))


def test_by_hand() -> None:
    """One of three tested is dropped; at step two 3 : 1 and at step three 1 : 1, dead ones not counted."""
    steps = [
        taken([2] * 4, [True] * 4, [False], [False]),
        taken([0, 0, 1, 0], [True] * 4, [False] * 4, [False] * 4),
        taken([1, 0, 1, 1], [True, True, False, False], [True, True, True, False], [False, False, True, False]),
    ]
    entropy = (-(0.75 * log(0.75) + 0.25 * log(0.25)) + log(2)) / 2

    assert statistics(steps, 3) == [
        {
            "first_slot": 2.0,
            "order_entropy": pytest.approx(entropy, abs=1e-4),
            "pruning_survival": pytest.approx(2 / 3, abs=1e-4),
        }
    ]


def test_one_order_has_no_entropy_and_nothing_tested_no_survival() -> None:
    steps = [taken([1, 1], [True, True], [False], [False]), taken([0, 0], [True, False], [False] * 2, [False] * 2)]

    assert statistics(steps, 2) == [{"first_slot": 1.0, "order_entropy": 0.0}]
    assert statistics(steps[:1], 2) == [{"first_slot": 1.0, "order_entropy": 0.0}]


@pytest.mark.parametrize("consistency", [0.0, 0.7])
def test_steps_say_what_the_hypotheses_took(consistency: float) -> None:
    """The decoder's own log of paths has the same slots, and CORP drops what its definition drops."""
    codes = random_codes(4, 60, 4)
    steps = Steps(1, 4, categories=categories)
    pruning = Pruning(consistency, 2, torch.tensor([3])) if consistency else None
    found = search(
        steps,
        TokenSets.of(codes, SIZE),
        width=6,
        order="confidence",
        salt=torch.tensor([0]),
        openings=Open(),
        pruning=pruning,
    )
    for said, paths in zip(found.steps, steps.log[1:], strict=False):
        kept = [path[-1][0] for path, alive in zip(paths[0], said.alive[0].tolist(), strict=True) if alive]

        assert Counter(said.slot[said.alive].tolist()) == Counter(kept)
    for depth, (said, paths) in enumerate(zip(found.steps, steps.log, strict=True)):
        names = [[categories(0, path[:place]) for place in range(depth + 1)] for path in paths[0]]
        agree = [sum(a == b for a, b in itertools.pairwise(own)) for own in names]
        bad = [depth > 0 and seen / depth < consistency for seen in agree]

        assert said.dropped[0].tolist() == [out and ok for out, ok in zip(bad, said.tested[0].tolist(), strict=True)]
    assert (sum(int(said.dropped.sum()) for said in found.steps) > 0) == (consistency > 0)
