"""The house keeps its own rules."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLATFORMS = ("kfp", "feast", "great_expectations", "bentoml", "tritonclient", "evidently")
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that are loaded after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_loads_neither_torch_nor_a_platform() -> None:
    """`sidrec --help` is instant because it loads nothing heavy."""
    loaded = loaded_after("from sidrec.cli.main import main\nassert main(['--help']) == 0")

    assert loaded.isdisjoint({"torch", "pandas", "polars", *PLATFORMS})


@pytest.mark.parametrize("module", ["sidrec.recommender", "sidrec.bundle", "sidrec.steps", "sidrec.release.verdict"])
def test_library_loads_no_platform(module: str) -> None:
    """The library works where no platform is installed."""
    assert loaded_after(f"import {module}").isdisjoint(PLATFORMS)


def test_every_module_opens_with_a_sentence() -> None:
    """A reader learns from the first line of a module what is true in it."""
    modules = [path for path in TRACKED if path.endswith(".py") and not path.startswith("tests/")]
    bare = [path for path in modules if not (ROOT / path).read_text().lstrip().startswith('"""')]

    assert not bare


def test_no_weights_format_that_runs_code() -> None:
    """Nothing on the load path is a pickle."""
    places = [
        path for path in TRACKED if path.endswith(".py") and path.split("/")[0] in ("src", "serving", "components")
    ]
    forbidden = ("import pickle", "torch.load(", "import joblib", "yaml.load(")
    found = [(path, word) for path in places for word in forbidden if word in (ROOT / path).read_text()]

    assert not found


def test_torch_is_locked_without_a_local_version() -> None:
    """The lock names torch so that a CPU and a CUDA build both satisfy it."""
    lock = (ROOT / "infra" / "locks" / "python-3.11.txt").read_text().splitlines()

    assert "torch==2.13.0" in lock
    assert not [line for line in lock if line.startswith("mlflow")]


def test_every_extra_is_part_of_all() -> None:
    """The laptop's extra installs every part; what benchmarks compare with is no part, and Spark is no laptop's."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [everything] = extras["all"]

    apart = ("all", "dev", "client", "bench", "spark")

    assert not [name for name in extras if name not in apart and name not in everything]


def platforms_of(path: Path) -> set[str]:
    """Return the platforms that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    # Triton's client and its stub module are one platform.
    triton = {"tritonclient", "triton_python_backend_utils"}
    return {("triton" if name in triton else name) for name in names} & {*PLATFORMS, "triton"}


def test_a_file_knows_at_most_one_platform() -> None:
    """Every adapter speaks to one platform; what composes them imports our adapters."""
    files = [path for path in TRACKED if path.endswith(".py") and not path.startswith(("tests/", "benchmarks/"))]
    several = {path: sorted(found) for path in files if len(found := platforms_of(ROOT / path)) > 1}

    assert not several
