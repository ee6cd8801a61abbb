"""The ablation pipeline of a study: a task for each cell, side by side, then one table.

A pipeline a study, since its cells are its graph: `python -m pipelines.ablation STUDY --compile FILE` for a cluster
(`--cluster infra/cluster.yaml` gives each cell GPU, image and volumes), `--run --out FOLDER` under the local runner.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl, local

from components.study_cell.component import study_cell
from components.study_table.component import study_table
from pipelines.cluster import Cluster, load_cluster
from pipelines.placement import finishing
from sidrec.study.config import StudyConfig, cells_of, load_study


def ablation(study: StudyConfig, cluster: Cluster | None = None) -> Any:
    """Return the pipeline of a study; its one parameter is the folder that its cells share (a volume on a cluster)."""
    recipe = study.recipe.read_text(encoding="utf-8")
    text = yaml.safe_dump(study.model_dump(mode="json"))

    @dsl.pipeline(name=f"sidrec-ablation-{study.name.replace('_', '-')}", description="Cells of a study, one table.")
    def pipeline(out: str):  # type: ignore[no-untyped-def]
        with finishing(cluster, f"ablation {study.name}", recipe):
            cells = [
                study_cell(study=text, recipe=recipe, variant=variant, seed=seed, out=out).set_display_name(
                    f"{variant} seed {seed}"
                )
                for variant, seed in cells_of(study)
            ]
            study_table(study=text, recipe=recipe, out=out).after(*cells)

    return pipeline


def main() -> None:
    """Compile or run a study's pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--compile", type=Path, help="Write the pipeline's YAML here.")
    parser.add_argument("--cluster", type=Path, help="With --compile: what the cluster gives each step.")
    parser.add_argument("--run", action="store_true", help="Run it here, cell after cell.")
    parser.add_argument("--out", type=Path, help="Folder of the cells.")
    call = parser.parse_args()
    if call.run == (call.compile is not None) or (call.run and call.out is None):
        parser.error("give --compile FILE, or --run with --out FOLDER")
    pipeline = ablation(load_study(call.study), None if call.cluster is None else load_cluster(call.cluster))
    if call.compile is not None:
        compiler.Compiler().compile(pipeline, str(call.compile))
        return
    # KFP starts each step as `python3` of the PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = call.out.absolute() / "kfp"
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    pipeline(out=str(call.out.absolute()))


if __name__ == "__main__":
    main()
