"""On the Amazon sequences the floors give the published figures; skipped where the data are not on this machine."""

import functools
from dataclasses import dataclass, field

import numpy as np
import pytest

from sidrec.evaluation.config import SequenceFloor
from sidrec.evaluation.judging import judge, rank_all
from sidrec.evaluation.metrics import CUTOFFS
from sidrec.evaluation.protocol import Ints, NextBasket, TargetKind, Targets
from sidrec.evaluation.sequences import ROWS_HISTORY, Ties, leave_one_out, temporal
from sidrec.floors.base import Scorer, Scores
from sidrec.floors.catalogue import SEQUENCE_SETTINGS, sequence_floor
from tests.sidrec.evaluation.sequence_world import amazon

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20")
SCIENTIFIC = ("amazon_scientific_2018", "published")
CANONICAL = ("amazon_beauty_2014", "published")
SHUFFLED = ("amazon_beauty_2014", "shuffled")

# Test rows, full catalogue, histories not removed: R@5, R@10, R@20, N@5, N@10, N@20.
PUBLISHED: dict[tuple[str, str], dict[SequenceFloor, str]] = {
    SCIENTIFIC: {
        "popularity": ".0185 .0309 .0456 .0132 .0171 .0208",
        "markov": ".0668 .0832 .1008 .0513 .0566 .0611",
        "markov_decayed": ".0845 .1059 .1297 .0638 .0706 .0766",
        "item_knn_decayed": ".0874 .1070 .1324 .0707 .0770 .0834",
        "item_knn": ".0772 .1018 .1320 .0608 .0687 .0763",
        "ease": ".0840 .1093 .1430 .0656 .0738 .0823",
        "ease_decayed": ".0914 .1183 .1504 .0704 .0790 .0871",
    },
    CANONICAL: {
        "popularity": ".0081 .0120 .0195 .0043 .0055 .0073",
        "markov": ".0507 .0661 .0821 .0378 .0429 .0469",
        "markov_decayed": ".0492 .0703 .0939 .0345 .0413 .0473",
        "item_knn_decayed": ".0417 .0598 .0834 .0285 .0344 .0403",
        "item_knn": ".0283 .0476 .0725 .0185 .0247 .0310",
        "ease": ".0301 .0497 .0791 .0194 .0257 .0331",
        "ease_decayed": ".0409 .0633 .0934 .0268 .0340 .0416",
    },
    SHUFFLED: {
        "popularity": ".0101 .0148 .0270 .0059 .0074 .0105",
        "markov": ".0373 .0523 .0704 .0257 .0305 .0351",
        "markov_decayed": ".0434 .0624 .0876 .0290 .0351 .0415",
        "item_knn_decayed": ".0433 .0637 .0878 .0296 .0362 .0423",
        "item_knn": ".0334 .0543 .0798 .0223 .0290 .0354",
        "ease": ".0403 .0652 .0969 .0271 .0352 .0431",
        "ease_decayed": ".0507 .0769 .1062 .0346 .0430 .0504",
    },
}
CASES = [
    pytest.param(*place, name, marks=[pytest.mark.slow] if place != SCIENTIFIC else [])
    for place, table in PUBLISHED.items()
    for name in table
]


@functools.cache
def rows_of(name: str, ties: Ties) -> NextBasket:
    return leave_one_out(*amazon(name, ties, "leave_one_out"), target="test")


@dataclass
class Listening:
    """A scorer that notes each target's rank, halfway among equal scores as the published figures have it."""

    scorer: Scorer
    targets: Targets
    ranks: list[Ints] = field(default_factory=list)

    def __call__(self, rows: Ints) -> Scores:
        scores = self.scorer(rows)
        own = scores[np.arange(len(rows)), self.targets.pair_item[rows]][:, None]
        self.ranks.append((scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) // 2)
        return scores

    def figures(self) -> list[float]:
        ranks = np.concatenate(self.ranks)
        gain = 1 / np.log2(ranks + 2)
        recalls = [float((ranks < k).mean()) for k in CUTOFFS]
        return recalls + [float((gain * (ranks < k)).mean()) for k in CUTOFFS]


@pytest.mark.parametrize(("data_set", "ties", "name"), CASES)
def test_counting_and_linear_floors_equal_the_published_table(data_set: str, ties: Ties, name: SequenceFloor) -> None:
    """With the published rule for equal scores to the last printed digit; with ours, by popularity, within .0010.

    Item-kNN of Scientific divided by the events of an item, not by its users, which 291 repeated events tell apart.
    """
    data = rows_of(data_set, ties)
    targets: dict[TargetKind, Targets] = {"all": data.targets("all")}
    model = sequence_floor(name, SEQUENCE_SETTINGS[data_set], seed=0)
    scorer = Listening(model.fit(data), targets["all"])
    means = judge(rank_all(scorer, data, targets), targets, data.num_items).means("all")
    published = [float(figure) for figure in PUBLISHED[data_set, ties][name].split()]

    repeats = data_set == SCIENTIFIC[0] and name in ("item_knn", "item_knn_decayed")
    assert scorer.figures() == pytest.approx(published, abs=0.0003 if repeats else 0.0001)
    assert [means[column] for column in COLUMNS] == pytest.approx(published, abs=0.0010)


@pytest.mark.parametrize(
    ("name", "published"), [("popularity", ".0499 .0547 .0412 .0427"), ("markov", ".0964 .1182 .0778 .0850")]
)
def test_industrial_floors_equal_the_figures_of_its_readme(name: SequenceFloor, published: str) -> None:
    """R@5, R@10, N@5 and N@10 of the published test rows."""
    events, items = amazon("amazon_industrial_2018", "published", "rows")
    data = temporal(events, items, target="test", max_history=ROWS_HISTORY)
    targets: dict[TargetKind, Targets] = {"all": data.targets("all")}
    model = sequence_floor(name, SEQUENCE_SETTINGS["amazon_industrial_2018"], seed=0)
    means = judge(rank_all(model.fit(data), data, targets), targets, data.num_items).means("all")

    figures = [means[column] for column in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")]
    assert figures == pytest.approx([float(figure) for figure in published.split()], abs=0.0003)
