"""Each gate refuses what it is there for, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from sidrec.training.gates import Vitals, faults


@dataclass(frozen=True)
class Limits:
    max_kl: float = 0.5
    min_diversity: float = 0.5
    min_valid: float = 0.8


CONFIG = Limits()
MEASURES = {"kl": 0.0, "diversity": 0.9, "valid": 0.5, "hits": 0.3, "category_hits": 0.4, "consistency": 0.6}


def vitals(change: Mapping[str, float]) -> Vitals:
    own = MEASURES | dict(change)
    hits = {name: own[name] for name in ("hits", "category_hits")}
    return Vitals(own["kl"], own["diversity"], own["valid"], hits, {"consistency": own["consistency"]}, {})


BEFORE = vitals({})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kl": 0.51}, "KL 0.510"),
        ({"diversity": 0.44}, "distinct samples 0.440"),
        ({"valid": 0.39}, "samples that are items 0.390"),
        ({"consistency": 0.63}, "consistency alone rose, 0.600 to 0.630"),
        ({"consistency": 0.9, "hits": 0.2, "category_hits": 0.1}, "consistency alone rose"),
    ],
)
def test_what_is_lost_is_named(change: dict[str, float], said: str) -> None:
    found = faults(vitals(change), BEFORE, CONFIG)

    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"kl": 0.5, "diversity": 0.45, "valid": 0.4},
        {"consistency": 0.61},
        {"consistency": 0.9, "hits": 0.31},
        {"consistency": 0.9, "category_hits": 0.41},
        {"consistency": 0.1, "hits": 0.0, "category_hits": 0.0},
    ],
)
def test_what_stays_within_its_limits_passes(change: dict[str, float]) -> None:
    """Consistency may rise with a hit, and anything may rise."""
    assert faults(vitals(change), BEFORE, CONFIG) == []
