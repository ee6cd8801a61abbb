"""The command `sidrec`: every command of the house, and how errors leave it."""

import functools
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from sidrec import __version__
from sidrec.cli.run import json_error
from sidrec.errors import SidrecError, UsageError

# What a bare wheel lacks: the folders beside the library, and the platforms they adapt.
_APPLICATION = frozenset(
    {"benchmarks", "components", "pipelines", "serving", "monitoring", "feature_repo"}
    | {"kfp", "feast", "great_expectations", "bentoml", "tritonclient", "evidently"}
)

app = typer.Typer(
    help="Generative recommendation on semantic IDs: train, gate, promote, serve, watch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Every command takes --json; exit status 0 ok, 1 a check failed, 2 usage, 3 inconclusive."""


@functools.cache
def _mount() -> None:
    """Add every command; a second time would add them all again, and each call builds what is there."""
    from sidrec.cli import (
        ab,
        bench,
        bundles,
        doctor,
        explain,
        guard,
        keys,
        ledger,
        monitoring,
        release,
        release_page,
        run,
        schedule,
        serving,
        sid,
        status,
        study,
        takedown,
        triage,
        watch,
    )

    app.command()(doctor.doctor)
    app.command()(run.run)
    app.command()(status.status)
    app.command()(explain.explain)
    parts = (
        serving,
        bundles,
        release_page,
        release,
        ledger,
        guard,
        takedown,
        keys,
        monitoring,
        watch,
        triage,
        ab,
        sid,
        study,
        schedule,
        bench,
    )
    for module in parts:
        module.mount(app)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; an error is one block, never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    _mount()
    try:
        result: Any = app(args=given, standalone_mode=False)
    except SidrecError as error:
        _print_error(error, as_json="--json" in given)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _APPLICATION:
            raise
        absent = UsageError(
            f"this command needs the application, and this installation has no {error.name}",
            next_step="run it from a checkout after `make setup`, or in the project's images",
        )
        _print_error(absent, as_json="--json" in given)
        return absent.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        # click's own usage errors know how to print themselves.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        raise
    return result if isinstance(result, int) else 0


def _print_error(error: SidrecError, *, as_json: bool) -> None:
    if as_json:
        print(json_error(error.as_dict()))
        return
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[red]{type(error).__name__}[/]: {error.message}", highlight=False)
    if error.evidence:
        console.print(f"  evidence: {error.evidence}", highlight=False)
    if error.next_step:
        console.print(f"  next: {error.next_step}", highlight=False)


def entry() -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(main())
