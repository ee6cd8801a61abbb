"""The page of a read-out: everything in its order, nothing below a red light, data never markup."""

import re
from typing import Any

import polars as pl
import pytest

from sidrec.experiment.page import SIMULATED, readout_page
from sidrec.experiment.plan import Cells, Metric, Plan
from sidrec.experiment.readout import Readout, read_out
from tests.experiment_world import plan, simulated_users

CELLS = Cells(neither="control", codebook="codes", model="model", both="treatment")
FOUR = plan(
    shares=dict.fromkeys(CELLS.arms, 0.25),
    cells=CELLS,
    slices=("new_user",),
)
USERS = simulated_users(8_000, lift=0.3, shares=FOUR.shares, codes=0.25)
LEVEL = {"level": 0, "traffic": "served", "used": 3, "size": None, "entropy": 1.5, "perplexity": 2.8}
CODES = [
    {
        "arm": "control",
        "bundle_id": "b-1",
        "requests": 70,
        "cold_share": 0.1,
        "degraded_share": 0.2,
        "levels": [{**LEVEL, "largest_share": 0.5}],
        "search": [{"name": "mean_rank", "mean": 1.25, "entropy": 0.4, "requests": 60}],
    }
]
HEADINGS = [
    "Can the traffic be trusted?",
    "Effect on purchases",
    "Guardrails",
    "Slices",
    "Semantic IDs of each arm",
    "Codebook or model",
    "What to do",
]


def page(users: pl.DataFrame = USERS, planned: Plan = FOUR, *, codes: Any = CODES, simulated: bool = False) -> str:
    found: Readout = read_out(planned, users, days=14)
    return readout_page(found, planned, days="14 days", codes=codes, simulated=simulated)


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_everything_stands_in_its_order() -> None:
    """Trust, effect, guardrails, slices, semantic IDs, attribution, sentence; with their numbers."""
    text = page()

    assert headings(text) == HEADINGS
    for seen in ("p = ", "new_user = True", "mean_rank", "unknown", "only the codebook", "Ship: purchases +"):
        assert seen in text.split("</script>", 1)[1]


def test_a_red_light_leaves_the_trust_box_and_why() -> None:
    """One user in two arms: no effect, no plot, no code panel, though one was given."""
    text = page(USERS.with_columns(arms=pl.when(pl.int_range(pl.len()) == 0).then(2).otherwise(1)))

    assert headings(text) == ["Can the traffic be trusted?", "What to do"]
    assert "The result is hidden. stickiness" in text
    assert "plotly-graph-div" not in text.split("</script>", 1)[1]


def test_equal_readouts_give_equal_bytes() -> None:
    """Nothing random and no date is in the page."""
    assert page() == page()


def test_the_page_needs_no_network() -> None:
    """No script, style, image or font comes from elsewhere."""
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page())


def test_names_are_never_markup() -> None:
    """A metric and a slice that look like scripts stand as text, in the tables and in the plots."""
    evil = "</script><script>alert(1)</script>"
    planned = plan(primary=Metric(name=evil, numerator="purchases"), slices=("shop",), guardrails=())
    users = simulated_users(8_000, lift=0.3).with_columns(shop=pl.lit(evil))
    text = page(users, planned, codes=[{**CODES[0], "arm": evil}])

    assert "alert(1)" in text
    assert evil not in text


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulation_says_so(simulated: bool) -> None:
    """In its title and on its top; real traffic never does."""
    text = page(simulated=simulated)

    assert (SIMULATED in text) == ("<title>Simulation: " in text) == simulated


def test_an_effect_without_a_relative_interval_is_shown_absolute() -> None:
    """A control that may be zero has no share; the difference stands."""
    planned = plan(primary=Metric(name="refunds", numerator="refunds"), guardrails=())
    rare = pl.when(pl.int_range(pl.len()) == 0).then(1).otherwise(0)
    text = page(simulated_users(8_000).with_columns(refunds=rare), planned, codes=[])

    assert headings(text) == ["Can the traffic be trusted?", "Effect on refunds", "What to do"]
