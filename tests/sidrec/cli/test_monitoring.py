"""`drift`, `replay`, `events` and `dashboards` as people and scripts call them."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import typer

from serving.triton.server import TritonServer, free_port
from sidrec import exposure, files, home, outcome
from sidrec.bundle import Bundle, write_bundle
from sidrec.cli import monitoring
from sidrec.client import RecommendClient
from sidrec.errors import ServingError, UsageError
from tests import feature_world
from tests.monitoring.conftest import recipe, retail, world
from tests.monitoring.drift_world import World, at, bought, exposed, write_exposures, write_outcomes
from tests.serving.conftest import publish, wait_answer
from tests.serving.world import make_bundle, make_revision

__all__ = ["recipe", "retail", "world"]

MONDAY = date(2010, 11, 1)
ITEMS = [f"i{number}" for number in range(16)]


def call(*arguments: str) -> int:
    """Run a command as `sidrec` does and return its exit status."""
    app = typer.Typer()
    monitoring.mount(app)
    result = app(args=list(arguments), standalone_mode=False)
    return result if isinstance(result, int) else 0


@pytest.fixture
def bundle(world: World, project_root: Path, tmp_path: Path) -> Bundle:
    """A bundle whose recipe needs 300 purchases for a verdict."""
    text = (project_root / "pipelines" / "recipes" / "s2gr_retail.yaml").read_text()
    small = tmp_path / "recipe.yaml"
    small.write_text(text.replace("monitoring: {}", "monitoring: {min_events: 300}"))
    parts = {"recipe.yaml": small, "catalogue.parquet": world.bundle / "catalogue.parquet"}
    return write_bundle(tmp_path / "packed", parts, {})


def week(items: list[str]) -> None:
    """Write a week in which 60 customers ask once and buy eight items each."""
    shown = [exposed(f"r{user}", f"u{user}", at(MONDAY, user), ITEMS[:4]) for user in range(60)]
    write_exposures(shown)
    write_outcomes([bought(f"u{user}", item, at(MONDAY, user + 1)) for user in range(60) for item in items])


def drift(world: World, bundle: Bundle, *arguments: str) -> int:
    return call("drift", "report", "--bundle", str(bundle.folder), "--baskets", str(world.baskets), *arguments)


@pytest.mark.parametrize(
    ("items", "status", "level"),
    [
        (ITEMS, 0, "ok"),
        (["new1", "new2", "new3", *ITEMS[:3]], 1, "alarm"),
        (ITEMS[:2], 3, "insufficient"),
    ],
)
def test_the_exit_status_is_the_verdict(
    world: World, bundle: Bundle, items: list[str], status: int, level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 ok, 1 alarm, 3 too little data; --json prints one object that says the same."""
    week(items)

    assert drift(world, bundle, "--json") == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["level"] == level
    assert Path(printed["html"]).stat().st_size > 10_000


