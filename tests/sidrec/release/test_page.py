"""A release's page: what is true of one bundle in its order, data never markup, no network."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from sidrec.evaluation.gates import GateResult
from sidrec.release.ledger import Ledger
from sidrec.release.page import Release, release_page
from sidrec.release.verdict import Verdict, join_gates
from tests.release_world import gate
from tests.sidrec.release.test_stop import book, ref

__all__ = ["book"]

EVIL = "<script>alert('x')</script>"
NOW = datetime(2026, 1, 6, tzinfo=UTC)
ID = ref(1).bundle_id
VIEW = {"utilisation": 0.75, "dead_codes": 4, "perplexity": 11.5, "normalised_entropy": 0.91}
HEALTH = {
    "alarm": {"raised": False, "sentence": "nothing is wrong"},
    "mutual_information": None,
    "views": {"catalogue": [VIEW, VIEW], "served": {"absent": "nothing was served yet"}},
}
WEEK = {
    "first_day": "2010-09-20",
    "window": "2010-09-20..2010-09-26, against fit",
    "level": "alarm",
    "sentence": f"10.9% on unseen items {EVIL}",
    "areas": {"data": "alarm", "sid": "ok"},
    "link": "../reports/2010-09-20-fit/report.html",
}
READOUT = {
    "experiment": "thinking",
    "days": 14.0,
    "decision": {"verdict": "ship", "sentence": "Ship: purchases +3.1 %."},
    "primary": {
        "metric": "purchases",
        "control": 1.25,
        "treatment": 1.29,
        "difference": 0.04,
        "always_valid": (0.01, 0.07),
        "users": 12_345,
    },
}


def verdict(*gates: GateResult) -> Verdict:
    return Verdict(
        bundle_id=ID,
        bundle_sha256=ref(1).sha256,
        kind="s2gr",
        result=join_gates(gates),
        sentence="Pass: it passed.",
        gates=gates,
        metrics={"all": {"ndcg@10": 0.2345, "recall@10": 0.3456}},
        floor="global_popularity",
        recipe_name="r",
        recipe_sha256="0" * 64,
        git_sha="0" * 40,
        versions={},
        created_at=NOW,
        expires_at=NOW,
    )


NAMES = ("codebook", "quality", "serving")
GATES = tuple(gate(name, observed=0.5 + place / 10, interval=(0.4, 0.9)) for place, name in enumerate(NAMES))


def page(ledger: Ledger | None = None, **changes: Any) -> str:
    values: dict[str, Any] = {
        "bundle_id": ID,
        "facts": {"system": "s2gr", "recipe": EVIL},
        "verdict": verdict(*GATES),
        "rows": [] if ledger is None else ledger.rows(),
        "health": HEALTH,
        "drift": [WEEK],
        "readout": READOUT,
        "links": {"health": "codebook.html"},
    }
    return release_page(Release(**(values | changes)), now=NOW)


def body(text: str) -> str:
    """Return the page without Plotly's code."""
    return text.split("</head>", 1)[1]


def cells(text: str, table: str) -> list[str]:
    """Return the text of a table's cells."""
    inner = re.search(rf"<table id='{table}'>(.*?)</table>", text, re.DOTALL)
    assert inner is not None
    return [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", inner[1])]


def test_everything_stands_in_its_order_with_its_numbers(book: Ledger) -> None:
    """What it is, why it was judged so, who asked, semantic IDs, traffic, experiment."""
    text = body(page(book))

    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "What it is",
        "Why it was judged so",
        "Who asked for it",
        "Its semantic IDs",
        "How its traffic fares",
        "Its experiment",
    ]
    assert cells(text, "verdict")[8:15] == ["quality", "check", "pass", "0.6000", "+0.4000 … +0.9000", "0", "100"]
    assert cells(text, "metrics") == ["all", "0.2345", "0.3456"]
    assert cells(text, "ledger")[4] == "control 50%, treatment 30%, other 20%"
    assert cells(text, "health")[:6] == ["0", "catalogue", "75.0%", "4", "11.5", "0.910"]
    assert cells(text, "effect") == ["purchases", "1.25", "1.29", "+0.04", "+0.01 … +0.07", "12,345"]
    assert "<a href='../reports/2010-09-20-fit/report.html'>" in text


def test_it_says_whom_it_answers_now(book: Ledger) -> None:
    """A live row counts; a promise in the ledger does not."""
    before = body(page(book))
    desired = book.desired()
    assert desired is not None
    book.record_live(desired, who="deploy", why="x")
    after = body(page(book))

    assert "Nothing is live." in before
    assert "Revision 1 is live since" in after
    assert "this bundle answers 30% of users." in after


def test_plots_are_drawn_and_nothing_is_fetched(book: Ledger) -> None:
    """Gates, shares, codes and weeks; Plotly's code is in the page."""
    text = page(book)

    assert re.findall(r'id="plot-(\w+)"', text) == ["gates", "shares", "usage", "weeks"]
    assert "<script src=" not in text
    assert "<link" not in text


def test_data_is_text(book: Ledger) -> None:
    """A recipe's name or a sentence that is a script is shown, not run."""
    assert EVIL not in page(book)


def test_what_is_not_there_is_said() -> None:
    """A folder outside the registry, without ledger, reports or codebook, still has its page."""
    text = body(page(verdict=None, health=None, drift=[], readout=None))

    assert "No verdict" in text
    assert "Nobody has: the ledger does not name it." in text
    assert "next: sidrec drift report" in text


def test_a_bundle_that_failed_looks_like_it() -> None:
    """The verdict's sentence stands in red."""
    failed = verdict(*GATES[:2], gate("serving", "fail"))

    assert "<div class='say bad'>" in page(verdict=failed)


@pytest.mark.parametrize("change", [{"bundle_id": ref(2).bundle_id}, {"facts": {}}, {"drift": []}])
def test_equal_releases_have_equal_pages(change: dict[str, Any], book: Ledger) -> None:
    """Byte by byte; another bundle's differs."""
    assert page(book) == page(book)
    assert page(book) != page(book, **change)
