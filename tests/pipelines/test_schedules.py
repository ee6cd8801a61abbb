"""KFP's recurring runs become those of the file, once, and a schedule that keeps failing is held."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.schedules import Actual, changes, desired, load_schedules
from sidrec.cli.main import main
from sidrec.errors import UsageError
from tests.pipelines.kfp_api import KfpApi, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def api() -> Iterator[KfpApi]:
    with serving(KfpApi()) as served:
        yield served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "schedules.yaml"
    write(path, {"nightly": {}, "weekly": {"cron": "0 0 4 * * 0"}})
    return path


def write(path: Path, schedules: dict[str, dict[str, Any]]) -> None:
    whole = {
        name: {"pipeline": "training", "recipe": "pipelines/recipes/s2gr_debug.yaml", "cron": "0 0 3 * * *", **values}
        for name, values in schedules.items()
    }
    path.write_text(yaml.safe_dump({"experiment": "sidrec", "hold_after_failures": 3, "schedules": whole}))


def call(verb: str, api: KfpApi, file: Path, *more: str) -> int:
    return main(["schedule", verb, "--url", api.url, "--file", str(file), "--json", *more])


def id_of(api: KfpApi, name: str) -> str:
    [found] = [run_id for run_id, run in api.recurring.items() if run.display_name == name]
    return found


def test_applied_twice_is_applied_once(api: KfpApi, file: Path) -> None:
    """The second call changes nothing, and a third that only asks says that nothing differs."""
    assert call("diff", api, file) == 1
    assert call("apply", api, file) == 0
    first = list(api.changed)
    assert call("apply", api, file) == 0

    assert (sorted(first), api.changed) == (["create nightly", "create weekly"], first)
    assert call("diff", api, file) == 0


def test_what_is_made_never_overlaps_and_makes_up_for_nothing(api: KfpApi, file: Path) -> None:
    """One run at a time, no catching up, the recipe's text and the compiled pipeline with its Kubernetes part."""
    call("apply", api, file)
    run = api.recurring[id_of(api, "weekly")]
    spec = run.pipeline_spec

    assert (run.max_concurrency, run.no_catchup, run.status) == ("1", True, "ENABLED")
    assert run.trigger.cron_schedule.cron == "0 0 4 * * 0"
    assert run.runtime_config.parameters["recipe"] == (ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text()
    assert (spec["pipeline_spec"]["pipelineInfo"]["name"], set(spec["platform_spec"])) == (
        "sidrec-training",
        {"platforms"},
    )


def test_another_content_replaces_and_what_left_the_file_goes(api: KfpApi, file: Path) -> None:
    """A recurring run cannot be changed: the old one is deleted before the new one is made."""
    call("apply", api, file)
    api.changed.clear()
    write(file, {"nightly": {"cron": "0 30 3 * * *"}})
    call("apply", api, file)

    assert api.changed == ["delete nightly", "create nightly", "delete weekly"]
    assert [run.display_name for run in api.recurring.values()] == ["nightly"]


def test_runs_of_others_are_left_alone(api: KfpApi, file: Path) -> None:
    """Somebody's own recurring run in the same experiment, even of the same name, is not ours to touch."""
    call("apply", api, file)
    theirs = api.recurring[id_of(api, "weekly")]
    theirs.description = "made in the page by hand"
    api.changed.clear()
    call("apply", api, file)

    assert api.changed == ["create weekly"]
    assert theirs in api.recurring.values()


def test_a_second_one_of_the_same_name_goes(api: KfpApi, file: Path) -> None:
    """Two reconcilers that raced leave one schedule, not two runs of every slot."""
    call("apply", api, file)
    twin = api.recurring[id_of(api, "nightly")]
    api.recurring["recurring-twin"] = type(twin)(**{**twin.to_dict(), "recurring_run_id": "recurring-twin"})
    api.changed.clear()
    call("apply", api, file)

    assert api.changed == ["delete nightly"]


def test_one_that_keeps_failing_is_held_until_something_changes(
    api: KfpApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three failures in a row disable it, said by the exit status each time; a mended recipe starts it anew."""
    call("apply", api, file)
    api.ended(id_of(api, "nightly"), "FAILED", "SUCCEEDED", "FAILED", "CANCELED", "FAILED")
    assert call("apply", api, file) == 0
    api.ended(id_of(api, "nightly"), "FAILED")
    api.changed.clear()
    capsys.readouterr()
    held = call("apply", api, file)
    said = json.loads(capsys.readouterr().out)
    still = call("apply", api, file)

    assert (held, still, api.changed) == (1, 1, ["disable nightly"])
    assert said["changes"][0]["why"] == "its last 3 runs failed"
    write(file, {"nightly": {"recipe": "pipelines/recipes/s2gr_retail.yaml"}, "weekly": {"cron": "0 0 4 * * 0"}})
    assert call("apply", api, file) == 0
    assert api.recurring[id_of(api, "nightly")].status == "ENABLED"


def test_the_file_decides_what_is_enabled(api: KfpApi, file: Path) -> None:
    """What somebody switched off in the page is switched on again; what the file switches off, goes off."""
    call("apply", api, file)
    api.recurring[id_of(api, "nightly")].status = "DISABLED"
    api.changed.clear()
    write(file, {"nightly": {}, "weekly": {"cron": "0 0 4 * * 0", "enabled": False}})
    call("apply", api, file)

    assert sorted(api.changed) == ["disable weekly", "enable nightly"]


def test_a_token_is_sent(file: Path, tmp_path: Path) -> None:
    """With users, KFP wants the service account's token; without it the command says what was answered."""
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    with serving(KfpApi(token="t0ken")) as api:
        refused = call("diff", api, file)
        allowed = call("apply", api, file, "--token", str(token), "--namespace", "sidrec")
        namespaces = {run.namespace for run in api.recurring.values()}

    assert (refused, allowed, namespaces) == (1, 0, {"sidrec"})


def test_no_server_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address where nothing answers is named, and nothing is a traceback."""
    assert main(["schedule", "diff", "--url", "http://127.0.0.1:9", "--file", str(file), "--json"]) == 1
    assert "127.0.0.1:9" in json.loads(capsys.readouterr().out)["message"]


def test_a_refresh_waits_for_something_live() -> None:
    """The shipped schedules: a refresh is off until a bundle is live, and follows it when another one is."""
    shipped = load_schedules()
    before = {one.name: one for one in desired(shipped, champion="")}
    after = {one.name: one for one in desired(shipped, champion="/state/registry/b-1")}

    assert (before["codebook-refresh"].enabled, after["codebook-refresh"].enabled) == (False, True)
    assert before["training"].enabled
    assert after["training"].parameters["champion"] == "/state/registry/b-1"
    assert before["training"].digest != after["training"].digest


def test_runs_are_counted_from_the_last_success() -> None:
    """Only an unbroken row of failures holds."""
    wanted = desired(load_schedules(), champion="x")
    one = wanted[0]

    def of(*ended: bool) -> str:
        actual = Actual("id", one.name, one.description, True, ended)
        return changes([one], [actual], hold_after=3)[0].action

    assert [of(), of(False, False, True), of(False, False, False), of(True, False, False, False)] == [
        "keep",
        "keep",
        "hold",
        "keep",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"cron": "0 3 * * *"}, "six fields"), ({"pipelin": "x"}, "pipelin"), ({"recipe": "nowhere.yaml"}, "nowhere")],
)
def test_an_impossible_schedule_is_refused(change: dict[str, Any], said: str, file: Path) -> None:
    """A cron of five fields, which KFP would read shifted by one, a misspelt key, a recipe that is not there."""
    write(file, {"nightly": change})

    with pytest.raises(UsageError, match=said):
        desired(load_schedules(file), champion="")
