"""On the shipped data the floors give the published November figures; December is not in it."""

import numpy as np
import pytest

from sidrec.evaluation.judging import KINDS, Judged, judge, rank_all
from sidrec.evaluation.protocol import TargetKind
from sidrec.floors.base import FloorModel
from sidrec.floors.frequency import LastBasket, PersonalFrequency
from sidrec.floors.linear import EASE, ItemKNN
from sidrec.floors.markov import Markov
from sidrec.floors.popularity import GlobalPopularity, RecentPopularity
from sidrec.floors.sasrec_basket import SASRecBasket
from tests.basket_world import retail

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "hr@10", "crecall@10")
# .0005 from what a printed figure can stand for: half its last digit is the printer's.
TOLERANCES = (*(0.00055,) * 6, *(0.001,) * 2)
# One headline variant of each linear model runs by default.
SLOW = {"item-kNN binary", "item-kNN basket", "EASE decayed", "EASE basket"}

# name: floor, all items, novel only. The published 100 and 200 neighbours kept what reaches the 101st and 201st value.
PUBLISHED: dict[str, tuple[FloorModel, str, str]] = {
    "global": (
        GlobalPopularity(),
        ".0280 .0429 .0606 .1133 .0993 .0889 .496 .090",
        ".0114 .0166 .0265 .0345 .0315 .0318 .207 .030",
    ),
    "recent": (
        RecentPopularity(),
        ".0303 .0505 .0900 .1187 .1125 .1156 .548 .107",
        ".0215 .0395 .0712 .0551 .0598 .0670 .355 .068",
    ),
    "GP-TopFreq": (
        PersonalFrequency(fill="global"),
        ".1173 .1762 .2492 .3307 .3114 .3012 .814 .301",
        ".0114 .0166 .0265 .0345 .0315 .0318 .207 .030",
    ),
    "RP-TopFreq": (
        PersonalFrequency(),
        ".1222 .1833 .2594 .3432 .3232 .3136 .825 .312",
        ".0215 .0395 .0712 .0551 .0598 .0670 .355 .068",
    ),
    "decayed frequency": (
        PersonalFrequency(half_life=120, fill_weight=1e-4),
        ".1225 .1852 .2590 .3346 .3187 .3092 .819 .310",
        ".0215 .0395 .0712 .0551 .0598 .0670 .355 .068",
    ),
    "last basket": (
        LastBasket(),
        ".1150 .1621 .2133 .3226 .2953 .2760 .790 .279",
        ".0215 .0395 .0712 .0551 .0598 .0670 .355 .068",
    ),
    "Markov": (
        Markov(),
        ".0550 .0844 .1226 .1670 .1569 .1508 .626 .153",
        ".0145 .0252 .0474 .0440 .0410 .0452 .253 .042",
    ),
    "Markov decayed": (
        Markov(half_life=60),
        ".0549 .0821 .1201 .1690 .1576 .1496 .620 .153",
        ".0148 .0241 .0436 .0440 .0407 .0436 .249 .041",
    ),
    "item-kNN binary": (
        ItemKNN(half_life=None),
        ".0476 .0856 .1365 .1787 .1703 .1677 .582 .169",
        ".0296 .0510 .0812 .0742 .0739 .0776 .342 .076",
    ),
    "item-kNN": (
        ItemKNN(),
        ".0505 .0881 .1433 .1820 .1741 .1744 .591 .173",
        ".0317 .0546 .0837 .0756 .0761 .0805 .354 .080",
    ),
    "item-kNN basket": (
        ItemKNN(unit="basket", neighbours=201),
        ".0583 .0959 .1543 .1970 .1867 .1869 .586 .186",
        ".0352 .0558 .0878 .0738 .0750 .0805 .355 .081",
    ),
    "EASE": (
        EASE(),
        ".0680 .1191 .1941 .2345 .2245 .2258 .706 .224",
        ".0416 .0704 .1059 .0891 .0908 .0970 .445 .100",
    ),
    "EASE decayed": (
        EASE(half_life=60),
        ".0706 .1267 .1998 .2395 .2313 .2329 .692 .234",
        ".0449 .0774 .1112 .0940 .0956 .1013 .447 .107",
    ),
    "EASE basket": (
        EASE(unit="basket", penalty=100, half_life=60),
        ".0753 .1276 .1977 .2505 .2397 .2373 .689 .239",
        ".0467 .0734 .1071 .0931 .0924 .0967 .436 .102",
    ),
}
SASREC = (
    ".0903 .1324 .1868 .2498 .2318 .2256 .730 .225",
    ".0343 .0566 .0947 .0864 .0849 .0902 .409 .089",
)


def judged(model: FloorModel) -> Judged:
    data = retail()
    targets = {kind: data.targets(kind) for kind in KINDS}
    return judge(rank_all(model.fit(data), data, targets), targets, data.num_items)


def figures(text: str) -> list[float]:
    return [float(figure) for figure in text.split()]


def test_rows_targets_and_cold_users_are_the_published_counts() -> None:
    """1,280 rows with 32,025 targets, 1,171 with 20,097 novel ones, 326 cold users, 4,015 items."""
    data = retail()
    counts: dict[TargetKind, tuple[int, int]] = {}
    for kind in KINDS:
        targets = data.targets(kind)
        counts[kind] = (len(targets.rows), int(targets.sizes.sum()))

    assert counts == {"all": (1280, 32_025), "novel": (1171, 20_097)}
    assert (data.cold_users, data.num_items) == (326, 4015)


def test_shares_of_the_window_are_the_published_ones() -> None:
    """Repeat share .372 micro and .426 macro, 1.1 % of the targets outside the catalogue, largest R@10 .594."""
    data = retail()
    everything, novel = data.targets("all"), data.targets("novel")
    novel_size = np.zeros(data.num_rows)
    novel_size[novel.rows] = novel.sizes

    assert 1 - novel.sizes.sum() / everything.sizes.sum() == pytest.approx(0.372, abs=0.0005)
    assert (1 - novel_size / everything.sizes).mean() == pytest.approx(0.426, abs=0.0005)
    assert (everything.pair_item < 0).mean() == pytest.approx(0.011, abs=0.0005)
    assert np.minimum(10 / everything.sizes, 1).mean() == pytest.approx(0.594, abs=0.0005)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PUBLISHED]
)
def test_counting_and_linear_floors_equal_the_published_table(name: str) -> None:
    """Within .0005 on every figure shown, all items and novel-only."""
    model, *published = PUBLISHED[name]
    result = judged(model)

    for kind, text in zip(KINDS, published, strict=True):
        means = result.means(kind)
        distances = {
            column: abs(means[column] - figure) - tolerance
            for column, figure, tolerance in zip(COLUMNS, figures(text), TOLERANCES, strict=True)
        }
        assert {column: distance for column, distance in distances.items() if distance > 0} == {}, kind


@pytest.mark.slow
def test_sasrec_basket_mean_of_three_seeds_equals_the_published_table() -> None:
    """Within .010 on every recall and NDCG; within .020 on the hit rate, a share of yes-or-no rows of one seed."""
    results = [judged(SASRecBasket(seed=seed)) for seed in range(3)]

    for kind, text in zip(KINDS, SASREC, strict=True):
        means = [float(np.mean([result.means(kind)[column] for result in results])) for column in COLUMNS]
        for column, mean, figure in zip(COLUMNS, means, figures(text), strict=True):
            assert mean == pytest.approx(figure, abs=0.020 if column == "hr@10" else 0.010), f"{kind} {column}"
