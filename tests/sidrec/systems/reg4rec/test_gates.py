"""Each gate refuses what it is there for, and nothing else."""

from dataclasses import replace

import pytest

from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig
from sidrec.systems.reg4rec.gates import Vitals, faults

CONFIG = Reg4RecAlignmentConfig(max_kl=0.5, min_diversity=0.5, min_valid=0.8)
BEFORE = Vitals(kl=0.0, diversity=0.9, valid=0.5, hits=0.3, category_hits=0.4, consistency=0.6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kl": 0.51}, "KL 0.510"),
        ({"diversity": 0.44}, "distinct paths 0.440"),
        ({"valid": 0.39}, "paths that are items 0.390"),
        ({"consistency": 0.63}, "consistency alone rose, 0.600 to 0.630"),
        ({"consistency": 0.9, "hits": 0.2, "category_hits": 0.1}, "consistency alone rose"),
    ],
)
def test_what_is_lost_is_named(change: dict[str, float], said: str) -> None:
    found = faults(replace(BEFORE, **change), BEFORE, CONFIG)

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
    assert faults(replace(BEFORE, **change), BEFORE, CONFIG) == []
