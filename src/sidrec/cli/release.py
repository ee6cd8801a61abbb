"""`sidrec bundle`, `ledger`, `promote`, `rollback`: what there is, what was decided, and deciding."""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import BundleError, CheckFailedError, SidrecError, UsageError, VerdictError

if TYPE_CHECKING:
    from sidrec.release.ledger import LedgerRow
    from sidrec.release.verdict import Verdict

bundle_app = typer.Typer(help="Bundles: the units of release in the registry.", no_args_is_help=True)
ledger_app = typer.Typer(help="The ledger: who asked for what, when, why; what was live.", no_args_is_help=True)

_MARK = {"pass": "[green]pass[/]", "fail": "[red]fail[/]", "inconclusive": "[yellow]inconclusive[/]"}
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays in the ledger.")]
NoDeploy = Annotated[bool, typer.Option("--no-deploy", help="Only write the ledger; `sidrec deploy` does the rest.")]


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(bundle_app, name="bundle")
    root.add_typer(ledger_app, name="ledger")
    root.command()(promote)
    root.command()(rollback)


@bundle_app.command("list")
def list_bundles(as_json: JsonFlag = False) -> None:
    """List the registered bundles, newest first."""
    desired = _desired_ids()
    rows = [
        {
            "bundle_id": entry.bundle_id,
            "kind": entry.labels.get("kind"),
            "recipe": entry.labels.get("recipe"),
            "result": _result(entry.verdict),
            "registered_at": entry.registered_at.isoformat(timespec="seconds"),
            "champion": entry.bundle_id in desired,
            "folder": str(entry.bundle),
        }
        for entry in _registry().entries()
    ]

    def render() -> None:
        console = Console(highlight=False)
        if not rows:
            console.print("no bundle is registered yet; next: sidrec run")
            return
        table = Table("bundle", "system", "recipe", "verdict", "registered", "", box=None, header_style="bold")
        for row in rows:
            mark = _MARK.get(row["result"], f"[red]{row['result']}[/]")
            role = "champion" if row["champion"] else ""
            table.add_row(
                row["bundle_id"], row["kind"], row["recipe"], mark, row["registered_at"][:16].replace("T", " "), role
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


@ledger_app.command("show")
def show_ledger(
    last: Annotated[int, typer.Option(min=1, help="Rows on the screen; --json has all.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show who asked for what, and what went live."""
    from sidrec.release.ledger import Ledger

    book = Ledger()
    check = book.verify()
    value = {"path": str(book.path), "head": check.head, "rows": [row.model_dump(mode="json") for row in check.rows]}

    def render() -> None:
        console = Console(highlight=False)
        if not check.rows:
            console.print("the ledger is empty; next: sidrec promote --first --reason '…'")
            return
        table = Table("row", Column("time (UTC)", no_wrap=True), "action", "revision", box=None, header_style="bold")
        table.add_column("bundle", no_wrap=True)
        for title in ("who", "why"):
            table.add_column(title, overflow="fold")
        for row in check.rows[-last:]:
            table.add_row(
                str(row.seq),
                f"{row.time:%Y-%m-%d %H:%M:%S}",
                row.action,
                str(row.revision.revision),
                row.bundle,
                row.who + (f" + {row.second_approver}" if row.second_approver else ""),
                row.why,
            )
        console.print(table)

    emit(value, as_json, render)


@ledger_app.command("verify")
def verify_ledger(
    head: Annotated[str, typer.Option(help="A head noted earlier, elsewhere; it must still be in the chain.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Check the whole hash chain, row by row, and print its head."""
    from sidrec.errors import LedgerError
    from sidrec.release.ledger import Ledger

    book = Ledger()
    check = book.verify()
    if head and not any(row.hash.startswith(head) for row in check.rows):
        raise LedgerError(f"no row has the hash {head}: history was rewritten since it was noted", evidence=book.path)
    value = {"rows": len(check.rows), "head": check.head, "torn": check.torn}

    def render() -> None:
        print(f"{len(check.rows)} rows, every hash holds; head {check.head}")
        if check.torn is not None:
            print(
                f"an append was cut off after the last row ({len(check.torn)} characters); the next one sets it aside"
            )

    emit(value, as_json, render)


@ledger_app.command("live")
def live_at(
    at: Annotated[str, typer.Option(help="ISO time; without an offset it is UTC. Default: now.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show which revision was being served at a time."""
    from sidrec.release.ledger import Ledger

    moment = _moment(at) if at else datetime.now(UTC)
    row = Ledger().live(moment)
    value = {"at": moment.isoformat(), "live": None if row is None else row.model_dump(mode="json")}

    def render() -> None:
        if row is None:
            print(f"nothing was live at {moment:%Y-%m-%d %H:%M:%S} UTC")
            return
        arms = ", ".join(f"{arm.name} {arm.bundle.bundle_id} {arm.share:.0%}" for arm in row.revision.arms)
        print(f"revision {row.revision.revision} ({arms}), live since {row.time:%Y-%m-%d %H:%M:%S} UTC")

    emit(value, as_json, render)


def promote(
    reason: Reason,
    bundle: Annotated[str, typer.Argument(help="A bundle id; with --first the newest that passed.")] = "",
    first: Annotated[bool, typer.Option("--first", help="The first promotion of this installation.")] = False,
    accept_inconclusive: Annotated[
        bool, typer.Option("--accept-inconclusive", help="Promote on an inconclusive verdict; needs a second approver.")
    ] = False,
    second_approver: Annotated[str | None, typer.Option(help="Who else looked; not the author.")] = None,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask, in the ledger, for a bundle to answer everybody, and deploy it."""
    from sidrec.bundle import open_bundle
    from sidrec.release.ledger import Ledger
    from sidrec.release.promotion import promote as promote_bundle
    from sidrec.release.promotion import require_empty
    from sidrec.release.verdict import read_verdict

    registry = _registry()
    if first:
        require_empty(Ledger(), Ledger().rows())
    bundle_id = _candidate(bundle, first=first)
    verdict_file = registry.verdict_path(bundle_id)
    if not as_json and not bundle:
        print(f"first promotion: {bundle_id} is the newest registered bundle whose verdict says pass")
    row = promote_bundle(
        open_bundle(registry.bundle_folder(bundle_id)),
        verdict_file,
        why=reason,
        who=actor(),
        first=first,
        accept_inconclusive=accept_inconclusive,
        second_approver=second_approver,
    )
    _finish_move(row, deploy=not no_deploy, as_json=as_json, verdict=read_verdict(verdict_file))


def rollback(reason: Reason, no_deploy: NoDeploy = False, as_json: JsonFlag = False) -> None:
    """Go back to the last good revision before the present one, and deploy it."""
    from sidrec.release.promotion import rollback as roll_back

    row = roll_back(why=reason, who=actor())
    _finish_move(row, deploy=not no_deploy, as_json=as_json, verdict=None)


def actor() -> str:
    """Return who makes the move: `SIDREC_ACTOR`, else the name of the account."""
    named = os.environ.get("SIDREC_ACTOR", "").strip()
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("this account has no name", next_step="set SIDREC_ACTOR to yours") from error


def _finish_move(row: "LedgerRow", *, deploy: bool, as_json: bool, verdict: "Verdict | None") -> None:
    deployment = _deploy(row) if deploy else None
    number = row.revision.revision
    value = {
        "action": row.action,
        "revision": number,
        "bundle_id": row.bundle,
        "restores": row.restores,
        "row": row.seq,
        "hash": row.hash,
        "deployment": deployment,
    }

    def render() -> None:
        console = Console(highlight=False, soft_wrap=True)
        if verdict is not None:
            console.print(verdict.sentence, markup=False)
        back = "" if row.restores is None else f", the contents of revision {row.restores}"
        console.print(f"ledger row {row.seq}: {row.who} asks for revision {number} ({row.bundle}){back}", markup=False)
        if deployment is None:
            console.print("next: sidrec deploy")
        else:
            console.print(str(deployment["sentence"]), markup=False)
            console.print("next: sidrec status" if deployment["live"] else "next: sidrec serve")

    emit(value, as_json, render)


def _deploy(row: "LedgerRow") -> dict[str, Any]:
    from serving.deploy import deploy

    try:
        value: dict[str, Any] = deploy(who=row.who).as_dict()
    except SidrecError as error:
        raise CheckFailedError(
            f"revision {row.revision.revision} is in the ledger (row {row.seq}) but is not deployed: {error.message}",
            evidence=error.evidence,
            next_step=error.next_step or "sidrec deploy tries again; sidrec rollback --reason '…' goes back",
        ) from error
    return value


def _candidate(bundle: str, *, first: bool) -> str:
    registry = _registry()
    if bundle:
        return _registered_id(bundle)
    if not first:
        raise UsageError("which bundle? Only --first picks one by itself", next_step="sidrec bundle list")
    entry = registry.newest_passing()
    if entry is None:
        raise VerdictError(
            "no registered bundle has a fresh, passing verdict; nothing to promote", next_step="sidrec bundle list"
        )
    return str(entry.bundle_id)


def _find(bundle: str) -> "tuple[Path, Path | None]":
    """Return a bundle's folder and, for a registered one, its verdict file."""
    if Path(bundle).is_dir():
        return Path(bundle), None
    registry = _registry()
    bundle_id = _registered_id(bundle)
    return registry.bundle_folder(bundle_id), registry.verdict_path(bundle_id)


def _registered_id(bundle: str) -> str:
    ids = [entry.bundle_id for entry in _registry().entries()]
    found = [bundle_id for bundle_id in ids if bundle in (bundle_id, bundle_id.removeprefix("b-"))]
    found = found or [one for one in ids if one.startswith(bundle) or one.removeprefix("b-").startswith(bundle)]
    if len(found) != 1:
        seen = f"{len(found)} bundles start with" if found else "the registry has no bundle"
        raise BundleError(f"{seen} {bundle}", next_step="sidrec bundle list")
    return str(found[0])


def _registry() -> Any:
    try:
        from serving import registry
    except ImportError as error:
        raise UsageError(
            "the registry is part of the application, which is not installed here; give a bundle's folder instead",
            next_step="pip install 'sidrec[release]' in a checkout",
        ) from error
    return registry


def _desired_ids() -> tuple[str, ...]:
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    return () if desired is None else desired.bundle_ids


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


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no ISO time", next_step="--at 2011-01-31T12:00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
