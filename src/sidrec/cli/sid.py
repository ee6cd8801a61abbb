"""`sidrec sid`: the codebook and its semantic IDs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sidrec import files
from sidrec.bundle import open_bundle
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

app = typer.Typer(help="Semantic IDs: the codebook's health.", no_args_is_help=True)


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(app, name="sid")


@app.callback()
def _group() -> None:
    """Semantic IDs: the codebook's health."""


@app.command()
def health(
    bundle: Annotated[str, typer.Argument(help="A bundle id or folder; the champion when left out.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show utilisation, dead codes, entropy and collisions of a bundle's codebook, level by level."""
    folder = Path(bundle) if bundle and Path(bundle).is_dir() else _registered(bundle)
    opened = open_bundle(folder)
    value = files.read_json(opened.folder / "codebook" / "health.json")

    def render() -> None:
        console = Console(highlight=False)
        table = Table("level", "used", "dead", "perplexity", "entropy", box=None, header_style="bold")
        for level in value["levels"]:
            table.add_row(
                str(level["level"]),
                f"{level['utilisation']:.1%}",
                str(level["dead_codes"]),
                f"{level['perplexity']:.1f}",
                f"{level['normalised_entropy']:.3f}",
            )
        console.print(f"bundle {opened.bundle_id}: {value['items']:,} items")
        console.print(table)
        console.print(f"collision rate {value['collision_rate']:.4f} before disambiguation")

    emit({"bundle_id": opened.bundle_id, **value}, as_json, render)


def _registered(bundle_id: str) -> Path:
    from serving import registry
    from sidrec.release.ledger import Ledger

    if bundle_id:
        return Path(registry.bundle_folder(bundle_id))
    desired = Ledger().desired()
    if desired is None:
        raise UsageError("nothing is promoted yet, so there is no champion to show", next_step="sidrec bundle list")
    return Path(registry.bundle_folder(desired.bundle_ids[0]))
