"""`sidrec sid`: a codebook's health, its next catalogue, and what a change of it would break.

The wheel alone is enough for codebooks and bundles in folders; a bundle's id is looked up in the registry.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from sidrec import files
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from sidrec.codebook.artefact import Artefact
    from sidrec.evaluation.config import GateConfig

app = typer.Typer(help="Semantic IDs: health, append, refresh, diff, explain.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="A bundle id, a bundle's or a codebook's folder; left out, the champion.")]
Items = Annotated[Path, typer.Option(help="Items as they are now, Parquet or CSV: item_id, title, popularity, …")]
Out = Annotated[Path, typer.Option(help="Folder of the next codebook; what is there is replaced.")]
Html = Annotated[Path | None, typer.Option(help="Also write a page with plots to this file.")]
Vectors = Annotated[Path | None, typer.Option(help="Parquet of item vectors, where they come from your own column.")]
Day = Annotated[str, typer.Option(help="Day on which items that are no longer listed are buried; today.")]


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(app, name="sid")


@app.callback()
def _group() -> None:
    """Semantic IDs: health, append, refresh, diff, explain."""


@app.command()
def health(
    codebook: Which = "",
    html: Html = None,
    exposures: Annotated[
        Path | None, typer.Option(help="Folder of the exposure log; left out, this installation's, for its bundles.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show utilisation, dead codes, entropy, collisions and the alarm of a codebook, level by level."""
    artefact, name = _open(codebook)
    value = _with_served(artefact, name, exposures)
    if html is not None:
        from sidrec.codebook.page import health_page

        _require_report(value, name)
        files.write_text_atomic(html, health_page(value, title=name, catalog=artefact.catalog))
    emit({"codebook": name, **value}, as_json, lambda: _show_health(value, name))


@app.command()
def append(
    codebook: Which, items: Items, out: Out, vectors: Vectors = None, day: Day = "", as_json: JsonFlag = False
) -> None:
    """Give new items semantic IDs; no published one moves and no codeword changes."""
    _grow("append", codebook, items, None, out, vectors, day, {}, as_json)


@app.command()
def refresh(
    codebook: Which,
    items: Items,
    out: Out,
    baskets: Annotated[
        Path | None, typer.Option(help="Parquet of baskets (user_id, day, item_ids) that smooth the vectors.")
    ] = None,
    churn_budget: Annotated[float, typer.Option(help="Largest share of traffic whose semantic ID may move.")] = 0.05,
    epsilon: Annotated[float, typer.Option(help="Share of its length that a move must gain an item.")] = 0.02,
    over_budget: Annotated[
        str, typer.Option(help="defer: moves beyond the budget wait. retrain: all are made.")
    ] = "defer",
    vectors: Vectors = None,
    day: Day = "",
    as_json: JsonFlag = False,
) -> None:
    """Let the codewords follow the catalogue, and move published items only where it pays and the budget allows."""
    settings = {"churn_budget": churn_budget, "epsilon": epsilon, "over_budget": over_budget}
    _grow("refresh", codebook, items, baskets, out, vectors, day, settings, as_json)


