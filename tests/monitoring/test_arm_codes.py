"""Each arm's codes are counted from its own bundle's answers, served and taken."""

from typing import Any

import polars as pl
import pytest

from monitoring.arm_codes import code_panel, level_sizes
from sidrec import exposure
from sidrec.bundle import write_bundle
from tests.monitoring.conftest import world
from tests.monitoring.drift_world import World, exposed
from tests.monitoring.test_experiment import BUNDLES, REVISION

__all__ = ["world"]


def panel(sizes: dict[int, int] | None = None) -> dict[str, dict[str, Any]]:
    """Two answers of the control (i1 i2, i1 i5), one of the treatment, one that a foreign bundle gave in its name."""
    said = [{"name": "rank", "value": 2.0}]
    own = {"bundle_id": BUNDLES["control"], "arm": "control"}
    other = {"bundle_id": BUNDLES["treatment"], "arm": "treatment"}
    rows = [
        exposed("r1", "ann", 1, ["i1", "i2"], **own, stats=said),
        exposed("r2", "ann", 2, ["i1", "i5"], **own, source="degraded"),
        exposed("r3", "bob", 3, ["i3"], **other),
        exposed("r4", "bob", 4, ["i9"], **{**other, "bundle_id": BUNDLES["control"]}),
    ]
    hits = pl.DataFrame({"request_id": ["r1", "r2", "r2"], "item_id": ["i1", "i5", "i5"]})
    known = {} if sizes is None else {BUNDLES["control"]: sizes}
    return {row["arm"]: row for row in code_panel(exposure.frame(rows).lazy(), hits, REVISION, known)}


def level(row: dict[str, Any], number: int, traffic: str) -> dict[str, Any]:
    return next(one for one in row["levels"] if (one["level"], one["traffic"]) == (number, traffic))


def test_codes_are_counted_as_served_and_as_taken() -> None:
    """Served first codes 1 2 1 1, second 0 0 0 1; taken i1 (1, 0) and i5 (1, 1), which counts once."""
    row = panel({0: 4, 1: 4})["control"]

    assert level(row, 0, "served")["largest_share"] == 0.75
    assert (level(row, 0, "served")["used"], level(row, 0, "served")["utilisation"]) == (2, 0.5)
    assert (level(row, 0, "bought")["events"], level(row, 0, "bought")["entropy"]) == (2, 0.0)
    assert (level(row, 1, "bought")["entropy"], level(row, 1, "bought")["normalised_entropy"]) == (1.0, 0.5)


def test_answers_degradations_and_the_search_s_numbers_are_the_arm_s() -> None:
    """Half of the control's answers were degraded, one said something of its search; the foreign answer is nobody's."""
    rows = panel()

    assert (rows["control"]["requests"], rows["control"]["degraded_share"]) == (2, 0.5)
    assert [(one["name"], one["mean"], one["requests"]) for one in rows["control"]["search"]] == [("rank", 2.0, 1)]
    assert level(rows["treatment"], 0, "served")["events"] == rows["treatment"]["requests"] == 1


def test_without_the_bundle_no_share_of_its_codes_is_known() -> None:
    """Utilisation and normalised entropy need the number of codes; the entropy does not."""
    row = level(panel()["control"], 0, "served")

    assert (row["size"], row["utilisation"], row["normalised_entropy"]) == (None, None, None)
    assert row["entropy"] == pytest.approx(0.8113, abs=1e-4)


def test_a_bundle_tells_its_sizes(world: World, project_root: Any, tmp_path: Any) -> None:
    """The codebook's size where the recipe has one."""
    recipe = project_root / "pipelines" / "recipes" / "s2gr_retail.yaml"
    parts = {"recipe.yaml": recipe, "catalogue.parquet": world.bundle / "catalogue.parquet"}
    bundle = write_bundle(tmp_path / "packed", parts, {})
    size = bundle.recipe.section("codebook")["codebook_size"]  # type: ignore[index]

    assert level_sizes(bundle.folder).sizes == {0: size, 1: size}
