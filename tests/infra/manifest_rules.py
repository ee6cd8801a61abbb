"""What no manifest of ours may break: each rule takes the objects of one overlay and returns what it found wrong."""

import re
from collections.abc import Callable, Iterator
from typing import Any

Objects = list[dict[str, Any]]

# Ports that a door of ours listens on; Triton's HTTP door (8000) is off and stays unnamed.
TRITON_PORTS = {8001, 8002}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [found for found in objects if found["kind"] in kinds]


def name_of(found: dict[str, Any]) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Yield (name, pod spec, labels) of everything that makes pods."""
    for found in of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "TrainingRuntime"):
        spec = found["spec"]
        if found["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if found["kind"] == "TrainingRuntime":
            [job] = spec["template"]["spec"]["replicatedJobs"]
            spec = job["template"]["spec"]
        template = spec["template"]
        yield name_of(found), template["spec"], template["metadata"].get("labels", {})


def containers(objects: Objects) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, pod, _ in pods(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}:{container['name']}", container, pod


def root(objects: Objects) -> list[str]:
    """Nobody runs as root, gains privileges, writes its root file system or shares what is the host's."""
    wrong = []
    for name, pod, _ in pods(objects):
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            wrong.append(f"{name} may run as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            wrong.append(f"{name} has no seccomp profile")
        if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
            wrong.append(f"{name} shares a namespace of the host")
        wrong += [f"{name} mounts the host's {v['name']}" for v in pod.get("volumes", []) if "hostPath" in v]
    for name, container, _ in containers(objects):
        context = container.get("securityContext", {})
        if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False or context.get("privileged"):
            wrong.append(f"{name} may run as root")
        if context.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{name} may gain privileges")
        if context.get("readOnlyRootFilesystem") is not True:
            wrong.append(f"{name} may write its root file system")
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            wrong.append(f"{name} keeps capabilities")
    return wrong


def limits(objects: Objects) -> list[str]:
    """Every container says what it needs and where it ends."""
    return [
        f"{name} has no {kind} of {resource}"
        for name, container, _ in containers(objects)
        for kind in ("requests", "limits")
        for resource in ("cpu", "memory")
        if resource not in container.get("resources", {}).get(kind, {})
    ]


def probes(objects: Objects) -> list[str]:
    """What runs for ever is asked whether it does; Triton by an inference, the gateway by its page that makes one."""
    wrong = []
    lasting = of_kind(objects, "Deployment", "StatefulSet")
    for name, container, _ in containers(lasting):
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                wrong.append(f"{name} has no {probe}")
    for name, container, _ in containers(of_kind(lasting, "Deployment")):
        if name == "Deployment/triton:triton":
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {}).get("exec", {}).get("command", [])
                if "serving.triton.canary" not in asked:
                    wrong.append(f"{name} answers its {probe} without an inference")
        asked_page = container.get("readinessProbe", {}).get("httpGet", {}).get("path")
        if name == "Deployment/gateway:gateway" and asked_page != "/readyz":
            wrong.append(f"{name} is ready without an inference")
    return wrong


def fenced(objects: Objects) -> list[str]:
    """All traffic is denied by default, and every pod has a policy of its own that says from whom it takes calls."""
    policies = [found["spec"] for found in of_kind(objects, "NetworkPolicy")]
    denied = [p for p in policies if p["podSelector"] == {} and not p.get("ingress") and not p.get("egress")]
    wrong = [] if any(set(p["policyTypes"]) == {"Ingress", "Egress"} for p in denied) else ["nothing is denied"]
    for name, _, labels in pods(objects):
        own = [
            p
            for p in policies
            if (chosen := p["podSelector"].get("matchLabels")) and chosen.items() <= labels.items()
            if "Ingress" in p["policyTypes"]
        ]
        if not own:
            wrong.append(f"{name} has no NetworkPolicy")
        wrong += [
            f"{name} takes calls from everybody" for p in own for rule in p.get("ingress", []) if open_to_all(rule)
        ]
    return wrong