@app.command("diff")
def show_diff(
    before: Annotated[str, typer.Argument(help="A bundle id, a bundle's or a codebook's folder.")],
    after: Annotated[str, typer.Argument(help="The same, of the later one.")],
    html: Html = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what going from one codebook to another breaks: movers, traffic, collisions, history tokens."""
    from sidrec.codebook.diff import diff

    (old, old_name), (new, new_name) = _open(before), _open(after)
    quantizer = new.codebook.quantizer
    was = old.codebook.quantizer
    value = diff(
        old.catalog,
        new.catalog,
        num_levels=quantizer.num_levels,
        codebook_size=quantizer.codebook_size,
        num_levels_before=was.num_levels,
        codebook_size_before=was.codebook_size,
    )
    value = {
        "before": old_name,
        "after": new_name,
        "same_lineage": old.codebook.lineage == new.codebook.lineage,
        **value,
    }
    if html is not None:
        from sidrec.codebook.page import diff_page

        files.write_text_atomic(html, diff_page(value, title=f"{old_name} to {new_name}"))
    emit(value, as_json, lambda: _show_diff(value))


@app.command("explain")
def show_item(
    item: Annotated[str, typer.Argument(help="An item's id.")],
    codebook: Annotated[str, typer.Option("--in", help="A bundle id, a bundle's or a codebook's folder.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Explain an item's semantic ID: beside whom each code puts it, and how much of it the codes explain."""
    import polars as pl

    from sidrec.codebook.explain import explain
    from sidrec.data.embedding import open_embedder

    artefact, name = _open(codebook)
    vector = None
    row = artefact.catalog.index_of.get(item)
    embedder = open_embedder(artefact.embedder)
    if row is not None and embedder.settings["source"] != "column":
        # Brand and categories are not in the catalogue: what they say of the item is missing here.
        known = pl.DataFrame({"item_id": [item], "title": [artefact.catalog.titles[row]]})
        vector = embedder.vectors(known)[0]
    value = {"codebook": name, **explain(item, artefact.catalog, quantizer=artefact.codebook.quantizer, vector=vector)}
    emit(value, as_json, lambda: _show_item(value))


def _grow(
    verb: Literal["append", "refresh"],
    codebook: str,
    items_file: Path,
    baskets_file: Path | None,
    out: Path,
    vectors_file: Path | None,
    day: str,
    settings: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Carry out one verb on a codebook and write the next one, whatever its gates say; a failed gate is the status."""
    import polars as pl

    from sidrec.codebook.build import Sources, build
    from sidrec.codebook.config import LifecycleConfig
    from sidrec.codebook.record import write_artefact
    from sidrec.data.embedding import open_embedder

    parent, name = _open(codebook)
    lifecycle = LifecycleConfig.model_validate({"verb": verb, **settings})
    items = _table(items_file)
    vectors = open_embedder(parent.embedder, vectors=vectors_file).vectors(items)
    baskets = None if baskets_file is None else pl.read_parquet(baskets_file)
    removed_on = date.fromisoformat(day) if day else date.today()
    sources = Sources(items, vectors, baskets, parent.codebook.lineage, removed_on)
    built = build(parent, sources, parent.codebook.config, lifecycle, seed=0)
    gates = write_artefact(built, parent, parent.embedder, out, lifecycle=lifecycle, gates=_gates(codebook))
    written = files.read_json(out / "health.json")
    value = {
        "parent": name,
        "folder": str(out),
        **built.decision.as_dict(),
        "items": len(built.catalog),
        "generation": built.codebook.generation,
        "churn": written["churn"],
        "alarm": written["report"]["alarm"],
        "said": written.get("sentence"),
        "gates": {gate.name: gate.result for gate in gates},
    }
    emit(value, as_json, lambda: _show_growth(value))
    failed = [gate for gate in gates if gate.result == "fail"]
    if failed and as_json:  # the result is the one JSON object
        raise typer.Exit(CheckFailedError.exit_code)
    if failed:
        raise CheckFailedError(
            " ".join(gate.sentence for gate in failed),
            evidence=out / "health.json",
            next_step=f"sidrec sid diff {codebook or 'CHAMPION'} {out}",
        )


def _open(which: str) -> tuple["Artefact", str]:
    """Return the codebook of a bundle or a folder, and how to call it."""
    from sidrec.bundle import MANIFEST, open_bundle
    from sidrec.codebook.artefact import Artefact

    folder = Path(which) if which and Path(which).is_dir() else None
    if folder is not None and not (folder / MANIFEST).exists():
        return Artefact.open(folder), str(folder)
    bundle = open_bundle(folder or _registered(which))
    artefact = Artefact.in_bundle(bundle.folder)
    if artefact is None:
        raise UsageError(f"{bundle.bundle_id} is of a system without a codebook", evidence=bundle.folder)
    return artefact, bundle.bundle_id


def _gates(which: str) -> "GateConfig":
    """Return the limits of a bundle's recipe, the defaults for a codebook that lies apart."""
    from sidrec.bundle import MANIFEST, open_bundle
    from sidrec.evaluation.config import GateConfig

    folder = Path(which) if which and Path(which).is_dir() else None
    if folder is not None and not (folder / MANIFEST).exists():
        return GateConfig.model_validate({"floor": "global_popularity"})
    return open_bundle(folder or _registered(which), verify=False).recipe.gates


def _table(path: Path) -> "pl.DataFrame":
    import polars as pl

    if not path.is_file():
        raise UsageError(f"no items file at {path}")
    if path.suffix == ".csv":
        return pl.read_csv(path, schema_overrides={"item_id": pl.String})
    return pl.read_parquet(path)


def _registered(bundle_id: str) -> Path:
    from serving import registry
    from sidrec.release.ledger import Ledger

    if bundle_id:
        return Path(registry.bundle_folder(bundle_id))
    desired = Ledger().desired()
    if desired is None:
        raise UsageError("nothing is promoted yet, so there is no champion to show", next_step="sidrec bundle list")
    return Path(registry.bundle_folder(desired.bundle_ids[0]))


def _with_served(artefact: "Artefact", name: str, folder: Path | None) -> dict[str, Any]:
    """Return the health record, with the view of what this bundle has served where the exposure log knows of it."""
    import numpy as np
    import polars as pl

    from sidrec import exposure, home
    from sidrec.codebook.health_report import with_served

    value = artefact.health
    log = folder or home.exposures_dir()
    if "report" not in value or not log.is_dir():
        return value
    shown = exposure.read(log).filter(pl.col("bundle_id") == name)["item_ids"].explode().drop_nulls()
    rows = artefact.catalog.known(shown.to_list())
    if not rows:
        return value
    served = np.bincount(rows, minlength=len(artefact.catalog))
    size = artefact.codebook.quantizer.codebook_size
    return {**value, "report": with_served(value["report"], artefact.catalog.codes, size, served)}


def _require_report(value: Mapping[str, Any], name: str) -> None:
    if "report" not in value:
        raise UsageError(
            f"{name} was made by a version that wrote no full health report, so there is nothing to plot",
            next_step="sidrec run, or sidrec sid refresh, makes one",
        )


def _show_health(value: Mapping[str, Any], name: str) -> None:
    console = Console(highlight=False)
    table = Table("level", "used", "dead", "perplexity", "entropy", "Gini", box=None, header_style="bold")
    for level in value["levels"]:
        table.add_row(
            str(level["level"]),
            f"{level['utilisation']:.1%}",
            str(level["dead_codes"]),
            f"{level['perplexity']:.1f}",
            f"{level['normalised_entropy']:.3f}",
            f"{level['gini']:.3f}",
        )
    console.print(f"{name}: {value['items']:,} items")
    console.print(table)
    console.print(f"collision rate {value['collision_rate']:.4f} before collisions were resolved")
    views = value["report"]["views"] if "report" in value else {}
    for view in ("traffic", "served"):
        if isinstance(views.get(view), list):
            shares = ", ".join(f"{level['utilisation']:.1%}" for level in views[view])
            console.print(f"codes used by {view}, level by level: {shares}")
    if "report" in value:
        console.print(value["report"]["alarm"]["sentence"], soft_wrap=True)
    for gate in value.get("gates", []):
        console.print(f"{gate['result']}  {gate['name']}: {gate['sentence']}", soft_wrap=True, markup=False)


def _show_growth(value: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"{value['verb']}: {value['reason']}", soft_wrap=True, markup=False)
    if value["said"]:
        console.print(value["said"], soft_wrap=True, markup=False)
    churn = value["churn"]
    console.print(
        f"{value['items']:,} items, generation {value['generation']}; {churn['moved']:,} of {churn['published']:,} "
        f"published items moved, {churn['share']:.1%} of the traffic"
    )
    console.print(value["alarm"]["sentence"], soft_wrap=True, markup=False)
    console.print(f"next: sidrec sid diff {value['parent']} {value['folder']}", soft_wrap=True)


def _show_diff(value: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    items, moved = value["items"], value["moved"]
    console.print(
        f"{value['before']} -> {value['after']}: {moved['items']:,} of {items['common']:,} items moved "
        f"({moved['share']:.1%}), {moved['traffic']:.1%} of the traffic; "
        f"{value['history_tokens_rewritten']:.1%} of history tokens rewritten",
        soft_wrap=True,
    )
    if not value["same_lineage"]:
        console.print("the two are of different lineages: equal codes mean nothing", style="yellow")
    console.print(f"{items['added']:,} added, {items['removed']:,} removed, {items['restored']:,} restored")
    table = Table("codes kept", "items", "traffic", box=None, header_style="bold")
    for row in value["shared_prefix"]:
        table.add_row(str(row["depth"]), f"{row['items']:,}", f"{row['traffic']:.1%}")
    console.print(table)
    shared, dead = value["collisions"], value["dead_codes"]
    console.print(
        f"collisions: {shared['created']:,} created, {shared['healed']:,} healed; dead codes by level "
        f"{dead['before']} -> {dead['after']}"
    )
    for mover in value["top_movers"][:10]:
        console.print(
            f"  {mover['traffic']:.2%}  {mover['item_id']}  {mover['title']}  {mover['before']} -> {mover['after']}",
            markup=False,
            soft_wrap=True,
        )


def _show_item(value: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    buried = f", removed on {value['removed_on']}" if value["removed_on"] else ""
    console.print(f"{value['item_id']}  {value['title']}  {value['semantic_id']}{buried}", markup=False)
    for level in value["levels"]:
        explained = "" if level["explained"] is None else f", {level['explained']:.0%} explained so far"
        console.print(f"  code {level['code']} at level {level['level']}: {level['items']:,} items{explained}")
        if level["titles"]:
            console.print(f"    {'; '.join(level['titles'])}", markup=False, soft_wrap=True)
    if value["moved_from_plain"]:
        console.print(
            f"  by its text alone the codes would be {value['plain_codes']}: baskets, a collision or an earlier "
            "generation gave it these"
        )
