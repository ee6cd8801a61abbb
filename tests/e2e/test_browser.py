"""What a person sees in a real browser is what the reports say, and nothing is fetched from anywhere else."""

import json
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from infra.browser import INSTALL, absent, browser
from monitoring import findings, report, ui
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.cli.main import main
from sidrec.recipe import load_recipe
from tests.monitoring.conftest import world
from tests.monitoring.drift_world import World, at, bought, exposed, write_exposures, write_outcomes
from tests.page_world import OBSERVED, promoted

__all__ = ["world"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(absent()), reason=f"no {' and no '.join(absent())} here: {INSTALL}"),
]
MONDAY = date(2010, 11, 1)
_WAIT_S = 60


@dataclass(frozen=True)
class Shown:
    """One reported week of a promoted bundle."""

    bundle: Bundle
    folder: Path
    verdict: dict[str, Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[WebDriver]:
    with browser() as driver:
        yield driver


@pytest.fixture
def shown(tmp_path: Path, world: World, project_root: Path) -> Shown:
    """A week of 300 requests by a promoted bundle, and 4,800 purchases of which a quarter is new."""
    (tmp_path / "made").mkdir()
    bundle = promoted(tmp_path / "made")
    (world.bundle / "manifest.json").write_text(json.dumps({"bundle_id": bundle.bundle_id}))
    items = [f"i{number}" for number in range(16)]
    write_exposures(
        [exposed(f"r{user}", f"u{user}", at(MONDAY, user), items[:4], arm="champion", bundle_id=bundle.bundle_id)
         for user in range(300)]
    )  # fmt: skip
    write_outcomes(
        [bought(f"u{user}", f"new{item}" if item % 4 == 0 else f"i{item}", at(MONDAY, user + 1))
         for user in range(300) for item in range(16)]
    )  # fmt: skip
    recipe = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[1]
    small = recipe.model_copy(update={"monitoring": recipe.monitoring.model_copy(update={"min_events": 100})})
    sources = report.Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)
    built = report.build(sources, small)
    assert built is not None
    folder = report.report_dir(built)
    return Shown(bundle, folder, report.save(built, small, folder, report.workspace_dir()))


def text_once(driver: WebDriver, holds: Callable[[str], bool]) -> str:
    """Return the page's text as a person sees it, once it holds something."""

    def seen(_: WebDriver) -> str | bool:
        text = driver.find_element(By.TAG_NAME, "body").text
        return text if holds(text) else False

    text: str = WebDriverWait(driver, _WAIT_S).until(seen)
    return text


def fetched(driver: WebDriver) -> set[str]:
    """Return the hosts, or schemes of no host, that pages asked for since the last call."""
    messages = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]  # type: ignore[no-untyped-call]
    urls = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return {re.match(r"\w+:(?://[^/:]*)?", url)[0] for url in urls}  # type: ignore[index]


def severe(driver: WebDriver) -> list[str]:
    """Return the errors that a page's own code wrote since the last call."""
    return [row["message"] for row in driver.get_log("browser") if row["level"] == "SEVERE"]  # type: ignore[no-untyped-call]


def statistic(verdict: dict[str, Any], name: str) -> str:
    """Return a number of the verdict with the three digits that Evidently shows."""
    return f"{verdict['item_drift']['statistics'][name]:.3f}"


def test_the_dashboard_and_its_run_show_the_verdicts_numbers(chromium: WebDriver, shown: Shown) -> None:
    """Counters on the dashboard; sentence, PSI, ratio and counts in the run; the bundle has its own dashboard."""
    with socket.socket() as probe:
        probe.bind((ui.HOST, 0))
        port = probe.getsockname()[1]
    fetched(chromium)
    with ui.serve(report.workspace_dir(), port):
        address = f"http://{ui.HOST}:{port}"
        with urllib.request.urlopen(f"{address}/api/projects") as answer:
            projects = {project["name"]: project["id"] for project in json.load(answer)}
        chromium.get(f"{address}/projects/{projects['sidrec']}")
        board = text_once(chromium, lambda text: "Codes of level 1: perplexity" in text and "purchases" in text)
        chromium.get(f"{address}/projects/{projects['sidrec']}/reports/{shown.verdict['run_id']}")
        run = text_once(chromium, lambda text: "Items bought: PSI" in text)
        chromium.get(f"{address}/projects/{projects['sidrec ' + shown.bundle.bundle_id]}")
        own = text_once(chromium, lambda text: "as champion" in text)
        hosts = fetched(chromium)
    n = shown.verdict["n"]

    assert re.search(r"Verdict: .*\n2\nverdict", board)
    assert f"{n['requests']}\nrequests\n{n['purchases']}\npurchases" in board
    assert shown.verdict["sentence"] in run
    for title, name in (("Items bought: PSI", "psi"), ("Items bought: JS over noise floor", "ratio")):
        assert f"{title}\n{statistic(shown.verdict, name)}" in run
    assert f"Number of requests\n{n['requests']:.3f}" in run
    assert f"{shown.bundle.bundle_id} as champion: answers that are cold" in own
    assert hosts <= {f"http://{ui.HOST}", "data:", "blob:"}


def test_the_reports_page_opens_from_disk(chromium: WebDriver, shown: Shown) -> None:
    """Without any server: the same numbers, and every file that it asks for lies on this disk."""
    fetched(chromium)
    chromium.get((shown.folder / report.HTML).as_uri())
    page = text_once(chromium, lambda text: "Items bought: PSI" in text)

    assert f"Items bought: PSI\n{statistic(shown.verdict, 'psi')}" in page
    assert shown.verdict["sentence"] in page
    assert fetched(chromium) <= {"file://", "data:", "blob:"}


def test_the_release_page_shows_verdict_ledger_and_week(chromium: WebDriver, shown: Shown) -> None:
    """Its tables are the verdict's, the ledger's and the report's; plots are drawn; its link opens the report."""
    assert main(["bundle", "page"]) == 0
    fetched(chromium)
    severe(chromium)
    chromium.get((home.monitoring_dir() / "releases" / f"{shown.bundle.bundle_id}.html").as_uri())
    text = text_once(chromium, lambda text: "How its traffic fares" in text)
    tables = {
        name: chromium.find_element(By.ID, name).text for name in ("verdict", "ledger", "drift", "facts", "health")
    }
    drawn = [plot.size["height"] for plot in chromium.find_elements(By.CSS_SELECTOR, ".plotly-graph-div svg.main-svg")]
    said, errors = fetched(chromium), severe(chromium)
    drift = findings.read(shown.folder)
    chromium.find_element(By.LINK_TEXT, f"{drift.window}, against {drift.reference}").click()
    linked = text_once(chromium, lambda text: "Items bought: PSI" in text)

    assert tables["verdict"].count(f"{OBSERVED:.4f}") == 3
    assert "promote" in tables["ledger"]
    assert "the first one" in tables["ledger"]
    assert shown.bundle.sha256 in tables["facts"]
    assert drift.sentence in tables["drift"]
    assert "Nothing is live." in text
    assert len(drawn) >= 3
    assert min(drawn) > 100
    assert errors == []
    assert said <= {"file://", "data:", "blob:"}
    assert shown.verdict["sentence"] in linked
