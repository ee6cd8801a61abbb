"""`sidrec bundle page`: one bundle's life on one page, with links to every report of it."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidrec import files, home
from sidrec.cli.bundles import _find, bundle_app, registered_id
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from sidrec.bundle import Bundle


@bundle_app.command("page")
def page(
    bundle: Annotated[str, typer.Argument(help="A bundle id (or its first digits), or a folder; the champion.")] = "",
    html: Annotated[
        Path | None, typer.Option(help="File; monitoring/releases/<bundle id>.html under SIDREC_HOME.")
    ] = None,
    readout: Annotated[
        Path | None, typer.Option(help="What `sidrec ab readout --json` printed, to show its experiment.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one page of a bundle: verdict, ledger, semantic IDs, drift, experiment; it opens without a network."""
    from sidrec.bundle import open_bundle
    from sidrec.release.ledger import Ledger
    from sidrec.release.page import Release, release_page
    from sidrec.release.verdict import read_verdict

    folder, verdict_file = _find(bundle or _champion())
    opened = open_bundle(folder, verify=False)
    target = (html or home.monitoring_dir() / "releases" / f"{opened.bundle_id}.html").absolute()
    health, links = _health(opened, target)
    found = None if readout is None else _readout(readout)
    if found is not None and found.get("html"):
        links["readout"] = _seen_from(target, Path(found["html"]))
    release = Release(
        bundle_id=opened.bundle_id,
        facts=_facts(opened),
        verdict=None if verdict_file is None else read_verdict(verdict_file),
        rows=Ledger().rows(),
        health=health,
        drift=list(_drift(opened.bundle_id, target)),
        readout=None if found is None else found["readout"],
        simulated=found is not None and bool(found["simulation"]),
        links=links,
    )
    files.write_text_atomic(target, release_page(release, now=datetime.now(UTC)))
    value = {"bundle_id": opened.bundle_id, "html": str(target), "weeks": len(release.drift), "links": links}
    emit(value, as_json, lambda: print(f"page: {target}"))


def _champion() -> str:
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    if desired is None:
        raise UsageError("nothing is promoted yet, so there is no champion to show", next_step="sidrec bundle list")
    return registered_id(desired.bundle_ids[0])


def _facts(bundle: "Bundle") -> dict[str, str]:
    made = bundle.manifest["provenance"]
    names = bundle.manifest["files"]
    size = sum((bundle.folder / name).stat().st_size for name in names)
    return {
        "bundle": f"{bundle.bundle_id} (SHA-256 {bundle.sha256})",
        "system": str(bundle.decode["kind"]),
        "recipe": bundle.recipe.name,
        "data up to": str(bundle.decode["watermark"]),
        "made": f"{made.get('created_at')} at {str(made.get('git_sha'))[:12]}",
        "files": f"{len(names)}, {size / 1e6:.1f} MB",
    }


def _health(bundle: "Bundle", target: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Return the health report, served traffic included, and the address of the codebook's own page, written here."""
    from sidrec.cli.sid import _with_served
    from sidrec.codebook.artefact import Artefact
    from sidrec.codebook.page import health_page

    artefact = Artefact.in_bundle(bundle.folder)
    if artefact is None or "report" not in artefact.health:
        return None, {}
    value = _with_served(artefact, bundle.bundle_id, None)
    path = target.with_name(f"{target.stem}-codebook.html")
    files.write_text_atomic(path, health_page(value, title=bundle.bundle_id, catalog=artefact.catalog))
    return value["report"], {"health": path.name}


def _drift(bundle_id: str, target: Path) -> Iterator[dict[str, Any]]:
    """Yield the weeks in which the bundle answered, oldest first, from the reports of this installation."""
    from monitoring import findings
    from monitoring.report import HTML

    for path in sorted((home.monitoring_dir() / "reports").glob(f"*/{findings.DRIFT}")):
        verdict = findings.read(path.parent)
        if bundle_id not in verdict.bundle_ids.values():
            continue
        areas = {
            area: findings.worst([one.level for one in verdict.findings if one.area == area])
            for area in dict.fromkeys(one.area for one in verdict.findings)
        }
        yield {
            "first_day": str(verdict.first_day),
            "window": f"{verdict.window}, against {verdict.reference}",
            "level": verdict.level,
            "sentence": verdict.sentence,
            "areas": areas,
            "link": _seen_from(target, path.with_name(HTML)),
        }


def _readout(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = files.read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"no read-out in {path}: {error}", next_step="sidrec ab readout PLAN --json > FILE") from error
    if "readout" not in value:
        raise UsageError(f"{path} is no read-out", next_step="sidrec ab readout PLAN --json > FILE")
    return value


def _seen_from(page: Path, path: Path) -> str:
    return Path(os.path.relpath(path.absolute(), page.parent)).as_posix()


def mount(root: typer.Typer) -> None:
    """Nothing of its own: its command is part of `bundle`, which is mounted."""
