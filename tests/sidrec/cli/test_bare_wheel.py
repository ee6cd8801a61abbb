"""What the library's wheel can do on its own, and what says that it needs the application."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.codebook_world import sealed_codebook, titled_items
from tests.serving.world import make_bundle

ROOT = Path(__file__).parents[3]
# The command line where neither the application's folders nor any platform can be imported.
BARE = """
import sys
ABSENT = ("benchmarks", "components", "pipelines", "serving", "monitoring", "feature_repo",
          "kfp", "feast", "great_expectations", "bentoml", "evidently", "sqlalchemy", "psycopg")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from sidrec.cli.main import main
sys.exit(main())
"""


def bare(home: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    """Return a command's exit status and what it printed with --json."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments, "--json"],
        cwd=ROOT,
        env={**os.environ, "SIDREC_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    value: dict[str, object] = json.loads(done.stdout)
    return done.returncode, value


def test_the_ledger_needs_no_application(own_state: Path) -> None:
    """An auditor verifies an export with the wheel alone; a database takes the extra, and the error names it."""
    export = str(ROOT / "tests" / "golden" / "ledger_v1.jsonl")
    (own_state / "ledger").mkdir(parents=True)

    assert bare(own_state, "ledger", "show") == (0, {"path": ANY, "head": "0" * 64, "rows": []})
    assert bare(own_state, "ledger", "verify", "--file", export)[1]["rows"] == 5

    (own_state / "ledger" / "ledger.db").touch()
    code, error = bare(own_state, "ledger", "verify")

    assert code == 2
    assert "--file" in str(error["next"])


def test_a_bundle_folder_is_verified_by_the_wheel_alone(own_state: Path, tmp_path: Path) -> None:
    """Every digest of a bundle in a folder is checked without a registry."""
    bundle = make_bundle(tmp_path / "made")

    assert bare(own_state, "bundle", "verify", str(bundle.folder))[0] == 0


def test_codebooks_in_folders_need_no_application(own_state: Path, tmp_path: Path) -> None:
    """A researcher with the wheel alone appends items, compares, looks at health and asks why."""
    items = titled_items()
    folder = sealed_codebook(items, tmp_path / "codebook")
    items.write_parquet(tmp_path / "items.parquet")
    made = ("sid", "append", str(folder), "--items", str(tmp_path / "items.parquet"), "--out", str(tmp_path / "next"))

    assert bare(own_state, *made)[0] == 0
    assert bare(own_state, "sid", "diff", str(folder), str(tmp_path / "next"))[0] == 0
    assert bare(own_state, "sid", "health", str(folder))[0] == 0
    assert bare(own_state, "sid", "explain", items["item_id"][0], "--in", str(folder))[0] == 0


def test_the_doctor_says_what_a_bare_wheel_lacks(own_state: Path) -> None:
    """The doctor runs to its end and finds the application missing."""
    code, report = bare(own_state, "doctor")

    assert code == 1
    assert not report["ok"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--recipe", "pipelines/recipes/s2gr_debug.yaml"),
        ("status",),
        ("serve",),
        ("stop",),
        ("deploy",),
        ("recommend", "--user", "1"),
        ("drift", "report"),
        ("drift", "triage"),
        ("drift", "alert"),
        ("dashboards",),
        ("replay", "--from", "2010-11-01", "--to", "2010-11-01"),
        ("bundle", "list"),
        ("promote", "b-000000000000", "--reason", "x"),
        ("approve", "--reason", "x"),
        ("sid", "health", "b-000000000000"),
        ("bench", "codebook"),
        ("ab", "readout", "plan.yaml"),
        ("schedule", "diff", "--url", "http://127.0.0.1:1"),
        ("train-job", "--recipe", "pipelines/recipes/s2gr_debug.yaml"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_the_rest_says_that_it_needs_the_application(arguments: tuple[str, ...], own_state: Path) -> None:
    """A command of the application exits 2 and names what is missing, in one line."""
    code, error = bare(own_state, *arguments)

    assert code == 2
    assert "application" in str(error["message"])
