"""The floors that a recipe can name, their settings, and their lists on the rows of an evaluation."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from sidrec import home
from sidrec.evaluation.config import Floor
from sidrec.evaluation.judging import KINDS, Lists, rank_all
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets
from sidrec.floors.base import FloorModel
from sidrec.floors.frequency import PersonalFrequency
from sidrec.floors.linear import EASE, ItemKNN
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


def floor_lists(
    name: Floor, data: NextBasket, targets: Mapping[TargetKind, Targets], *, seed: int, data_key: str
) -> Lists:
    """Return the floor's lists, from an earlier evaluation of the same data, settings and code where there is one.

    Args:
        data_key: whatever decides `data` and `targets`: digests of the files, the dates, the row limit.
    """
    model = floor_model(name, seed=seed)
    digest = hashlib.sha256(f"{data_key}\0{name}\0{model!r}\0{_code_digest()}".encode()).hexdigest()
    path = home.steps_dir() / "_floors" / digest / f"{name}.safetensors"
    if path.exists():
        stored = load_file(path)
        return {kind: stored[kind].astype(np.int64) for kind in KINDS}
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
