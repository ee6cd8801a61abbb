"""`sidrec promote`, `approve`, `rollback`: deciding what answers, and making the servers follow."""

import getpass
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sidrec.cli.bundles import registered_id, registry
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import CheckFailedError, SidrecError, UsageError, VerdictError

if TYPE_CHECKING:
    from sidrec.bundle import Bundle
    from sidrec.release.ledger import LedgerRow
    from sidrec.release.verdict import Verdict


class Place(StrEnum):
    """Where `promote` may put a bundle; the library's stages."""

    shadow = "shadow"
    canary = "canary"
    challenger = "challenger"
    champion = "champion"


Reason = Annotated[str, typer.Option("--reason", help="Why; it stays in the ledger.")]
Override = Annotated[
    list[str] | None, typer.Option(help="Check that may say no, by its name; repeatable; needs a second approver.")
]
NoDeploy = Annotated[bool, typer.Option("--no-deploy", help="Only write the ledger; `sidrec deploy` does the rest.")]


rollback_app = typer.Typer()
_SHOWN = ("ndcg@10", "recall@10")


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.command()(promote)
    root.command()(approve)
    root.add_typer(rollback_app, name="rollback")


def promote(
    reason: Reason,
    bundle: Annotated[str, typer.Argument(help="A bundle id; with --first the newest that passed.")] = "",
    to: Annotated[Place, typer.Option("--to", help="Its place.")] = Place.champion,
    share: Annotated[
        float | None, typer.Option(help="Share of users of a canary (the policy's, 0.05) or a challenger (0).")
    ] = None,
    first: Annotated[bool, typer.Option("--first", help="The first promotion of this installation.")] = False,
    accept_inconclusive: Annotated[
        bool, typer.Option("--accept-inconclusive", help="Promote on an inconclusive verdict; needs a second approver.")
    ] = False,
    override: Override = None,
    second_approver: Annotated[str | None, typer.Option(help="Who else looked; not the author.")] = None,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask, in the ledger, for a bundle to have its place, and deploy it."""
    from sidrec.bundle import open_bundle
    from sidrec.release.ledger import Ledger
    from sidrec.release.promotion import promote as promote_bundle
    from sidrec.release.promotion import require_empty
    from sidrec.release.verdict import read_verdict

    if first:
        require_empty(Ledger(), Ledger().rows())
    bundle_id = _candidate(bundle, first=first)
    verdict_file = registry().verdict_path(bundle_id)
    if not as_json and not bundle:
        print(f"first promotion: {bundle_id} is the newest registered bundle whose verdict says pass")
    champion = champion_bundle()
    row = promote_bundle(
        open_bundle(registry().bundle_folder(bundle_id)),
        verdict_file,
        why=reason,
        who=actor(),
        to=to.value,
        share=share,
        first=first,
        accept_inconclusive=accept_inconclusive,
        second_approver=second_approver,
        overrides=override or (),
        champion=champion,
    )
    judged = read_verdict(verdict_file)
    beside = {} if champion is None else _beside(judged, champion.bundle_id)
    finish_move(row, deploy=not no_deploy, as_json=as_json, verdict=judged, beside=beside)


def approve(
    reason: Reason,
    row: Annotated[int | None, typer.Argument(help="Row of the ledger that asked; the only one that waits.")] = None,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Stand behind what somebody else asked for; it counts from then on, and is deployed."""
    from sidrec.bundle import open_bundle
    from sidrec.release.promotion import approve as approve_row
    from sidrec.release.verdict import read_verdict

    approved = approve_row(
        row,
        why=reason,
        who=actor(),
        bundle_of=lambda bundle_id: open_bundle(registry().bundle_folder(bundle_id)),
        verdict_of=registry().verdict_path,
    )
    verdict_file = registry().verdict_path(approved.bundle, approved.verdicts[approved.bundle])
    finish_move(approved, deploy=not no_deploy, as_json=as_json, verdict=read_verdict(verdict_file))


@rollback_app.callback(invoke_without_command=True)
def rollback(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the ledger.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Although somebody else went back just now.")] = False,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Go back to the last good revision before the present one, and deploy it."""
    if context.invoked_subcommand is not None:
        return
    from sidrec.release.rollback import rollback as roll_back

    row = roll_back(why=reason, who=actor(), again=again)
    finish_move(row, deploy=not no_deploy, as_json=as_json, verdict=None)


@rollback_app.command()
def drill(
    on_primary: Annotated[
        bool, typer.Option("--on-primary", help="Without a standby: let callers meet the previous bundle for a moment.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Go back and forward again on the servers that run, and record the seconds; nothing else is asked for."""
    from serving.drill import drill as drill_servers

    done = drill_servers(who=actor(), on_primary=on_primary)
    emit(done.as_dict(), as_json, lambda: print(done.sentence))


def actor() -> str:
    """Return who makes the move: `SIDREC_ACTOR`, else the name of the account."""
    named = os.environ.get("SIDREC_ACTOR", "").strip()
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("this account has no name", next_step="set SIDREC_ACTOR to yours") from error


def finish_move(
    row: "LedgerRow", *, deploy: bool, as_json: bool, verdict: "Verdict | None", beside: "Beside | None" = None
) -> None:
    """Deploy what a row asks for, unless it waits for an approval, and say what came of it."""
    waits = row.pending_until
    deployment = deploy_row(row) if deploy and waits is None else None
    number = row.revision.revision
    value = {
        "action": row.action,
        "stage": row.stage or "champion",
        "revision": number,
        "bundle_id": row.bundle,
        "restores": row.restores,
        "row": row.seq,
        "hash": row.hash,
        "pending_until": None if waits is None else waits.isoformat(),
        "overrides": list(row.overrides),
        "beside_champion": beside,
        "deployment": deployment,
    }

    def render() -> None:
        console = Console(highlight=False, soft_wrap=True)
        if verdict is not None:
            console.print(verdict.sentence, markup=False)
        for rows, metrics in (beside or {}).items():
            shown = ", ".join(f"{name} {new:.4f} (champion {old:.4f})" for name, (new, old) in metrics.items())
            console.print(f"{rows}: {shown}", markup=False)
        back = "" if row.restores is None else f", the contents of revision {row.restores}"
        place = "" if row.stage is None else f" as {row.stage}"
        verb = "stands behind" if row.action == "approve" else "asks for"
        said = f"ledger row {row.seq}: {row.who} {verb} revision {number} ({row.bundle}{place}){back}"
        console.print(said, markup=False)
        if waits is not None:
            until = f"{waits:%Y-%m-%d %H:%M} UTC"
            console.print(f"next: somebody else, until {until}: sidrec approve {row.seq} --reason '…'", markup=False)
        elif deployment is None:
            console.print("next: sidrec deploy")
        else:
            console.print(str(deployment["sentence"]), markup=False)
            console.print("next: sidrec status" if deployment["live"] else "next: sidrec serve")

    emit(value, as_json, render)


Beside = dict[str, dict[str, tuple[float, float]]]
"""Rows -> metric -> (this bundle's, the champion's), each from its own verdict."""


def _beside(verdict: "Verdict", champion: str) -> Beside:
    from sidrec.release.verdict import read_verdict

    try:
        theirs = read_verdict(registry().verdict_path(champion)).metrics
    except VerdictError:
        # Of a key that was retired since: the move is made all the same, there is nothing to show beside it.
        return {}
    return {
        rows: {name: (values[name], theirs[rows][name]) for name in _SHOWN if name in values and name in theirs[rows]}
        for rows, values in verdict.metrics.items()
        if rows in theirs
    }


def champion_bundle() -> "Bundle | None":
    """Return the bundle that answers, as the registry holds it; None where nothing answers or it is not held here."""
    from sidrec.bundle import open_bundle
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    if desired is None:
        return None
    ref = desired.arms[0].bundle
    entry = registry().find(ref.bundle_id)
    return None if entry is None else open_bundle(entry.bundle, verify=False)


def deploy_row(row: "LedgerRow") -> dict[str, Any]:
    """Return what deploying came to, as a JSON object; a refusal says that the ledger has the row all the same."""
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
    if bundle:
        return registered_id(bundle)
    if not first:
        raise UsageError("which bundle? Only --first picks one by itself", next_step="sidrec bundle list")
    entry = registry().newest_passing()
    if entry is None:
        raise VerdictError(
            "no registered bundle has a fresh, passing verdict; nothing to promote", next_step="sidrec bundle list"
        )
    return str(entry.bundle_id)
