"""Rules and dashboard: well-formed, about series that the code exports, leading to a runbook that exists."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import textfile

ROOT = Path(__file__).parents[2]
RULES = ROOT / "infra" / "monitoring" / "rules.yaml"
BOARD = ROOT / "infra" / "monitoring" / "grafana.json"
# Not ours: the pages of a real Triton and a real BentoML are asked for these (tests/serving).
TRITON = {"nv_inference_request_success", "nv_inference_request_duration_us", "nv_inference_queue_duration_us"}
BENTOML = {"bentoml_service_request_duration_seconds_bucket"}
NAME = re.compile(r"\b(?:sidrec|nv|bentoml)_[a-z0-9_]+\b")
PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(BOARD.read_text())["panels"])


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", []))


def named_in(path: str) -> set[str]:
    """Return every metric's name that a module spells as a string of its own."""
    tree = ast.parse((ROOT / path).read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if NAME.fullmatch(text)}


def test_every_series_is_exported_by_the_code() -> None:
    """A rule about a metric that nobody exports would be silent for ever."""
    ours = named_in("serving/triton/metrics.py") | named_in("serving/gateway/service.py") | set(textfile.NAMES)
    used = {name for text in expressions() for name in NAME.findall(text)}

    assert used
    assert used <= ours | TRITON | BENTOML


def test_every_metric_of_ours_that_says_something_is_shown() -> None:
    """A counter that no panel and no rule reads is forgotten; thread counts are for benchmarks."""
    ours = named_in("serving/triton/metrics.py") | named_in("serving/gateway/service.py") | set(textfile.NAMES)
    used = {name for text in expressions() for name in NAME.findall(text)}

    assert ours - used == {"sidrec_gateway", "sidrec_intra_op_threads"}


def test_every_alert_says_what_to_do(project_root: Path) -> None:
    """Severity, summary, first command and a runbook heading that exists."""
    seen = set()
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (project_root / page).read_text(), re.MULTILINE)
        seen.add(rule["alert"])

        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["command"].startswith("sidrec ")
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule["alert"]

    assert len(seen) == len(rules())


def test_panels_have_their_own_place_and_say_what_they_show() -> None:
    """Ids differ, no two panels overlap, and each has its question and a data source that is chosen on the page."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        sources = {target["datasource"]["uid"] for target in panel.get("targets", [])}

        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert sources <= {"${datasource}"}
        taken |= cells

    assert len({panel["id"] for panel in panels()}) == len(panels())


@PROMTOOL
def test_each_alert_fires_and_stays_silent_as_it_should() -> None:
    """Prometheus's own tool runs the rules over series of healthy, absent and sick traffic."""
    done = subprocess.run(
        ["promtool", "test", "rules", str(RULES.with_name("rules_test.yaml"))], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


@PROMTOOL
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    """Prometheus's own parser reads each of them."""
    texts = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    recorded = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(texts)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
