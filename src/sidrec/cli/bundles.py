"""`sidrec bundle`: what there is, what was found about it, and whether it still is what it was."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import BundleError, UsageError, VerdictError

if TYPE_CHECKING:
    from sidrec.release.verdict import Verdict

bundle_app = typer.Typer(help="Bundles: the units of release in the registry.", no_args_is_help=True)

_MARK = {"pass": "[green]pass[/]", "fail": "[red]fail[/]", "inconclusive": "[yellow]inconclusive[/]"}


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(bundle_app, name="bundle")


@bundle_app.command("list")
def list_bundles(as_json: JsonFlag = False) -> None:
    """List the registered bundles, newest first."""
    roles = _roles()
    rows = [
        {
            "bundle_id": entry.bundle_id,
            "kind": entry.labels.get("kind"),
            "recipe": entry.labels.get("recipe"),
            "result": _result(entry.verdict),
            "registered_at": entry.registered_at.isoformat(timespec="seconds"),
            "champion": roles.get(entry.bundle_id) == "champion",
            "role": roles.get(entry.bundle_id),
            "folder": str(entry.bundle),
        }
        for entry in registry().entries()
    ]

    def render() -> None:
        console = Console(highlight=False)
        if not rows:
            console.print("no bundle is registered yet; next: sidrec run")
            return
        table = Table("bundle", "system", "recipe", "verdict", "registered", "", box=None, header_style="bold")
        for row in rows:
            mark = _MARK.get(row["result"], f"[red]{row['result']}[/]")
            table.add_row(
                row["bundle_id"],
                row["kind"],
                row["recipe"],
                mark,
                row["registered_at"][:16].replace("T", " "),
                row["role"] or "",
            )
        console.print(table)
        console.print(f"next: sidrec bundle show {rows[0]['bundle_id']}")

    emit({"bundles": rows}, as_json, render)


@bundle_app.command("show")
def show_bundle(
    bundle: Annotated[str, typer.Argument(help="A bundle id (or its first digits), or a bundle's folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Show a bundle's verdict, gate by gate, and what the bundle holds."""
    from sidrec.bundle import open_bundle
    from sidrec.release.verdict import read_verdict

    folder, verdict_file = _find(bundle)
    opened = open_bundle(folder, verify=False)
    verdict = None if verdict_file is None else read_verdict(verdict_file)
    value = {
        "bundle_id": opened.bundle_id,
        "sha256": opened.sha256,
        "folder": str(opened.folder),
        "recipe": opened.recipe.name,
        "decode": opened.decode,
        "provenance": opened.manifest["provenance"],
        "files": opened.manifest["files"],
        "verdict": None if verdict is None else verdict.model_dump(mode="json"),
    }

    def render() -> None:
        console = Console(highlight=False)
        decode, made = opened.decode, opened.manifest["provenance"]
        size = sum((opened.folder / name).stat().st_size for name in opened.manifest["files"])
        console.print(
            f"[bold]{opened.bundle_id}[/] {decode['kind']}, recipe {opened.recipe.name}, data up to"
            f" {decode['watermark']}, made {made.get('created_at')} at {str(made.get('git_sha'))[:12]}"
        )
        console.print(f"{len(opened.manifest['files'])} files, {size / 1e6:.1f} MB, {opened.folder}", soft_wrap=True)
        if verdict is None:
            console.print("no verdict: this folder is not in the registry")
            return
        _print_verdict(console, verdict)
        if verdict.result == "pass":
            console.print(f"next: sidrec promote {opened.bundle_id} --reason '…'")

    emit(value, as_json, render)


@bundle_app.command("verify")
def verify_bundle(
    bundle: Annotated[str, typer.Argument(help="A bundle id (or its first digits), or a bundle's folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Check every digest of a bundle and, for a registered one, the verdict's signature, binding and age."""
    from sidrec.bundle import open_bundle
    from sidrec.release.verdict import check_verdict

    folder, verdict_file = _find(bundle)
    opened = open_bundle(folder)
    verdict = None if verdict_file is None else check_verdict(verdict_file, opened)
    value = {
        "bundle_id": opened.bundle_id,
        "sha256": opened.sha256,
        "files": len(opened.manifest["files"]),
        "verdict": None if verdict is None else verdict.result,
    }

    def render() -> None:
        said = "no verdict beside it" if verdict is None else f"signed verdict: {verdict.result}"
        print(f"{opened.bundle_id}: all {value['files']} digests hold; {said}")

    emit(value, as_json, render)


def registry() -> Any:
    """Return the registry's module; a bare wheel has none and is told so."""
    try:
        from serving import registry as found
    except ImportError as error:
        raise UsageError(
            "the registry is part of the application, which is not installed here; give a bundle's folder instead",
            next_step="pip install 'sidrec[release]' in a checkout",
        ) from error
    return found


def registered_id(bundle: str) -> str:
    """Return the id of the one registered bundle that an id, or its first digits, names."""
    ids = [entry.bundle_id for entry in registry().entries()]
    found = [bundle_id for bundle_id in ids if bundle in (bundle_id, bundle_id.removeprefix("b-"))]
    found = found or [one for one in ids if one.startswith(bundle) or one.removeprefix("b-").startswith(bundle)]
    if len(found) != 1:
        seen = f"{len(found)} bundles start with" if found else "the registry has no bundle"
        raise BundleError(f"{seen} {bundle}", next_step="sidrec bundle list")
    return str(found[0])


def _find(bundle: str) -> "tuple[Path, Path | None]":
    """Return a bundle's folder and, for a registered one, its verdict file."""
    if Path(bundle).is_dir():
        return Path(bundle), None
    bundle_id = registered_id(bundle)
    return registry().bundle_folder(bundle_id), registry().verdict_path(bundle_id)


def _roles() -> dict[str, str]:
    """Return what the bundles of the desired revision are in it."""
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    if desired is None:
        return {}
    shadow = {} if desired.shadow is None else {desired.shadow.bundle_id: "shadow"}
    arms = {arm.bundle.bundle_id: f"{arm.name} {arm.share:.0%}" for arm in desired.arms[1:]}
    return {**shadow, **arms, desired.arms[0].bundle.bundle_id: "champion"}


def _result(verdict_file: Path) -> str:
    from sidrec.release.verdict import read_verdict

    try:
        verdict = read_verdict(verdict_file)
    except VerdictError:
        return "invalid"
    return "expired" if verdict.expires_at < datetime.now(UTC) else verdict.result


def _print_verdict(console: Console, verdict: "Verdict") -> None:
    # A name that does not fit goes on in the next line: a cut one could be another check's.
    table = Table(Column("gate"), Column("check", overflow="fold"), box=None, header_style="bold")
    for title in ("result", "observed", "95 %", "limit", "n"):
        table.add_column(title)
    for gate in verdict.gates:
        interval = "" if gate.interval is None else f"{gate.interval[0]:+.4f} … {gate.interval[1]:+.4f}"
        table.add_row(
            gate.gate, gate.name, _MARK[gate.result], f"{gate.observed:.4f}", interval, f"{gate.threshold:g}",
            f"{gate.n:,}",
        )  # fmt: skip
    console.print(table)
    for rows, values in verdict.metrics.items():
        shown = ", ".join(f"{name} {values[name]:.4f}" for name in ("ndcg@10", "recall@10") if name in values)
        console.print(f"{rows}: {shown}")
    console.print(verdict.sentence, markup=False, soft_wrap=True)
    console.print(f"signed {verdict.created_at:%Y-%m-%d %H:%M} UTC, good until {verdict.expires_at:%Y-%m-%d}")
