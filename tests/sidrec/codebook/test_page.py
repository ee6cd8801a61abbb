"""The pages hold their own code, show what the figures say, and never run a title."""

import sys

import numpy as np
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
    )  # fmt: skip
    return catalog, {**codebook_health(codes, 16), "report": report, "gates": []}


def test_the_health_page_stands_alone() -> None:
    """One file with the plots' code inside, the alarm on top, and no address to fetch anything from."""
    catalog, health = world()
    page = health_page(health, title="retail", catalog=catalog)

    assert page.count('class="plotly-graph-div"') == 6
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
    """20,000 items with long titles: the tree is cut, the page opens."""
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(0, 256, (20_000, 3)), axis=0).astype(np.int32)
    catalog = Catalog.build(items_of(len(codes)), codes)
    report = health_report(
        quantized=codes, final=codes, codebook_size=256, traffic=catalog.recent_popularity,
        fitted_errors=random.random(len(codes)), alarm=AlarmConfig(),
    )  # fmt: skip
    page = health_page({**codebook_health(codes, 256), "report": report}, title="large", catalog=catalog)

    assert len(page) < 8_000_000


def test_without_plotly_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare wheel imports the module; only drawing needs the extra."""
    catalog, health = world()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)

    with pytest.raises(UsageError, match="Plotly") as caught:
        health_page(health, title="x", catalog=catalog)
    assert "sidrec[reports]" in str(caught.value.next_step)
