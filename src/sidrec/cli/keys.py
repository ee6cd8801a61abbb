"""`sidrec keys`: which key signs verdicts here, which ones are trusted, and replacing them."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

keys_app = typer.Typer(help="Keys: what signs verdicts here, and whose signatures count.", no_args_is_help=True)


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(keys_app, name="keys")


@keys_app.command("list")
def list_keys(as_json: JsonFlag = False) -> None:
    """List the public keys that a verdict may be signed with."""
    from sidrec.release import keys

    signs = keys.key_id(keys.signing_key().public_key()) if keys.can_sign() else None
    rows = [{"key_id": name, "signs": name == signs} for name in keys.trusted_keys()]

    def render() -> None:
        for row in rows:
            print(f"{row['key_id']}  {'signs, trusted' if row['signs'] else 'trusted'}")
        if signs is None:
            print("no key signs here: verdicts are checked only")

    emit({"keys": rows, "signs": signs}, as_json, render)


@keys_app.command("rotate")
def rotate_key(as_json: JsonFlag = False) -> None:
    """Make a new key sign from now on; what the old one signed still counts until it is retired."""
    from sidrec.release import keys

    old, new = keys.rotate()
    said = f"{new} signs from now on; {old} is still trusted: sidrec keys retire {old} ends that"
    emit({"old": old, "new": new}, as_json, lambda: print(said))


@keys_app.command("trust")
def trust_key(
    file: Annotated[Path, typer.Argument(help="Public key, PEM.")],
    as_json: JsonFlag = False,
) -> None:
    """Trust one more public key: verdicts that it signs count here."""
    from sidrec.release import keys

    key = keys.load_public(file)
    path = keys.trust(key)
    name = keys.key_id(key)
    emit({"key_id": name, "path": str(path)}, as_json, lambda: print(f"{name} is trusted ({path})"))


@keys_app.command("retire")
def retire_key(
    key: Annotated[str, typer.Argument(help="Key id, of sidrec keys list.")],
    force: Annotated[bool, typer.Option("--force", help="Although what is served was signed with it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Trust a key no longer: what it signed passes nothing from now on, and does not start again."""
    from sidrec.release import keys

    if (held := _held_up(key)) and not force:
        raise UsageError(
            f"{', '.join(held)} is served on a verdict that {key} signed: no server could start with it again",
            next_step="judge it again (sidrec run) and promote it, or --force where the key was stolen",
        )
    keys.retire(key)
    emit({"retired": key, "held_up": held}, as_json, lambda: print(f"{key} is trusted no longer"))


def _held_up(key: str) -> list[str]:
    """Return the bundles of the desired revision whose verdicts this key signed, as far as the registry knows."""
    from sidrec.cli.bundles import registry
    from sidrec.release.ledger import Ledger, decisions
    from sidrec.release.verdict import signer

    decided = decisions(Ledger().rows())
    if not decided:
        return []
    row = decided[-1]
    known = [one for one in row.revision.bundle_ids if registry().find(one) is not None]
    return [one for one in known if signer(registry().verdict_path(one, row.verdicts[one])) == key]
