"""Compiles every pipeline for a cluster into `infra/pipelines/`, where a change of one shows in review.

`python -m pipelines.compile` writes; `--check` says what differs and exits 1. Images and sizes are those of
`infra/cluster.yaml`, or of `--cluster FILE` with `--out FOLDER`.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler

from pipelines.cluster import DEFAULT, Cluster, load_cluster
from pipelines.codebook_refresh import codebook_refresh_on
from pipelines.monitoring import monitoring_on
from pipelines.training import training_on
from sidrec import files

PIPELINES: dict[str, Callable[[Cluster | None], Any]] = {
    "training": training_on,
    "codebook_refresh": codebook_refresh_on,
    "monitoring": monitoring_on,
}
OUT = DEFAULT.parent / "pipelines"


def compiled(name: str, cluster: Cluster) -> str:
    """Return a pipeline's YAML: KFP's specification, and what it asks of Kubernetes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(PIPELINES[name](cluster), str(path))
        return path.read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Write or check the compiled pipelines; return 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 where a file is not what it says.")
    parser.add_argument("--cluster", type=Path, default=DEFAULT)
    parser.add_argument("--out", type=Path, default=OUT)
    call = parser.parse_args(arguments)
    cluster = load_cluster(call.cluster)
    stale = []
    for name in PIPELINES:
        path, text = call.out / f"{name}.yaml", compiled(name, cluster)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not call.check:
            files.write_text_atomic(path, text)
        print(f"{path}: {'is not what the pipeline compiles to' if call.check else 'written'}")
    return 1 if stale and call.check else 0


if __name__ == "__main__":
    sys.exit(main())
