"""The story that docs/release-story.md tells, at toy size: what its commands said, what the ledger holds after it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.triton.server import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story") / "home"


@pytest.fixture(scope="module")
def page(home: Path) -> str:
    """The page, written by the script with the debug recipe and a second seed of it."""
    environment = {
        **os.environ,
        "SIDREC_HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "CHAMPION": "pipelines/recipes/s2gr_debug.yaml",
        "PORTS": f"--grpc-port {free_port()} --gateway-port {free_port()}",
    }
    done = subprocess.run(
        ["bash", "infra/release_story.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def ledger(home: Path, *arguments: str) -> Any:
    command = [str(BIN / "sidrec"), "ledger", *arguments, "--json"]
    done = subprocess.run(command, env={**os.environ, "SIDREC_HOME": str(home)}, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_every_move_is_a_row_and_the_chain_holds(home: Path, page: str) -> None:
    """First promotion, start, ramp, stop, promotion, rollback, each followed by a server."""
    rows = ledger(home, "show")["rows"]
    moves = [row["action"] for row in rows if row["action"] != "live"]

    assert moves == ["promote", "ramp", "ramp", "stop", "promote", "rollback"]
    assert len(rows) == 2 * len(moves)
    assert all(row["why"] for row in rows)
    assert {row["who"] for row in rows if row["action"] != "live"} == {"ada"}
    ledger(home, "verify")


def test_what_was_live_at_a_time_is_known_afterwards(home: Path, page: str) -> None:
    """Before the challenger, during the experiment, and after the way back."""
    rows = {row["seq"]: row for row in ledger(home, "show")["rows"]}
    [promoted] = [row for row in rows.values() if row["action"] == "promote" and row["seq"] > 1]

    assert ledger(home, "live", "--at", rows[promoted["seq"]]["time"])["live"]["bundle"] == rows[1]["bundle"]
    assert ledger(home, "live", "--at", rows[promoted["seq"] + 1]["time"])["live"]["bundle"] == promoted["bundle"]
    assert ledger(home, "live")["live"]["bundle"] == rows[1]["bundle"]


def test_the_traffic_was_answered_by_both_arms(home: Path, page: str) -> None:
    """No request failed, and the read-out counts users of both."""
    replayed = page.split("$ sidrec replay", 1)[1].split("```", 1)[0]
    readout = page.split("$ sidrec ab readout", 1)[1].split("```", 1)[0]

    assert re.search(r"\b0 (errors|failed)", replayed), replayed
    assert "champion" in readout
    assert "challenger" in readout
    assert (home / "readout.html").stat().st_size > 10_000