def open_to_all(rule: dict[str, Any]) -> bool:
    peers = rule.get("from") or [{}]
    return any(not any(peer.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock")) for peer in peers)


def model_control(objects: Objects) -> list[str]:
    """Nobody outside a Triton pod reaches what loads and unloads models.

    The server itself refuses it to whoever lacks the key of its pod, which the entry point makes; so the entry point
    is never replaced, no other door is opened, and nothing leads from outside the cluster to the server.
    """
    wrong = []
    for name, container, pod in containers(objects):
        runs_triton = "triton" in container["image"].rpartition("/")[2]
        words = " ".join([*container.get("command", []), *container.get("args", [])])
        if runs_triton and "command" in container:
            wrong.append(f"{name} does not start by the image's entry point")
        if "tritonserver" in words or "model-control" in words:
            wrong.append(f"{name} starts a server by itself")
        if runs_triton:
            extra = {port["containerPort"] for port in container.get("ports", [])} - TRITON_PORTS
            wrong += [f"{name} opens port {port}" for port in sorted(extra)]
            serving = [v for v in container["volumeMounts"] if v["mountPath"] == "/state/serving"]
            volumes = {v["name"]: v for v in pod["volumes"]}
            if not serving or "emptyDir" not in volumes[serving[0]["name"]]:
                wrong.append(f"{name} shares the folder of its admin key")
    for service in of_kind(objects, "Service"):
        if service["spec"].get("selector", {}).get("app.kubernetes.io/name") != "triton":
            continue
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            wrong.append(f"{name_of(service)} is reached from outside the cluster")
        extra = {port["port"] for port in service["spec"]["ports"]} - TRITON_PORTS
        wrong += [f"{name_of(service)} opens port {port}" for port in sorted(extra)]
    for ingress in of_kind(objects, "Ingress"):
        backends = [p["backend"]["service"]["name"] for r in ingress["spec"]["rules"] for p in r["http"]["paths"]]
        wrong += [f"{name_of(ingress)} leads to {name}" for name in backends if name != "gateway"]
    return wrong


def secrets(objects: Objects) -> list[str]:
    """A secret is named and never written here; no variable that sounds like one has a value."""
    wrong = [f"{name_of(found)} is in the manifests" for found in of_kind(objects, "Secret")]
    for name, container, _ in containers(objects):
        for variable in container.get("env", []):
            secret = re.search(r"PASSWORD|TOKEN|SECRET|_KEY$", variable["name"])
            value = str(variable.get("value", ""))
            if secret and value and not value.startswith("/"):
                wrong.append(f"{name} has the value of {variable['name']}")
    return wrong


def whole(objects: Objects) -> list[str]:
    """Every name that one object uses of another is there: volumes, claims, maps, accounts, ports, selectors."""
    names = {kind: {f["metadata"]["name"] for f in of_kind(objects, kind)} for kind in {f["kind"] for f in objects}}
    wrong = []
    for name, pod, _ in pods(objects):
        if pod.get("serviceAccountName") not in names["ServiceAccount"]:
            wrong.append(f"{name} runs as no account of its own")
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            settings = volume.get("configMap", {}).get("name")
            if claim and claim not in names["PersistentVolumeClaim"]:
                wrong.append(f"{name} mounts the absent claim {claim}")
            if settings and settings not in names["ConfigMap"]:
                wrong.append(f"{name} mounts the absent map {settings}")
    for found in of_kind(objects, "StatefulSet"):
        claims = [{"name": claim["metadata"]["name"]} for claim in found["spec"].get("volumeClaimTemplates", [])]
        found["spec"]["template"]["spec"].setdefault("volumes", []).extend(claims)
    for name, container, pod in containers(objects):
        known = {volume["name"] for volume in pod.get("volumes", [])}
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        wrong += [f"{name} mounts the absent volume {missing}" for missing in sorted(mounted - known)]
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in names["ConfigMap"]:
                wrong.append(f"{name} reads the absent map {source['configMapRef']['name']}")
    labelled = [labels for _, _, labels in pods(objects)]
    for service in of_kind(objects, "Service"):
        chosen = service["spec"]["selector"]
        if not any(chosen.items() <= labels.items() for labels in labelled):
            wrong.append(f"{name_of(service)} chooses no pod")
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if target["name"] not in names.get(target["kind"], set()):
            wrong.append(f"{name_of(scaler)} scales the absent {target['name']}")
    return wrong


def rolled(objects: Objects) -> list[str]:
    """A roll-out takes no pod away before another one answers, and a drained node never the last."""
    wrong = []
    kept = [f["spec"]["selector"]["matchLabels"] for f in of_kind(objects, "PodDisruptionBudget")]
    for found in of_kind(objects, "Deployment"):
        if found["metadata"]["name"] not in ("triton", "gateway"):
            continue
        if found["spec"]["strategy"].get("rollingUpdate") != {"maxSurge": 1, "maxUnavailable": 0}:
            wrong.append(f"{name_of(found)} is not rolled out by surge")
        labels = found["spec"]["template"]["metadata"]["labels"]
        if not any(chosen.items() <= labels.items() for chosen in kept):
            wrong.append(f"{name_of(found)} has no disruption budget")
        if "preStop" not in found["spec"]["template"]["spec"]["containers"][0].get("lifecycle", {}):
            wrong.append(f"{name_of(found)} ends while clients still ask it")
    for _, container, pod in containers(of_kind(objects, "Deployment")):
        if "triton" in container["image"].rpartition("/")[2]:
            memory = {v["name"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory"}
            if not any(m["mountPath"] == "/dev/shm" and m["name"] in memory for m in container["volumeMounts"]):
                wrong.append("Triton has the default 64 MB of shared memory")
    return wrong


def pinned(objects: Objects) -> list[str]:
    """An image is named by its digest."""
    return [f"{name} takes {c['image']}" for name, c, _ in containers(objects) if not DIGEST.search(c["image"])]


RULES: tuple[Callable[[Objects], list[str]], ...] = (
    root,
    limits,
    probes,
    fenced,
    model_control,
    secrets,
    whole,
    rolled,
)