def test_a_person_reads_the_verdict_first(
    world: World, bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line is the sentence; where the page lies comes last."""
    monkeypatch.setenv("COLUMNS", "300")
    week(ITEMS)

    drift(world, bundle)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok: 960 purchases of 2010-11-01..2010-11-07")
    assert "report.html" in lines[-1]


def test_no_traffic_is_insufficient_and_names_the_next_step(
    world: World, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first request there is a verdict, not a traceback."""
    assert drift(world, bundle) == 3
    assert "sidrec replay" in capsys.readouterr().out


def test_nothing_served_and_nothing_promoted_is_a_usage_error() -> None:
    """Without a bundle there are no codes and no reference; the error says what makes one."""
    with pytest.raises(UsageError, match="nothing is promoted") as error:
        call("drift", "report")

    assert "sidrec promote" in str(error.value.next_step)


def test_baskets_are_those_of_the_run_that_made_the_bundle(tmp_path: Path) -> None:
    """A newer run of another bundle has other baskets, which are not this bundle's reference."""
    for number, name in enumerate(["mine", "other", "failed"]):
        result = {"bundle_id": f"b-{name}", "baskets": str(tmp_path / name)} if name != "failed" else {"result": name}
        path = home.runs_dir() / name / "result.json"
        files.write_json_atomic(path, result)
        os.utime(path, (number, number))

    assert monitoring._baskets_of_run("b-mine") == tmp_path / "mine"
    assert monitoring._baskets_of_run(None) == tmp_path / "other"
    with pytest.raises(UsageError, match="no run here made bundle b-unknown"):
        monitoring._baskets_of_run("b-unknown")


def test_a_replay_without_a_server_says_how_to_start_one(retail: Path) -> None:
    """Nothing is pushed when nobody can answer."""
    with pytest.raises(ServingError, match="no server runs here"):
        call("replay", "--from", "2010-11-01", "--to", "2010-11-01", "--baskets", str(retail))

    assert outcome.read(home.outcomes_dir()).is_empty()


def test_days_without_baskets_are_a_usage_error(retail: Path) -> None:
    """After `as_of` the basket table is empty, whatever the raw file holds."""
    with pytest.raises(UsageError, match="no basket from 2010-12-01"):
        call("replay", "--from", "2010-12-01", "--to", "2010-12-09", "--baskets", str(retail))


def test_events_are_pushed_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is recorded once, however often it is sent."""
    feature_world.make_store(tmp_path)
    file = tmp_path / "events.csv"
    file.write_text("event_id,user_id,item_id,event_time\ne1,u1,i1,1288600000\ne2,u1,i2,1288600060\n")

    call("events", "push", str(file), "--json")
    first = json.loads(capsys.readouterr().out)
    call("events", "push", str(file), "--json")
    second = json.loads(capsys.readouterr().out)

    assert (first, second) == (
        {"sent": 2, "new": 2, "duplicates": 0},
        {"sent": 2, "new": 0, "duplicates": 2},
    )


def test_a_replay_through_the_real_server_feeds_the_report(
    tmp_path: Path, own_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real Triton over a real feature store: requests are logged under the event clock, purchases are recorded, and
    a second replay adds no request and no purchase."""
    feature_world.make_store(tmp_path)
    packed = make_bundle(tmp_path)
    publish(home.triton_repository_dir(), make_revision(1, packed), packed)
    server = TritonServer(home.triton_repository_dir(), own_state, tmp_path / "log", free_port(), free_port())
    server.start()
    try:
        with RecommendClient(server.url, timeout_s=10) as client:
            wait_answer(server.running, client)
        days = ["--from", "2010-11-01", "--to", "2010-11-03", "--baskets", str(tmp_path / "baskets")]
        call("replay", *days, "--grpc", server.url, "--json")
        first = json.loads(capsys.readouterr().out)
        call("replay", *days, "--grpc", server.url, "--json")
        second = json.loads(capsys.readouterr().out)
    finally:
        server.stop()
    rows = exposure.read(home.exposures_dir())
    asked = feature_world.baskets().filter(pl.col("day").is_between(date(2010, 11, 1), date(2010, 11, 3)))

    assert (first["requests"], first["errors"], first["logged"]) == (asked.height, 0, asked.height)
    assert first["purchases"] == first["new_purchases"] == asked["item_ids"].list.len().sum()
    assert (second["requests"], second["new_purchases"]) == (asked.height, 0)
    assert rows["request_id"].n_unique() == asked.height
    assert sorted(rows["event_time"].unique()) == sorted((asked["time"] - 1).unique())
    histories = rows.group_by("request_id").agg(pl.col("history_length").n_unique())
    assert (histories["history_length"] == 1).all()


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_dashboards_serve_until_interrupted(
    world: World, bundle: Bundle, project_root: Path, ended_by: signal.Signals
) -> None:
    """The command prints its address, answers there, and takes the page with it when it is interrupted."""
    week(ITEMS)
    drift(world, bundle)
    port = free_port()
    code = (
        "import sys, typer; from sidrec.cli import monitoring; app = typer.Typer(); monitoring.mount(app); "
        f"sys.exit(app(args=['dashboards', '--port', '{port}', '--json'], standalone_mode=False))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=project_root)
    assert process.stdout is not None
    try:
        text = b"".join(iter(process.stdout.readline, b"}\n"))
        url = json.loads(text + b"}")["url"]
        with urllib.request.urlopen(f"{url}/api/projects", timeout=10) as response:
            projects = json.load(response)
    finally:
        process.send_signal(ended_by)
        status = process.wait(30)

    assert status == 0
    assert "sidrec" in {project["name"] for project in projects}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/api/projects", timeout=10)


def test_calibration_writes_what_reports_read(world: World, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty windows are too few to promise 5 %: exit 1, nothing written; 200 are enough."""
    from monitoring import thresholds
    from tests.monitoring import fault_world

    fault_world.write(fault_world.requests(), fault_world.purchases())
    thresholds.local_path().unlink()
    options = ["--bundle", str(bundle.folder), "--baskets", str(world.baskets), "--json"]

    few = call("drift", "calibrate", "--windows", "20", *options)
    seen = json.loads(capsys.readouterr().out)

    assert (few, seen["within_budget"], thresholds.local_path().exists()) == (1, False, False)
    assert call("drift", "calibrate", "--windows", "100", *options) == 0
    assert thresholds.load().calibration is not None
