"""Every overlay is valid Kubernetes by its published schemas, and breaks none of our rules."""

import copy
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import (
    TrainerV1alpha1TrainingRuntime as TrainingRuntime,
)

from tests.infra import manifest_rules as rules

ROOT = Path(__file__).parents[2]
OVERLAYS = ("laptop-kind", "staging", "production")
KUBERNETES = "1.31"
KUSTOMIZE = next(
    (command for command in (["kubectl", "kustomize"], ["kustomize", "build"]) if shutil.which(command[0])), None
)
pytestmark = pytest.mark.skipif(KUSTOMIZE is None, reason="neither kubectl nor kustomize is installed")


@cache
def rendered(overlay: str) -> str:
    assert KUSTOMIZE is not None
    folder = ROOT / "infra" / "k8s" / "overlays" / overlay
    return subprocess.run([*KUSTOMIZE, str(folder)], check=True, capture_output=True, text=True).stdout


def objects(overlay: str) -> rules.Objects:
    return list(yaml.load_all(rendered(overlay), Loader=yaml.CSafeLoader))


@cache
def monitoring_models() -> dict[str, Any]:
    from cloudcoil.models.prometheus_operator import v1

    return {"ServiceMonitor": v1.ServiceMonitor, "PrometheusRule": v1.PrometheusRule}


def leaves(value: Any, path: str = "") -> set[str]:
    """Return the paths of all values below `value`: what a model that drops unknown keys must give back."""
    if isinstance(value, dict):
        return {leaf for key, below in value.items() for leaf in leaves(below, f"{path}/{key}")}
    if isinstance(value, list):
        return {leaf for index, below in enumerate(value) for leaf in leaves(below, f"{path}/{index}")}
    return {path}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_valid_by_the_published_schemas(overlay: str) -> None:
    """Each object passes Kubernetes' own schema, unknown fields refused; the operator's by its API's models."""
    for found in objects(overlay):
        if found["apiVersion"].startswith("monitoring.coreos.com/"):
            model = monitoring_models()[found["kind"]].model_validate(found)
            unknown = leaves(found) - leaves(model.model_dump(by_alias=True, exclude_none=True, mode="json"))
            assert not unknown, rules.name_of(found)
        elif found["apiVersion"].startswith("trainer.kubeflow.org/"):
            assert not leaves(found) - leaves(TrainingRuntime.from_dict(found).to_dict())
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_breaks_no_rule(overlay: str, rule: Callable[[rules.Objects], list[str]]) -> None:
    """No overlay exposes model control, runs as root, or lacks limits, probes, a policy, a name it uses."""
    assert not rule(objects(overlay))


def test_rules_and_dashboards_are_those_of_the_monitoring_folder() -> None:
    """What Prometheus and Grafana get is what was written, tested and reviewed."""
    spec = importlib.util.spec_from_file_location("k8s_monitoring", ROOT / "infra" / "k8s" / "monitoring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.TARGET.read_text() == module.generated(), "python infra/k8s/monitoring.py"


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_images_are_named_by_digest(overlay: str) -> None:
    """What serves customers, or stands for it, takes no tag that somebody can move."""
    assert not rules.pinned(objects(overlay))


@pytest.mark.parametrize("overlay", ["staging", "production"])
@pytest.mark.parametrize("name", ["triton", "gateway"])
def test_the_grpc_door_speaks_tls(overlay: str, name: str) -> None:
    """Between pods too: server and gateway have certificates, and each asks the other for one."""
    [container] = of(objects(overlay), "Deployment", name)["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}

    assert {"name": "SIDREC_GRPC_TLS", "value": "/tls"} in container["env"]
    assert mounts["/tls"] == "grpc-tls"


def of(found: rules.Objects, kind: str, name: str) -> dict[str, Any]:
    [one] = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return one


def triton(found: rules.Objects) -> dict[str, Any]:
    return of(found, "Deployment", "triton")["spec"]["template"]["spec"]


def without_probe(found: rules.Objects) -> None:
    del triton(found)["containers"][0]["livenessProbe"]


def without_inference(found: rules.Objects) -> None:
    triton(found)["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/v2/health/ready", "port": 8000}}


def as_root(found: rules.Objects) -> None:
    triton(found)["securityContext"]["runAsUser"] = 0


def writable(found: rules.Objects) -> None:
    triton(found)["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False


def without_limit(found: rules.Objects) -> None:
    del triton(found)["containers"][0]["resources"]["limits"]["memory"]


def without_policy(found: rules.Objects) -> None:
    found.remove(of(found, "NetworkPolicy", "triton"))


def without_default_deny(found: rules.Objects) -> None:
    found.remove(of(found, "NetworkPolicy", "default-deny"))


def open_policy(found: rules.Objects) -> None:
    of(found, "NetworkPolicy", "triton")["spec"]["ingress"].append({"ports": [{"port": 8001}]})


def own_server(found: rules.Objects) -> None:
    triton(found)["containers"][0]["command"] = ["tritonserver", "--model-control-mode=explicit"]


def http_door(found: rules.Objects) -> None:
    of(found, "Service", "triton")["spec"]["ports"].append({"name": "http", "port": 8000})


def led_from_outside(found: rules.Objects) -> None:
    backend = of(found, "Ingress", "gateway")["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    backend["service"]["name"] = "triton"


def shared_key(found: rules.Objects) -> None:
    volumes = {volume["name"]: volume for volume in triton(found)["volumes"]}
    del volumes["serving"]["emptyDir"]
    volumes["serving"]["persistentVolumeClaim"] = {"claimName": "sidrec-state"}


def written_secret(found: rules.Objects) -> None:
    triton(found)["containers"][0]["env"].append({"name": "REDIS_PASSWORD", "value": "hunter2"})


def absent_volume(found: rules.Objects) -> None:
    triton(found)["volumes"] = [v for v in triton(found)["volumes"] if v["name"] != "shm"]


def without_surge(found: rules.Objects) -> None:
    of(found, "Deployment", "triton")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = 1


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (without_probe, rules.probes),
        (without_inference, rules.probes),
        (as_root, rules.root),
        (writable, rules.root),
        (without_limit, rules.limits),
        (without_policy, rules.fenced),
        (without_default_deny, rules.fenced),
        (open_policy, rules.fenced),
        (own_server, rules.model_control),
        (http_door, rules.model_control),
        (led_from_outside, rules.model_control),
        (shared_key, rules.model_control),
        (written_secret, rules.secrets),
        (absent_volume, rules.whole),
        (without_surge, rules.rolled),
    ],
    ids=lambda value: value.__name__,
)
def test_a_rule_sees_what_breaks_it(
    spoil: Callable[[rules.Objects], None], rule: Callable[[rules.Objects], list[str]]
) -> None:
    """Each rule finds the fault that it is there for."""
    found = copy.deepcopy(objects("production"))
    spoil(found)

    assert rule(found)


def test_a_misspelt_field_is_refused() -> None:
    """The schemas are strict: a field that Kubernetes would silently drop fails here."""
    found = copy.deepcopy(of(objects("production"), "Deployment", "triton"))
    found["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
