"""`sidrec serve`, `stop`, `deploy`, `recommend`: the running server and asking it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import LedgerUnreachableError, ServingError, UsageError

_DETACH_S = 240.0
_STOP_S = 40.0


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    for command in (serve, stop, deploy, recommend):
        root.command()(command)


def serve(
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC door (Triton).")] = 8001,
    gateway_port: Annotated[int, typer.Option(help="Port of the HTTP door (gateway).")] = 3000,
    metrics_port: Annotated[int, typer.Option(help="Port of Triton's metrics; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to bind; loopback unless told otherwise.")] = "127.0.0.1",
    standby: Annotated[
        bool, typer.Option("--standby", envvar="SIDREC_STANDBY", help="Run a second server, asked when the first dies.")
    ] = False,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            envvar="SIDREC_INSTANCES",
            help="Python processes a server, one thread each; unset keeps what was.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it answers; `sidrec stop` ends it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve the promoted revision until stopped; one line says that a real answer came back."""
    from serving.state import read_state
    from sidrec.release.ledger import Ledger

    running = read_state()
    if running is not None:
        raise UsageError(
            f"a server of this SIDREC_HOME runs already at {running['grpc']} (process {running['pid']})",
            next_step="sidrec status, or sidrec stop first",
        )
    if _nothing_asked_for():
        raise ServingError(
            "nothing was promoted yet, so there is nothing to serve",
            evidence=Ledger().path,
            next_step="sidrec run, then sidrec promote --first --reason '…'",
        )
    if detach:
        options = ["--grpc-port", str(grpc_port), "--gateway-port", str(gateway_port)]
        options += ["--standby"] * standby + ([] if instances is None else ["--instances", str(instances)])
        value = _detached([*options, "--metrics-port", str(metrics_port), "--host", host])
        emit(value, as_json, lambda: print(_line(value)))
        return
    from serving.front import Front

    front = Front(
        host=host,
        grpc_port=grpc_port,
        gateway_port=gateway_port,
        metrics_port=metrics_port,
        standby=standby,
        instances=instances,
    )
    front.run(lambda value: emit(value, as_json, lambda: print(_line(value), flush=True)))


def _nothing_asked_for() -> bool:
    """Whether the ledger says that nothing is to be served; one that does not answer says nothing."""
    from sidrec.release.ledger import Ledger

    try:
        return Ledger().desired() is None
    except LedgerUnreachableError:
        return False


def stop(as_json: JsonFlag = False) -> None:
    """Stop the server of this SIDREC_HOME after the requests in flight are answered."""
    from serving.state import process_started, read_state

    state = read_state()
    if state is not None:
        os.kill(state["pid"], signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while process_started(state["pid"]) == state["pid_started"]:
            if time.monotonic() > deadline:
                raise ServingError(
                    f"process {state['pid']} did not stop within {_STOP_S:.0f} s",
                    evidence=state["log"],
                    next_step=f"kill -9 {state['pid']}; Triton and the gateway follow it",
                )
            time.sleep(0.1)
    value = {"stopped": state is not None, "pid": None if state is None else state["pid"]}
    emit(value, as_json, lambda: print("stopped" if value["stopped"] else "no server was running"))


def deploy(as_json: JsonFlag = False) -> None:
    """Make the running server match the ledger, without a failed request."""
    from serving.deploy import deploy as deploy_desired
    from sidrec.cli.release import actor

    done = deploy_desired(who=actor())
    emit(done.as_dict(), as_json, lambda: print(done.sentence))


def recommend(
    user: Annotated[str, typer.Option(help="A user id; the history comes from the feature store.")] = "",
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    k: Annotated[int, typer.Option("-k", help="How many items, 1..100.")] = 10,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out the history's items.")] = False,
    grpc: Annotated[str, typer.Option(help="host:port of another server.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Ask the running server for recommendations and show their titles."""
    from serving.state import read_state
    from sidrec.client import RecommendClient

    state = read_state()
    url = grpc or (state["grpc"] if state else "")
    if not url:
        raise ServingError("no server runs in this SIDREC_HOME", next_step="sidrec serve, or --grpc host:port")
    items = [item.strip() for item in history.split(",") if item.strip()]
    context = {"surface": "command line"}
    with RecommendClient(url, timeout_s=10.0) as client:
        answer = client.recommend(user_id=user, history=items, k=k, exclude_seen=exclude_seen, context=context)
    titles = _titles(answer.bundle_id)
    rows = [
        {"item_id": item, "title": titles.get(item), "score": float(score), "semantic_id": codes.tolist()}
        for item, score, codes in zip(answer.item_ids, answer.scores, answer.semantic_ids, strict=True)
    ]
    value: dict[str, Any] = {
        "items": rows,
        "history": [{"item_id": item, "title": titles.get(item)} for item in items],
        "source": answer.source,
        "arm": answer.arm,
        "bundle_id": answer.bundle_id,
        "revision": int(answer.model_version),
        "request_id": answer.request_id,
    }
    emit(value, as_json, lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for item in value["history"]:
        console.print(f"history: {item['item_id']} {item['title'] or '(not in the catalogue)'}", markup=False)
    table = Table("", "item", "title", "score", "semantic ID", box=None, header_style="bold")
    for rank, item in enumerate(value["items"], start=1):
        codes = " ".join(str(code) for code in item["semantic_id"])
        table.add_row(str(rank), item["item_id"], item["title"] or "", f"{item['score']:.3f}", codes)
    console.print(table)
    console.print(f"{value['source']}, {value['bundle_id']}, revision {value['revision']}, arm {value['arm']}")


def _titles(bundle_id: str) -> dict[str, str]:
    """Return the titles in a bundle of the local repository; none for a server somewhere else."""
    from sidrec.data.catalog import Catalog

    found = sorted(home.triton_repository_dir().glob(f"recommend/[0-9]*/bundles/{bundle_id}/catalogue.parquet"))
    if not found:
        return {}
    catalog = Catalog.read(found[-1])
    return dict(zip(catalog.item_ids, catalog.titles, strict=True))


def _detached(options: list[str]) -> dict[str, Any]:
    """Start `serve` as a process of its own and return its first line's facts once it answers."""
    from serving.state import read_state

    log = home.serving_dir() / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sidrec.cli", "serve", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + _DETACH_S
    while process.poll() is None and time.monotonic() < deadline:
        state = read_state()
        if state is not None and state["pid"] == process.pid and state["health"] == "ready" and state["gateway"]:
            return state
        time.sleep(0.1)
    if process.poll() is None:
        process.terminate()
    raise ServingError(f"the server did not start: {_last_line(log)}", evidence=log, next_step="sidrec doctor")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), lines[-1] if lines else "it said nothing")


def _line(state: dict[str, Any]) -> str:
    spare = f" (standby {state['standby']['grpc']})" if state["standby"] else ""
    return (
        f"serving revision {state['revision']} ({state['bundle_id']}): gRPC {state['grpc']}{spare}, "
        f"HTTP {state['gateway']}"
        f" (docs at {state['gateway']}/), metrics {state['metrics']}"
    )
