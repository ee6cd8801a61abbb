"""The log that the benchmark writes is a log: the report counts every row of it."""

from pathlib import Path

import pytest

from benchmarks import monitoring as bench
from monitoring import report
from sidrec import home
from sidrec.recipe import load_recipe


def test_every_row_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arms, several segments, five weeks; purchases follow answers."""
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "home"))
    written = bench.write_log(tmp_path, 5_000)
    control, treatment = (tmp_path / bundle_id for bundle_id in bench.BUNDLES.values())
    sources = report.Sources(home.exposures_dir(), home.outcomes_dir(), tmp_path / "baskets", control, (treatment,))

    built = report.build(sources, load_recipe(bench.RECIPE)[1])

    assert built is not None
    n = built.as_dict()["n"]
    assert written == 5_000 == n["compared_requests"] + n["reference_requests"]
    assert {arm["arm"] for arm in built.arms} == set(bench.BUNDLES)
    assert built.attribution.outcomes > 0
    assert built.attribution.by_item > 0
