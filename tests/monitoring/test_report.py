"""The whole report on a small world: verdicts, files, the Evidently workspace, and its real page."""

import json
import socket
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from monitoring import report, ui
from monitoring.report import DriftReport, Sources
from sidrec import exposure, home
from sidrec.errors import UsageError
from sidrec.exposure import Exposure
from sidrec.recipe import Recipe
from tests.monitoring.drift_world import BUNDLE_ID, World, at, bought, exposed, write_exposures, write_outcomes

MONDAY = date(2010, 11, 1)
ITEMS = [f"i{number}" for number in range(16)]


@pytest.fixture(scope="module")
def small(recipe: Recipe) -> Recipe:
    """The recipe with limits that a small world reaches."""
    limits = recipe.monitoring.model_copy(update={"min_events": 300, "min_requests": 50})
    return recipe.model_copy(update={"monitoring": limits})


@pytest.fixture
def sources(world: World) -> Sources:
    """The small world's paths, with empty logs."""
    return Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)


def traffic(monday: date, items: list[str]) -> None:
    """Write a week: 120 users a day for five days ask, are shown four items and buy two of `items`."""
    requests, purchases = [], []
    for day in range(5):
        for user in range(120):
            time = at(monday, day * 86_400 + user)
            shown = [ITEMS[(user + step) % 16] for step in range(4)]
            stats = [{"name": "first_slot", "value": float(user % 2)}, {"name": "order_entropy", "value": 0.3}]
            requests.append(exposed(f"{monday}-{day}-{user}", f"u{user}", time, shown, stats=stats))
            purchases += [bought(f"u{user}", items[(user + step) % len(items)], time + 60) for step in range(2)]
    write_exposures(requests)
    write_outcomes(purchases)


def built(sources: Sources, recipe: Recipe, **options: Any) -> DriftReport:
    seen = report.build(sources, recipe, **options)
    assert seen is not None
    return seen


def test_the_same_traffic_is_ok(sources: Sources, small: Recipe) -> None:
    """A week that buys what the fit period bought is ok, and says so with its numbers."""
    traffic(MONDAY, ITEMS)

    seen = built(sources, small)

    assert seen.level == "ok"
    assert seen.sentence.startswith(
        "ok: 1,200 purchases of 2010-11-01..2010-11-07 against the fit period up to 2010-10-"
    )


def test_new_items_alarm(sources: Sources, small: Recipe) -> None:
    """A week of items that the fit period never saw crosses both rules."""
    traffic(MONDAY, ["new1", "new2", *ITEMS[:2]])

    seen = built(sources, small)

    assert seen.level == "alarm"
    assert seen.item_drift.statistics is not None
    assert seen.item_drift.statistics.unseen_share == pytest.approx(0.5)


def test_too_few_purchases_are_insufficient(sources: Sources, recipe: Recipe) -> None:
    """Under the recipe's 5,000 purchases there is no verdict, however far the items have moved."""
    traffic(MONDAY, ["new1"])

    seen = built(sources, recipe)

    assert seen.level == "insufficient"
    assert "600 purchases, the rule needs 5,000" in seen.sentence


def test_the_newest_week_is_reported_unless_another_is_named(sources: Sources, small: Recipe) -> None:
    """Windows are whole weeks; `week` names any day of one."""
    traffic(MONDAY, ITEMS)
    traffic(date(2010, 11, 8), ITEMS)

    assert str(built(sources, small).window) == "2010-11-08..2010-11-14"
    assert str(built(sources, small, week=date(2010, 11, 4)).window) == "2010-11-01..2010-11-07"


def test_a_second_week_is_compared_with_the_first(sources: Sources, small: Recipe) -> None:
    """A first week stands against its own first half; afterwards the weeks before are the reference."""
    traffic(MONDAY, ITEMS)
    first = built(sources, small)
    traffic(date(2010, 11, 8), ITEMS)
    second = built(sources, small)

    assert (first.request_reference.name, second.request_reference.name) == ("first_half", "earlier")
    assert first.as_dict()["n"]["requests"] == 600
    assert first.as_dict()["n"]["compared_requests"] + first.as_dict()["n"]["reference_requests"] == 600
    assert second.as_dict()["n"]["compared_requests"] == second.as_dict()["n"]["reference_requests"] == 600


def test_a_replayed_week_counts_once(sources: Sources, small: Recipe) -> None:
    """Exposures logged again under their request ids change no number."""
    traffic(MONDAY, ITEMS)
    once = built(sources, small).as_dict()
    write_exposures([Exposure(**row) for row in exposure.read(home.exposures_dir()).to_dicts()])

    assert built(sources, small).as_dict() == once


def test_two_weeks_over_a_threshold_warn(sources: Sources, small: Recipe) -> None:
    """Cold answers in one week are shown; in two weeks they warn, though the items bought are the same."""
    for number, source in enumerate(["model", "cold", "cold"]):
        monday = date(2010, 11, 1 + 7 * number)
        times = [at(monday, user) for user in range(120)]
        write_exposures(
            [exposed(f"{monday}{user}", f"u{user}", time, ITEMS[:4], source=source) for user, time in enumerate(times)]
        )
        write_outcomes([bought(f"u{user}", item, time) for user, time in enumerate(times) for item in ITEMS])

    assert built(sources, small, week=date(2010, 11, 8)).level == "ok"
    latest = built(sources, small)
    assert latest.level == "warn"
    assert "source PSI" in latest.sentence
    assert "in 2 of 2 weeks" in latest.sentence


