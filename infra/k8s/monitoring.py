"""Wraps `infra/monitoring/` for a cluster: rule files as PrometheusRules, dashboards as what Grafana's sidecar loads.

`python infra/k8s/monitoring.py` writes `base/monitoring/generated.yaml`; a test fails where that is not what it says.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SOURCE = HERE.parent / "monitoring"
TARGET = HERE / "base" / "monitoring" / "generated.yaml"
RULES = ("recorded", "rules")
DASHBOARDS = ("grafana",)


def generated(source: Path = SOURCE) -> str:
    """Return the objects of every source file that is there, as one YAML text."""
    objects: list[dict[str, Any]] = []
    for name in RULES:
        path = source / f"{name}.yaml"
        if path.exists():
            groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
            objects.append(
                {
                    "apiVersion": "monitoring.coreos.com/v1",
                    "kind": "PrometheusRule",
                    "metadata": {"name": f"sidrec-{name}"},
                    "spec": {"groups": groups},
                }
            )
    for name in DASHBOARDS:
        path = source / f"{name}.json"
        if path.exists():
            # Read and written again: a file that is no JSON fails here rather than in Grafana.
            text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
            labels = {"grafana_dashboard": "1"}
            metadata = {"name": f"sidrec-dashboard-{name}", "labels": labels}
            objects.append(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {f"sidrec-{name}.json": text}}
            )
    head = "# Written by infra/k8s/monitoring.py from infra/monitoring/; edit there.\n"
    return head + yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
    sys.stdout.write(f"{TARGET.relative_to(HERE.parents[1])}\n")
