"""Runs a pipeline under KFP's local runner; started as a process of its own by `sidrec run`.

The pipeline objects are the ones that compile for a cluster.
"""

import argparse
import os
import sys
from pathlib import Path

from kfp import local

from pipelines.codebook_refresh import codebook_refresh
from pipelines.training import training
from sidrec.process import die_with_parent

PIPELINES = {"training": training, "codebook_refresh": codebook_refresh}


def run_pipeline(name: str, folder: Path, champion: str) -> None:
    """Run a pipeline on `folder/recipe.yaml`; KFP's own records go to `folder/kfp`.

    A `folder/broken.json` names a fault that the run is given on purpose.

    Raises:
        RuntimeError: a step failed; its own reason is in the step log.
    """
    # KFP starts each step as `python3` of the PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"), raise_on_error=True)
    broken = folder / "broken.json"
    PIPELINES[name](
        recipe=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        champion=champion,
        broken=str(broken) if broken.exists() else "",
    )


def main() -> None:
    """Parse the call and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="training")
    parser.add_argument("--champion", default="")
    call = parser.parse_args()
    die_with_parent("pipeline")
    run_pipeline(call.pipeline, call.folder, call.champion)


if __name__ == "__main__":
    main()
