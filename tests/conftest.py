"""What every test gets: its own state folder, one torch thread, no telemetry."""

import gc
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shapes in signatures are checked while tests run, and cost nothing in production.
SHAPED = [
    "sidrec.nn",
    "sidrec.quantization",
    "sidrec.decoding.token_sets",
    *(f"sidrec.experiment.{module}" for module in ("sample_ratio", "sequence")),
    "sidrec.training.grpo",
    "sidrec.systems.s2gr.model",
    "sidrec.systems.s2gr.losses",
    *(f"sidrec.systems.reg4rec.{module}" for module in ("categories", "horizon", "losses", "model", "order", "prior")),
    *(f"sidrec.systems.reg4rec.{module}" for module in ("rewards", "rollout", "search", "steps")),
    *(
        f"sidrec.systems.sidreasoner.{module}"
        for module in ("align", "batches", "rewards", "sampler", "samples", "sft", "writing")
    ),
]
install_import_hook(SHAPED, "beartype.beartype")

for name in ("DO_NOT_TRACK", "GX_ANALYTICS_ENABLED", "BENTOML_DO_NOT_TRACK"):
    os.environ[name] = "false" if name == "GX_ANALYTICS_ENABLED" else "True"
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    """What all tests imported stays: a collection that looks at none of it takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a state folder of its own, so none sees another's."""
    home = tmp_path / "home"
    monkeypatch.setenv("SIDREC_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT
