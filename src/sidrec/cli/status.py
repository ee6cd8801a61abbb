"""`sidrec status`: what is live, how the last run ended, what the server says."""

from typing import Any

from rich.console import Console

from sidrec import files, home
from sidrec.cli.console import JsonFlag, emit


def status(as_json: JsonFlag = False) -> None:
    """Show the champion, the last run and the server."""
    champion, last, serving = _champion(), _last_run(), _serving()

    def render() -> None:
        console = Console(highlight=False)
        if champion is None:
            console.print("champion: none; next: sidrec run, then sidrec promote --first --reason '…'")
        else:
            metrics = champion["metrics"]
            console.print(
                f"champion: {champion['bundle_id']} ({champion['system']}), NDCG@10 "
                f"all {metrics['all']['ndcg@10']:.4f}, novel {metrics['novel']['ndcg@10']:.4f}"
            )
        console.print("last run: none" if last is None else f"last run: {last['slot']} {last['result']}")
        console.print(f"serving: {serving['state']}" + (f" at {serving['grpc']}" if serving.get("grpc") else ""))

    emit({"champion": champion, "last_run": last, "serving": serving}, as_json, render)


def _champion() -> dict[str, Any] | None:
    from serving import registry
    from sidrec.bundle import open_bundle
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    if desired is None:
        return None
    bundle_id = desired.bundle_ids[0]
    folder = registry.bundle_folder(bundle_id)
    verdict = files.read_json(registry.verdict_path(bundle_id))["verdict"]
    return {
        "bundle_id": bundle_id,
        "system": open_bundle(folder, verify=False).decode["kind"],
        "metrics": verdict["metrics"],
        "revision": desired.revision,
    }


def _last_run() -> dict[str, Any] | None:
    from pipelines.slot import latest_slot

    slot = latest_slot()
    if slot is None:
        return None
    result = slot.result()
    steps = [{key: step.get(key) for key in ("step", "result", "seconds")} for step in slot.steps()]
    return {"slot": slot.slot_id, "result": "unfinished" if result is None else result["result"], "steps": steps}


def _serving() -> dict[str, Any]:
    from serving.supervisor import read_state

    state = read_state()
    return {"state": "stopped", "home": str(home.serving_dir())} if state is None else {"state": "running", **state}
