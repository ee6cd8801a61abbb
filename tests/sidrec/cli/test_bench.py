"""`sidrec bench` names what it measures, exits by what it found, and says how to get the peers."""

import json
import sys
from typing import Any

import pytest

import benchmarks
from sidrec.cli.main import main


def row(met: bool | None) -> dict[str, Any]:
    """Return a row of a report, as the benchmarks make it."""
    measured = {"name": "a vs b", "ours": 1.0, "peer": 2.0, "ratio": 2.0, "goal": ">= 3", "met": met}
    return {**measured, "spread": 0.01, "unit": "s", "notes": "error 1 (peer 1, +0.00%)", "gpu": None}


class Canned:
    """A benchmark that has been run."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def run(self, *, quick: bool) -> dict[str, Any]:
        machine = {"cpu": "C", "threads": 1, "torch": "2", "load_before": 0.1, "load_after": 0.2, "quick": quick}
        return {"machine": machine, "commit": "abc", "results": list(self.rows)}


def canned(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> None:
    monkeypatch.setitem(benchmarks.BENCHMARKS, "canned", "canned rows")
    monkeypatch.setitem(sys.modules, "benchmarks.canned", Canned(*rows))


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` prints what there is, as JSON too, and every name is a module."""
    assert main(["bench", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == benchmarks.BENCHMARKS
    assert main(["bench", "--list"]) == 0
    assert "codebook: " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "speed"]])
def test_an_unknown_benchmark_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No name and a wrong name exit 2 and name what there is."""
    assert main([*arguments, "--json"]) == 2
    assert "codebook" in json.loads(capsys.readouterr().out)["message"]


def test_a_missed_goal_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Met goals and unjudged rows exit 0; one missed goal exits 1, and the report is printed all the same."""
    canned(monkeypatch, row(True), row(None))
    assert main(["bench", "canned", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["machine"]["quick"]
    canned(monkeypatch, row(True), row(False))
    assert main(["bench", "canned", "--json", "--quick"]) == 1
    assert json.loads(capsys.readouterr().out)["machine"]["quick"]
    assert main(["bench", "canned"]) == 1
    assert "2x" in capsys.readouterr().out


def test_missing_peers_name_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without faiss the command exits 2 and says what to install."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    for name in ("codebook", "peers"):
        monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
        monkeypatch.delattr(benchmarks, name, raising=False)

    assert main(["bench", "codebook", "--quick", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert "faiss" in error["message"]
    assert error["next"] == "pip install 'sidrec[bench]'"