def test_code_usage_is_counted_for_catalogue_served_and_bought(sources: Sources, small: Recipe) -> None:
    """Sixteen items use all four codes of both levels; buying i0 and i4 only uses one code of the first level."""
    traffic(MONDAY, ["i0", "i4"])

    usage = {(one.level, one.traffic): one for one in built(sources, small).usage}

    assert [usage[0, traffic_].used for traffic_ in ("catalogue", "served", "bought")] == [4, 4, 1]
    assert [usage[1, traffic_].used for traffic_ in ("catalogue", "served", "bought")] == [4, 4, 2]
    assert [usage[0, traffic_].largest_share for traffic_ in ("catalogue", "served", "bought")] == pytest.approx(
        [0.25, 0.25, 1.0], abs=0.01
    )
    assert usage[0, "catalogue"].size == small.section("codebook")["codebook_size"]


def test_no_rows_make_no_report(sources: Sources, small: Recipe, tmp_path: Path) -> None:
    """Before any traffic the verdict is insufficient and names the empty folders."""
    assert report.build(sources, small) is None
    verdict = report.no_data(sources, tmp_path / "out")

    assert verdict["level"] == "insufficient"
    assert str(home.exposures_dir()) in verdict["sentence"]


def test_outcomes_without_exposures_still_have_item_drift(sources: Sources, small: Recipe) -> None:
    """Purchases pushed by hand are judged; what needs requests is left out, and nothing divides by zero."""
    write_outcomes([bought(f"u{user}", item, at(MONDAY, user)) for user in range(40) for item in ITEMS])

    seen = built(sources, small)

    assert (seen.level, seen.measures, seen.attribution.hit_rate) == ("ok", (), 0.0)
    report.save(seen, small, report.report_dir(seen), report.workspace_dir())


@pytest.fixture
def saved(sources: Sources, small: Recipe) -> dict[str, Any]:
    """The verdict of a week whose report was saved."""
    traffic(MONDAY, ITEMS)
    seen = built(sources, small)
    return report.save(seen, small, report.report_dir(seen), report.workspace_dir())


def test_page_json_and_verdict_are_written(saved: dict[str, Any]) -> None:
    """The folder of the week has a self-contained page, Evidently's JSON and our verdict."""
    folder = home.monitoring_dir() / "reports" / "2010-11-01-fit"
    metrics = json.loads((folder / report.JSON).read_text())["metrics"]
    values = {metric["metric_name"]: metric["value"] for metric in metrics}
    verdict = json.loads((folder / report.VERDICT).read_text())

    assert verdict == json.loads(json.dumps(saved))
    assert values["ItemDriftStatistic(statistic=psi,seed=0)"] == pytest.approx(
        verdict["item_drift"]["statistics"]["psi"]
    )
    assert values["CodeUsage(traffic=bought,level=1,size=256,statistic=perplexity)"] == pytest.approx(4.0, rel=0.01)
    assert values["SearchNumber(name=first_slot,statistic=mean)"] == pytest.approx(0.5, abs=0.05)
    assert values["SearchNumber(name=first_slot,statistic=entropy)"] == pytest.approx(1.0, abs=0.05)
    assert values["SearchNumber(name=order_entropy,statistic=mean)"] == pytest.approx(0.3)
    assert "Purchases by popularity bin" in (folder / report.HTML).read_text()


def test_a_week_has_one_run_however_often_it_is_reported(
    saved: dict[str, Any], sources: Sources, small: Recipe
) -> None:
    """Reporting again replaces the week's run; another reference is a run of its own."""
    from evidently.ui.workspace import Workspace

    again = built(sources, small)
    report.save(again, small, report.report_dir(again), report.workspace_dir())
    other = built(sources, small, reference="recent")
    report.save(other, small, report.report_dir(other), report.workspace_dir())

    store = Workspace(str(report.workspace_dir()))
    assert [len(store.list_runs(project.id)) for project in store.list_projects()] == [2, 2]


def test_the_page_serves_every_panel_on_loopback(saved: dict[str, Any]) -> None:
    """Evidently's real page starts, lists the project over everything and the bundle's own, and every panel finds at
    least one series of numbers; the bundle's panels find none of another bundle."""
    with socket.socket() as probe:
        probe.bind((ui.HOST, 0))
        port = probe.getsockname()[1]
    empty, titles = [], {}
    with ui.serve(report.workspace_dir(), port) as process:
        for project in _get(port, "/api/projects"):
            series = f"/api/v2/snapshots/{project['id']}/data_series_batch"
            panels = _get(port, f"/api/v2/dashboards/{project['id']}")["panels"]
            empty += [panel["title"] for panel in panels if not _get(port, series, panel["values"])["series"]]
            titles[project["name"]] = [panel["title"] for panel in panels]
            other = [value | {"metadata": {"bundle of control": "b-000000000000"}} for value in panels[-1]["values"]]
            assert not _get(port, series, other)["series"]

    assert set(titles) == {"sidrec", f"sidrec {BUNDLE_ID}"}
    assert {title.partition(":")[0] for title in titles["sidrec"]} >= {"Pipeline s2gr_retail", "Arm control"}
    assert {title.partition(":")[0] for title in titles[f"sidrec {BUNDLE_ID}"]} == {f"{BUNDLE_ID} as control"}
    assert empty == []
    assert process.poll() is not None


def _get(port: int, path: str, series_filter: Any = None) -> Any:
    body = None if series_filter is None else json.dumps({"series_filter": series_filter}).encode()
    request = urllib.request.Request(f"http://{ui.HOST}:{port}{path}", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_a_taken_port_is_a_usage_error(tmp_path: Path) -> None:
    """The page is not started where something else answers."""
    with socket.socket() as other:
        other.bind((ui.HOST, 0))
        other.listen()

        with pytest.raises(UsageError, match="is taken"), ui.serve(tmp_path, other.getsockname()[1]):
            pass
