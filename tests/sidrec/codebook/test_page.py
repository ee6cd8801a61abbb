"""The pages hold their own code, show what the figures say, and never run a title."""

import sys

import numpy as np
import polars as pl
import pytest

from sidrec.codebook.config import AlarmConfig
from sidrec.codebook.diff import diff
from sidrec.codebook.health_report import health_report
from sidrec.codebook.page import diff_page, health_page
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.quantization.health import codebook_health
from tests.codebook_world import items_of

EVIL = "</script><script>alert('x')</script>"


def world() -> tuple[Catalog, dict[str, object]]:
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(0, 16, (80, 3)), axis=0).astype(np.int32)
    table = items_of(len(codes))
    titles = [EVIL, *table["title"].to_list()[1:]]
    catalog = Catalog.build(table.with_columns(title=np.array(titles)), codes)
    report = health_report(
        quantized=codes, final=codes, codebook_size=16, traffic=catalog.recent_popularity, previous=codes[:40],
        fitted_errors=random.random(60), new_errors=random.random(30) + 1, slots=True, alarm=AlarmConfig(),
        expert_load=np.array([3.0, 2.0, 1.0]),
    )  # fmt: skip
    return catalog, {**codebook_health(codes, 16), "report": report, "gates": []}


def test_the_health_page_stands_alone() -> None:
    """One file with the plots' code inside, the alarm on top, and no address to fetch anything from."""
    catalog, health = world()
    page = health_page(health, title="retail", catalog=catalog)

    assert page.count('class="plotly-graph-div"') == 7
    assert "codebook no longer spans the catalogue" in page
    assert "<script src=" not in page
    assert "<link" not in page
    assert 1_000_000 < len(page) < 8_000_000


def test_titles_are_text() -> None:
    """A title that is a script is shown, not run, in both pages."""
    catalog, health = world()
    other = Catalog.build(catalog.table(), np.roll(catalog.codes, 1, axis=0))
    difference = diff(catalog, other, num_levels=3, codebook_size=16)
    assert difference["top_movers"]
    difference["top_movers"][0]["title"] = EVIL

    for page in (health_page(health, title=EVIL, catalog=catalog), diff_page(difference, title=EVIL)):
        assert EVIL not in page
        assert "<script>alert" not in page
        assert "alert(" in page


def test_the_page_of_a_large_catalogue_stays_small() -> None:
    """100,000 items with long titles: the tree is cut, the page opens."""
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(0, 256, (100_000, 3)), axis=0).astype(np.int32)
    catalog = Catalog.build(items_of(len(codes)).with_columns(title=pl.lit("A TITLE WITHOUT END " * 20)), codes)
    report = health_report(
        quantized=codes, final=codes, codebook_size=256, traffic=catalog.recent_popularity,
        fitted_errors=random.random(len(codes)), alarm=AlarmConfig(),
    )  # fmt: skip
    page = health_page({**codebook_health(codes, 256), "report": report}, title="large", catalog=catalog)

    assert len(page) < 8_000_000


def test_the_same_codebook_gives_the_same_page() -> None:
    """Nothing in a page is random: two of one codebook are equal byte by byte."""
    catalog, health = world()

    assert health_page(health, title="x", catalog=catalog) == health_page(health, title="x", catalog=catalog)


def test_the_table_has_every_view_that_there_is() -> None:
    """Catalogue and traffic have a row a level; what was never served is said to be so, and shown once it was."""
    catalog, health = world()
    page = health_page(health, title="x", catalog=catalog)
    report = health["report"]
    assert isinstance(report, dict)
    views = {**report["views"], "served": report["views"]["traffic"]}
    served = health_page({**health, "report": {**report, "views": views}}, title="x", catalog=catalog)

    assert (page.count("<td>catalogue</td>"), page.count("<td>traffic</td>"), page.count("<td>served</td>")) == (
        3,
        3,
        0,
    )
    assert "served: nothing was served yet" in page
    assert served.count("<td>served</td>") == 3


def test_gates_and_lineages_that_fail_are_seen() -> None:
    """A failed gate is marked as such; codebooks of different lineages open their page with a warning."""
    catalog, health = world()
    gate = {"name": "utilisation", "result": "fail", "sentence": "level 1 uses 3% of its codes."}
    difference = diff(catalog, catalog, num_levels=3, codebook_size=16)

    assert "<b class='fail'>fail</b>" in health_page({**health, "gates": [gate]}, title="x", catalog=catalog)
    assert "different lineages" in diff_page({**difference, "same_lineage": False}, title="x")
    assert "different lineages" not in diff_page({**difference, "same_lineage": True}, title="x")


def test_codes_from_the_first_changed_one_on_stand_out() -> None:
    """[5, 1, 2] became [5, 3, 2]: the first code is kept, and what follows a changed one is not the same place."""
    before = Catalog.build(items_of(2), np.array([[5, 1, 2], [0, 0, 0]], dtype=np.int32))
    after = Catalog.build(items_of(2), np.array([[5, 3, 2], [0, 0, 0]], dtype=np.int32))
    page = diff_page(diff(before, after, num_levels=3, codebook_size=8), title="x")

    assert "<td>5 <i class='was'>1</i> <i class='was'>2</i></td><td>5 <i class='was'>3</i>" in page


def test_without_plotly_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare wheel imports the module; only drawing needs the extra."""
    catalog, health = world()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)

    with pytest.raises(UsageError, match="Plotly") as caught:
        health_page(health, title="x", catalog=catalog)
    assert "sidrec[reports]" in str(caught.value.next_step)
