"""The floors that a recipe can name, their settings, and their lists on the rows of an evaluation."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from sidrec import home
from sidrec.evaluation.config import Floor, SequenceFloor
from sidrec.evaluation.judging import Lists, rank_all
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets
from sidrec.floors.base import FloorModel
from sidrec.floors.frequency import PersonalFrequency
from sidrec.floors.linear import EASE, ItemKNN, Precision
from sidrec.floors.markov import Markov
from sidrec.floors.popularity import GlobalPopularity, RecentPopularity

DESCRIPTIONS: dict[Floor, str] = {
    "global_popularity": "fit baskets with the item",
    "recent_popularity": "the same over the last 28 days before the gate",
    "personal_frequency": "RP-TopFreq: own baskets with the item, filled with recent popularity",
    "markov": "what followed the last basket's items, back-off mass 30",
    "item_knn": "cosine of user columns, shrink 10, decayed history (60 days)",
    "ease": "EASE on users x items, penalty 200, binary history",
    "sasrec_basket": "causal transformer over baskets, full softmax",
}
SEQUENCE_DESCRIPTIONS: dict[SequenceFloor, str] = {
    "popularity": "train events with the item",
    "markov": "what followed the last item, backed off to popularity",
    "markov_decayed": "what followed the history's items, 0.7 an event further back",
    "item_knn": "cosine of user columns, shrink 2, all neighbours, every event counts 1",
    "item_knn_decayed": "the same, 0.7 an event further back",
    "ease": "EASE on users x items, every event counts 1",
    "ease_decayed": "the same, 0.7 an event further back",
    "sasrec": "causal transformer over the newest 50 events, full softmax",
}
EVENT_HALF_LIFE = math.log(2) / math.log(1 / 0.7)
"""In events: each weighs 0.7 of the next newer one."""


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """What differs between data sets of ordered events."""

    ease_penalty: float
    ease_precision: Precision = "float64"
    sasrec_dropout: float = 0.4
    sasrec_epochs: int = 18


# Penalties of the decayed EASE: Scientific's and Industrial's are the best on validation rows of 50 / 200 / 800 and of
# 20 / 50 / 100 / 200 / 500 / 800 / 1500; Beauty's is the published one, which was not tuned. Epochs of SASRec: by
# validation NDCG@10 for Industrial (patience 4); Scientific's still rose slowly at 30; Beauty's are not tuned.
SEQUENCE_SETTINGS = {
    "amazon_scientific_2018": SequenceSettings(ease_penalty=800.0, sasrec_epochs=30),
    "amazon_beauty_2014": SequenceSettings(ease_penalty=500.0, sasrec_epochs=18, ease_precision="float32"),
    "amazon_industrial_2018": SequenceSettings(ease_penalty=100.0, sasrec_epochs=11),
}


def floor_model(name: Floor, *, seed: int) -> FloorModel:
    """Return the unfitted floor of that name, at the settings frozen on October."""
    match name:
        case "global_popularity":
            return GlobalPopularity()
        case "recent_popularity":
            return RecentPopularity()
        case "personal_frequency":
            return PersonalFrequency()
        case "markov":
            return Markov()
        case "item_knn":
            return ItemKNN()
        case "ease":
            return EASE()
        case "sasrec_basket":
            # Torch takes a second to import; counting floors do without.
            from sidrec.floors.sasrec_basket import SASRecBasket

            return SASRecBasket(seed=seed)


def sequence_floor(name: SequenceFloor, settings: SequenceSettings, *, seed: int) -> FloorModel:
    """Return the unfitted floor of that name for a protocol of ordered events."""
    match name:
        case "popularity":
            return GlobalPopularity()
        case "markov":
            return Markov(unit="count", back_off_mass=0.5)
        case "markov_decayed":
            return Markov(unit="count", back_off_mass=0.5, half_life=EVENT_HALF_LIFE)
        case "item_knn" | "item_knn_decayed":
            half_life = EVENT_HALF_LIFE if name == "item_knn_decayed" else math.inf
            return ItemKNN(neighbours=None, shrink=2.0, half_life=half_life)
        case "ease" | "ease_decayed":
            half_life = EVENT_HALF_LIFE if name == "ease_decayed" else math.inf
            return EASE(penalty=settings.ease_penalty, precision=settings.ease_precision, half_life=half_life)
        case "sasrec":
            # Torch takes a second to import; counting floors do without.
            from sidrec.floors.sasrec_basket import SASRecBasket

            return SASRecBasket(
                max_positions=50,
                dropout=settings.sasrec_dropout,
                item_dropout=0.0,
                batch_size=64,
                epochs=settings.sasrec_epochs,
                seed=seed,
            )


def floor_lists(
    name: Floor, data: NextBasket, targets: Mapping[TargetKind, Targets], *, seed: int, data_key: str
) -> Lists:
    """Return the floor's lists, from an earlier evaluation of the same data, settings and code where there is one.

    Args:
        data_key: whatever decides `data` and `targets`: digests of the files, the dates, the row limit.
    """
    model = floor_model(name, seed=seed)
    digest = hashlib.sha256(f"{data_key}\0{name}\0{model!r}\0{[*targets]}\0{_code_digest()}".encode()).hexdigest()
    path = home.steps_dir() / "_floors" / digest / f"{name}.safetensors"
    if path.exists():
        stored = load_file(path)
        return {kind: stored[kind].astype(np.int64) for kind in targets}
    lists = rank_all(model.fit(data), data, targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    save_file({kind: np.ascontiguousarray(values, dtype=np.int32) for kind, values in lists.items()}, partial)
    partial.replace(path)
    return lists


def _code_digest() -> str:
    """Return the digest of the code that lists depend on: this package, the protocol and the ranking."""
    package = Path(__file__).parent
    judged = [package.parent / "evaluation" / f"{name}.py" for name in ("judging", "protocol", "ranking")]
    digest = hashlib.sha256()
    for file in [*sorted(package.glob("*.py")), *judged]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
