"""Runs the training pipeline under KFP's local runner; started as a process of its own by `sidrec run`.

The pipeline object is the one that compiles for a cluster.
"""

import argparse
import os
import sys
from pathlib import Path

from kfp import local

from pipelines.training import training
from sidrec.process import die_with_parent


def run_training(folder: Path, champion: str) -> None:
    """Run the pipeline on `folder/recipe.yaml`; KFP's own records go to `folder/kfp`.

    Raises:
        RuntimeError: a step failed; its own reason is in the step log.
    """
    # KFP starts each step as `python3` of the PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"), raise_on_error=True)
    training(recipe=(folder / "recipe.yaml").read_text(encoding="utf-8"), champion=champion)


def main() -> None:
    """Parse the call and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--champion", default="")
    call = parser.parse_args()
    die_with_parent("pipeline")
    run_training(call.folder, call.champion)


if __name__ == "__main__":
    main()
