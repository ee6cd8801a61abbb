"""`sidrec bench`: how fast a part is beside what one would use instead, on this machine."""

import importlib
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import UsageError

# Installed by the extra `bench` alone.
_PEERS = frozenset({"faiss", "ortools", "sklearn", "threadpoolctl", "transformers", "vector_quantize_pytorch"})


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    name: Annotated[str | None, typer.Argument(help="What to measure; `--list` names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the benchmarks and measure nothing.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shows that all runs, judges nothing.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Measure ours and its peers in turn; exit status 1 when a goal is missed."""
    from benchmarks import BENCHMARKS

    if listed:
        emit(BENCHMARKS, as_json, lambda: _print_names(BENCHMARKS))
        return 0
    if name not in BENCHMARKS:
        said = "no benchmark is named" if name is None else f"there is no benchmark {name!r}"
        raise UsageError(f"{said}; there is: {', '.join(BENCHMARKS)}", next_step="sidrec bench --list")
    report = _measured(name, quick=quick)
    emit(report, as_json, lambda: _print_report(report))
    return 1 if any(row["met"] is False for row in report["results"]) else 0


def _measured(name: str, *, quick: bool) -> dict[str, Any]:
    try:
        module = importlib.import_module(f"benchmarks.{name}")
        report: dict[str, Any] = module.run(quick=quick)
    except ModuleNotFoundError as absent:
        if absent.name is None or absent.name.split(".")[0] not in _PEERS:
            raise
        raise UsageError(
            f"the peers to measure beside are not installed: there is no {absent.name}",
            next_step="pip install 'sidrec[bench]'",
        ) from absent
    return report


def _print_names(names: dict[str, str]) -> None:
    for name, what in names.items():
        print(f"{name}: {what}")


def _print_report(report: dict[str, Any]) -> None:
    machine = report["machine"]
    console = Console()
    console.print(
        f"{machine['cpu']}, {machine['threads']} thread, torch {machine['torch']}, load {machine['load_before']} → "
        f"{machine['load_after']}, commit {report['commit'][:12]}"
    )
    table = Table("what", "ours", "peer", "ratio", "goal", "met", "spread")
    for row in report["results"]:
        ours, peer, ratio = (
            "" if row[key] is None else f"{row[key]:.4g}{unit}"
            for key, unit in (("ours", f" {row['unit']}"), ("peer", f" {row['unit']}"), ("ratio", "x"))
        )
        met = {True: "yes", False: "[red]no[/]", None: ""}[row["met"]]
        what, spread = f"{row['name']}\n[dim]{row['notes']}[/]", f"{row['spread']:.0%}"
        table.add_row(what, ours, peer, ratio, row["goal"] or "", met, spread)
    console.print(table)
