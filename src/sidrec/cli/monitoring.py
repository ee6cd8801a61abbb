"""`sidrec drift`, `dashboards`, `replay`, `events`: what traffic does, and traffic to watch."""

import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sidrec import files, home
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import ServingError, UsageError
from sidrec.process import exclusive
from sidrec.recipe import load_recipe

if TYPE_CHECKING:
    from monitoring.report import Sources
    from sidrec.recipe import Recipe

drift = typer.Typer(help="Drift of traffic, answers and code usage.", no_args_is_help=True)
events = typer.Typer(help="Send what users did after an answer.", no_args_is_help=True)

_EXPOSURES_WAIT_S = 30.0
_ASK_TIMEOUT_S = 10.0
_PUSH_ROWS = 5_000


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(drift, name="drift")
    root.add_typer(events, name="events")
    root.command()(dashboards)
    root.command()(replay)


@drift.callback()
def _drift() -> None:
    """Drift of traffic, answers and code usage."""


@events.callback()
def _events() -> None:
    """Send what users did after an answer."""


@drift.command()
def report(
    reference: Annotated[
        str, typer.Option(help="What purchases are compared with: fit, recent (28 days), or FIRST..LAST.")
    ] = "fit",
    week: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day of the week; the newest.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder; the one that served last.")] = None,
    baskets: Annotated[Path | None, typer.Option(help="Basket table; that of the run which made the bundle.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe; the one in the bundle.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Report one week of exposures and outcomes: exit 0 ok or warn, 1 alarm, 3 too little data."""
    from monitoring import report as reports

    sources, parsed = _sources(bundle, baskets, recipe)
    with exclusive(home.monitoring_dir() / "lock", "the drift report"):
        built = reports.build(sources, parsed, week=None if week is None else week.date(), reference=reference)
        folder = home.monitoring_dir() / "reports" / "empty" if built is None else reports.report_dir(built)
        if built is None:
            verdict = reports.no_data(sources, folder)
        else:
            verdict = reports.save(built, parsed, folder, reports.workspace_dir())
    verdict |= {"folder": str(folder), "html": None if built is None else str(folder / reports.HTML)}
    emit(verdict, as_json, lambda: _show(verdict))
    return reports.EXIT_CODES[verdict["level"]]


@drift.command()
def calibrate(
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")] = None,
    windows: Annotated[int, typer.Option(help="A/A windows to set thresholds on, and as many to check.", min=20)] = 200,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder; the one that served last.")] = None,
    baskets: Annotated[Path | None, typer.Option(help="Basket table; that of the run which made the bundle.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe; the one in the bundle.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; the one that reports here read.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Set thresholds on windows of unchanged traffic: exit 1 when others are over more often than the budget."""
    from monitoring import calibrate as calibration
    from monitoring import thresholds

    sources, parsed = _sources(bundle, baskets, recipe)
    days = None if first is None or last is None else (first.date(), last.date())
    if days is None and (first or last):
        raise UsageError("--from and --to go together")
    target = out or thresholds.local_path()
    with exclusive(home.monitoring_dir() / "lock", "the calibration"):
        found = calibration.of_logs(sources, parsed, thresholds.load(thresholds.SHIPPED), days=days, windows=windows)
        done = found.calibration
        assert done is not None
        within = done.over_bound <= found.budget
        if within:
            thresholds.save(found, target)
    value = {"budget": found.budget, "within_budget": within, "file": str(target), **done.model_dump(mode="json")}
    emit(value, as_json, lambda: _show_calibration(value))
    return 0 if within else 1


def dashboards(
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8080,
    as_json: JsonFlag = False,
) -> int:
    """Serve Evidently's page over the drift reports on 127.0.0.1 until interrupted."""
    from monitoring import ui
    from monitoring.report import workspace_dir

    workspace = workspace_dir()
    if not workspace.exists():
        raise UsageError(f"no drift report in {workspace} yet", next_step="sidrec drift report")
    url = f"http://127.0.0.1:{port}"
    value = {"url": url, "workspace": str(workspace)}
    with ui.serve(workspace, port) as process:
        try:
            # Importing polars puts a handler in place that restarts the wait below, so Ctrl-C would never end it. Who
            # reads the address may send a signal at once.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            emit(value, as_json, lambda: Console().print(f"dashboards at {url} (Ctrl-C stops)", highlight=False))
            sys.stdout.flush()
            return process.wait()
        except KeyboardInterrupt:
            return 0


def replay(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")],
    baskets: Annotated[Path | None, typer.Option(help="Basket table; that of the latest run.")] = None,
    grpc: Annotated[str, typer.Option(help="host:port of the gRPC door; the running server's.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Send these days' real customers to the running server: each asks, then buys what it really bought."""
    from monitoring import replay as traffic
    from serving.events import push_events
    from sidrec.client import RecommendClient

    table = baskets or _baskets_of_run(None)
    rows = traffic.baskets_of(table, first.date(), last.date())
    if rows.is_empty():
        raise UsageError(f"no basket from {first.date()} to {last.date()} in {table}")
    with RecommendClient(grpc or _running_server(), timeout_s=_ASK_TIMEOUT_S) as client:
        done = traffic.replay(rows, lambda user, context: client.recommend(user_id=user, context=context), push_events)
    logged = traffic.wait_logged(home.exposures_dir(), done.request_ids, timeout_s=_EXPOSURES_WAIT_S)
    value = {"first": str(first.date()), "last": str(last.date()), **done.as_dict(), "logged": logged}
    emit(value, as_json, lambda: _show_replay(value))
    if done.errors:
        raise ServingError(
            f"{done.errors} of {done.requests} requests were not answered; the first: {done.first_error}",
            evidence=home.serving_dir(),
            next_step="sidrec status; sidrec replay again adds only what is missing",
        )
    if logged < done.requests:
        raise ServingError(
            f"{done.requests - logged} of {done.requests} answers are not in the exposure log",
            evidence=home.exposures_dir(),
            next_step="is the server's SIDREC_HOME this one?",
        )


@events.command()
def push(
    file: Annotated[Path, typer.Argument(help="Events: CSV, Parquet or JSONL with the outcome columns.")],
    as_json: JsonFlag = False,
) -> None:
    """Record events; the next recommendation of their users sees them. Sending a file twice counts once."""
    from monitoring.event_file import read_events
    from serving.events import push_events

    outcomes = read_events(file)
    total = {"sent": 0, "new": 0, "duplicates": 0}
    for start in range(0, len(outcomes), _PUSH_ROWS):
        pushed = push_events(outcomes[start : start + _PUSH_ROWS])
        for name in total:
            total[name] += getattr(pushed, name)
    emit(
        total,
        as_json,
        lambda: Console().print(
            f"{total['sent']:,} events: {total['new']:,} new, {total['duplicates']:,} known before"
        ),
    )


def _sources(bundle: Path | None, baskets: Path | None, recipe: Path | None) -> tuple["Sources", "Recipe"]:
    """Return where the report's rows are, and the recipe whose thresholds judge them."""
    from monitoring.report import Sources
    from sidrec.bundle import open_bundle

    opened = open_bundle(bundle or _bundle_that_served(), verify=False)
    parsed = opened.recipe if recipe is None else load_recipe(recipe)[1]
    sources = Sources(
        exposures=home.exposures_dir(),
        outcomes=home.outcomes_dir(),
        baskets=baskets or _baskets_of_run(opened.bundle_id),
        bundle=opened.folder,
        others=_other_bundles(opened.bundle_id),
    )
    return sources, parsed


def _other_bundles(bundle_id: str) -> tuple[Path, ...]:
    """Return the folders of the other bundles that answered, of those that are registered here."""
    from monitoring.windows import bundles_of, scan_exposures
    from serving import registry
    from sidrec.errors import BundleError

    folders = []
    for other in bundles_of(scan_exposures(home.exposures_dir())):
        try:
            folders += [] if other == bundle_id else [Path(registry.bundle_folder(other))]
        except BundleError:
            continue  # its codes are then counted without their sizes
    return tuple(folders)


def _bundle_that_served() -> Path:
    from monitoring.windows import newest_bundle, scan_exposures
    from serving import registry
    from sidrec.release.ledger import Ledger

    served = newest_bundle(scan_exposures(home.exposures_dir()))
    if served is not None:
        return Path(registry.bundle_folder(served))
    desired = Ledger().desired()
    if desired is None:
        raise UsageError(
            "nothing was served and nothing is promoted, so there is nothing to report on",
            next_step="sidrec run, then sidrec promote --first --reason '…', sidrec serve, sidrec replay",
        )
    return Path(registry.bundle_folder(desired.bundle_ids[0]))


def _baskets_of_run(bundle_id: str | None) -> Path:
    """Return the basket table of the newest run that made this bundle, or of the newest run."""
    newest_first = sorted(home.runs_dir().glob("*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    results = [files.read_json(path) for path in newest_first]
    made = [result for result in results if "baskets" in result and bundle_id in (None, result["bundle_id"])]
    if not made:
        what = "no run has finished here" if bundle_id is None else f"no run here made bundle {bundle_id}"
        raise UsageError(f"{what}, so its baskets are not known", next_step="sidrec run, or --baskets FILE")
    return Path(made[0]["baskets"])


def _running_server() -> str:
    from serving.state import read_state

    state = read_state()
    if state is None or not state.get("grpc"):
        raise ServingError("no server runs here", evidence=home.serving_dir(), next_step="sidrec serve --detach")
    return str(state["grpc"])


def _show(verdict: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colour = {"ok": "green", "warn": "yellow", "alarm": "red", "insufficient": "magenta"}[verdict["level"]]
    console.print(f"[{colour}]{verdict['sentence']}[/]")
    if "item_drift" not in verdict:
        console.print("next: sidrec replay --from FIRST --to LAST, or sidrec events push FILE")
        return
    n, outcomes = verdict["n"], verdict["outcomes"]
    console.print(
        f"{n['requests']:,} requests, {outcomes['hit_rate']:.1%} with a hit so far\n"
        f"{outcomes['outcomes']:,} purchases: {outcomes['by_request']:,} by request, "
        f"{outcomes['by_item']:,} by user and item, {outcomes['unmatched']:,} unmatched"
    )
    for arm in verdict["arms"]:
        shares = f"{arm['cold_share']:.1%} cold, {arm['degraded_share']:.1%} degraded"
        latency = f"p50 {arm['latency_p50_ms']:.0f} ms, p99 {arm['latency_p99_ms']:.0f} ms"
        console.print(f"arm {arm['arm']} ({arm['bundle_id']}): {arm['requests']:,} requests, {shares}, {latency}")
    for number, suspect in enumerate(verdict["suspects"], start=1):
        console.print(f"suspect {number}: {suspect['sentence']}")
    table = Table("measure", "value", "warns at", "weeks over", box=None, header_style="bold")
    for measure in verdict["measures"]:
        name = f"{measure['panel']}: {measure['kind']} ({measure['statistic']})"
        over = f"{measure['weeks_crossed']} of {measure['weeks_measured']}"
        table.add_row(name, f"{measure['value']:.3f}", f"{measure['threshold']:g}", over)
    if verdict["measures"]:
        console.print(f"against {verdict['references']['requests']}:")
        console.print(table)
    levels = Table("codes", "level", "used", "perplexity", "n", box=None, header_style="bold")
    for usage in verdict["codebook"]:
        used, perplexity = f"{usage['utilisation']:.1%} of {usage['size']}", f"{usage['perplexity']:.1f}"
        levels.add_row(usage["traffic"], str(usage["level"]), used, perplexity, f"{usage['events']:,}")
    if verdict["codebook"]:
        console.print(levels)
    console.print(f"page: {verdict['html']}; all weeks: sidrec dashboards")


def _show_calibration(value: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{value['over']} of {value['windows']} A/A windows of {value['first_day']}..{value['last_day']} had anything "
        f"over: at most {value['over_bound']:.1%} with 99 % confidence, budget {value['budget']:.1%}; "
        f"{value['warned']} would have warned"
    )
    for name, warn in value["raised"].items():
        console.print(f"raised: {name} to {warn:g}")
    if value["within_budget"]:
        console.print(f"thresholds: {value['file']}")
    else:
        console.print("over the budget, nothing written; next: sidrec drift calibrate --windows N with more windows")


def _show_replay(value: dict[str, Any]) -> None:
    sources = ", ".join(f"{count:,} {source}" for source, count in sorted(value["sources"].items()))
    Console(highlight=False, soft_wrap=True).print(
        f"{value['requests']:,} requests in {value['seconds']:.1f} s: {sources or 'no answer'}, "
        f"{value['errors']} errors; {value['logged']:,} in the exposure log\n"
        f"{value['purchases']:,} purchases ({value['new_purchases']:,} new); {value['hits']:,} recommended items were "
        f"bought, by {value['requests_with_hit']:,} of the customers who asked"
    )
