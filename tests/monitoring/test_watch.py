"""From a verdict to a real message on loopback: once an incident, with its end."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring import heartbeat, incidents, textfile, watch
from monitoring.alerts import AlertConfig, Target
from monitoring.findings import Cause
from tests.monitoring.alert_world import TREATMENT, finding, listening, suspect, verdict

NOW = datetime(2010, 9, 27, 3, tzinfo=UTC)
CONFIG = AlertConfig(targets=(Target(name="oncall", url_env="SIDREC_ALERT_URL"),))
COLLAPSED = finding("served/0/normalised_entropy", "alarm", effect=0.5)
WELL = finding("served/0/normalised_entropy", "ok")
SICK = verdict(COLLAPSED, suspects=(suspect("codes_collapsed", "alarm", COLLAPSED),))


def test_an_incident_is_told_once_and_its_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven runs, four of them after the fault is gone: a real HTTP listener hears two messages."""
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        for day in range(7):
            watch.of_verdict(SICK, CONFIG, now=NOW + timedelta(days=day))
        for day in range(7, 11):
            watch.of_verdict(verdict(WELL), CONFIG, now=NOW + timedelta(days=day))

    assert heard.titles == [
        "sidrec alarm: codes collapsed: 1 measures of treatment, control is flat",
        "sidrec: over: codes collapsed: 1 measures of treatment, control is flat",
    ]
    assert heard.fields(0) == {
        "what": "codes collapsed: 1 measures of treatment, control is flat",
        "since": "2010-09-20 (incident opened 2010-09-27 03:00 UTC)",
        "arm": "treatment",
        "bundle": TREATMENT,
        "suspects": "codes_collapsed (sid, treatment)",
        "first": "sidrec drift triage",
        "runbook": "docs/runbooks/drift.md#codes-collapsed",
    }


def test_one_fault_is_one_incident_however_many_measures_it_moves() -> None:
    """Ten findings that one suspect explains make one signal; one that none explains makes its own."""
    moved = [finding(f"served/{level}/normalised_entropy", "alarm", effect=0.5) for level in range(10)]
    alone = finding("top_score", "warn", area="decoder", effect=0.3)

    signals = watch.signals(verdict(*moved, alone, suspects=(suspect("codes_collapsed", "alarm", *moved),)), CONFIG)

    assert [signal.key for signal in signals] == [
        "drift:fit:codes_collapsed@treatment",
        "drift:fit:top_score@treatment",
    ]


@pytest.mark.parametrize("later", [verdict(), verdict(finding(COLLAPSED.name, "insufficient"))])
def test_too_few_rows_are_no_recovery(later: object) -> None:
    """A week that says nothing of the arm leaves its incident open."""
    state = incidents.observe(incidents.State(), watch.signals(SICK, CONFIG), set(), now=NOW, recover_after=2)

    assert not watch.clear(later, state, set())  # type: ignore[arg-type]


def test_another_reference_is_another_question() -> None:
    """A report against the last weeks neither opens nor ends an incident of the report against the fit."""
    state = incidents.observe(incidents.State(), watch.signals(SICK, CONFIG), set(), now=NOW, recover_after=2)

    assert watch.clear(verdict(WELL), state, set()) == {"drift:fit:codes_collapsed@treatment"}
    assert not watch.clear(verdict(WELL, reference="recent"), state, set())


def test_an_arm_that_was_stopped_is_well() -> None:
    """Nobody is answered by it any more, so its incident ends."""
    state = incidents.observe(incidents.State(), watch.signals(SICK, CONFIG), set(), now=NOW, recover_after=2)
    without = verdict().model_copy(update={"bundle_ids": {"control": "b-000000000001"}})

    assert watch.clear(without, state, set()) == {"drift:fit:codes_collapsed@treatment"}


def test_a_silent_pipeline_is_told_once_and_its_first_success_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the schedule and somebody hears of it; start it again and they hear of that, at once."""
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        heartbeat.beat("monitoring", now=NOW)
        for hours in (1, 25, 27, 28, 51):
            watch.of_heartbeats(CONFIG, now=NOW + timedelta(hours=hours))
        heartbeat.beat("monitoring", now=NOW + timedelta(hours=52))
        watch.of_heartbeats(CONFIG, now=NOW + timedelta(hours=53))

    assert heard.titles == [
        "sidrec alarm: no successful run of monitoring in 26 h: the last one ended 27 h ago",
        "sidrec: over: no successful run of monitoring in 26 h: the last one ended 51 h ago",
    ]


def test_a_target_without_an_address_is_said_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten variable costs its own messages only, and is named."""
    both = AlertConfig(targets=(*CONFIG.targets, Target(name="tickets", url_env="SIDREC_NOWHERE", level="warn")))
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        told = watch.of_verdict(SICK, both, now=NOW)

    assert len(heard.told) == 1
    assert told.absent == ("target tickets has no address: variable SIDREC_NOWHERE holds none",)


def test_a_message_that_failed_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that refuses is named, leaves no stamp, and is told by the next run."""
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        heard.answer = 500
        told = watch.of_verdict(SICK, CONFIG, now=NOW)
        stamps = heartbeat.stamps()
        heard.answer = 200
        watch.of_verdict(SICK, CONFIG, now=NOW)

    assert told.failed == ("oncall: it did not take the message; the next run tries again",)
    assert not stamps
    assert len(heard.told) == 1


def test_a_run_leaves_its_stamp_and_its_numbers_for_prometheus() -> None:
    """The textfile has the success, the open incident, and each finding's effect beside its threshold."""
    watch.of_verdict(SICK, CONFIG, now=NOW)
    families = text_string_to_metric_families(textfile.path().read_text())
    samples = {(sample.name, sample.labels.get("arm")): sample for family in families for sample in family.samples}

    assert heartbeat.stamps() == {"monitoring": NOW}
    assert samples["sidrec_last_success_timestamp_seconds", None].value == NOW.timestamp()
    assert samples["sidrec_drift_effect", "treatment"].value == 0.5
    assert samples["sidrec_drift_threshold", "treatment"].value == 0.2
    assert samples["sidrec_incident_open", "treatment"].labels["key"] == "drift:fit:codes_collapsed@treatment"


def test_every_link_of_a_message_leads_somewhere(project_root: Path) -> None:
    """Each cause, and a silent pipeline, has its heading on the page that messages link to."""
    page = (project_root / AlertConfig().runbooks).read_text()
    headings = [line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")]
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading).replace(" ", "-") for heading in headings}

    assert {cause.replace("_", "-") for cause in get_args(Cause)} | {"no-successful-run"} <= anchors
