"""A pipeline ends with a candidate in the registry, or with the gate that said no."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from components.register.run import run, still_holds
from serving import registry
from sidrec import files, home
from sidrec.bundle import Bundle
from sidrec.errors import VerdictError
from tests.release_world import gate, make_bundle, make_signed, recipe


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "packaged")


def register(bundle: Bundle, folder: Path) -> dict[str, Any]:
    return run(recipe(), {"bundle": bundle.folder, "verdict": folder / "verdict"}, folder)


@pytest.mark.parametrize("result", ["pass", "inconclusive"])
def test_a_candidate_is_registered_with_its_result(bundle: Bundle, tmp_path: Path, result: Any) -> None:
    """Pass and inconclusive go into the registry, labelled; the ledger does not come into being."""
    make_signed(bundle, tmp_path / "verdict", [gate("codebook"), gate("quality", result), gate("serving")])
    summary = register(bundle, tmp_path)
    entry = registry.find(bundle.bundle_id)

    assert entry is not None
    assert entry.labels == {"kind": "popularity", "result": result, "recipe": "popularity_retail"}
    assert summary == {"tag": f"sidrec:{bundle.bundle_id}", "bundle_id": bundle.bundle_id, "result": result}
    assert files.read_json(tmp_path / "registration")["sha256"] == bundle.sha256
    assert not home.ledger_path().parent.exists()


def test_a_system_without_a_codebook_is_registered_beside_a_feature_store(bundle: Bundle, tmp_path: Path) -> None:
    """A popularity bundle's codebook has no lineage, so the store gets no semantic IDs, and the run is whole."""
    home.feast_dir().mkdir(parents=True)
    make_signed(bundle, tmp_path / "verdict")

    assert "rows" not in register(bundle, tmp_path)


def test_a_failing_verdict_is_refused_by_name(bundle: Bundle, tmp_path: Path) -> None:
    """The error names the gate, what it saw and the file that shows it; the registry stays empty."""
    gates = [gate("codebook"), gate("quality", "fail", check="beats_global_popularity"), gate("serving")]
    make_signed(bundle, tmp_path / "verdict", gates)

    with pytest.raises(VerdictError, match=r"quality/beats_global_popularity.*quality says fail") as refused:
        register(bundle, tmp_path)
    assert refused.value.evidence == str(tmp_path / "verdict")
    assert registry.entries() == []


def test_a_verdict_on_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A pass earned by one bundle registers no other."""
    make_signed(make_bundle(tmp_path / "other", seed=1), tmp_path / "verdict")

    with pytest.raises(VerdictError, match="is about"):
        register(bundle, tmp_path)
    assert registry.entries() == []


def test_the_effect_is_looked_at_before_the_step_is_reused(bundle: Bundle, tmp_path: Path) -> None:
    """A finished step counts while the registry still holds what it put there, whole."""
    make_signed(bundle, tmp_path / "verdict")
    register(bundle, tmp_path)
    kept = still_holds(tmp_path)
    weights = registry.bundle_folder(bundle.bundle_id) / "weights.safetensors"
    weights.write_bytes(b"changed")
    tampered = still_holds(tmp_path)
    shutil.rmtree(home.registry_dir())
    lost = still_holds(tmp_path)
    register(bundle, tmp_path)

    assert (kept, tampered, lost, still_holds(tmp_path)) == (True, False, False, True)
