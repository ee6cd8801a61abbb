"""`sidrec explain`: why a recommender recommends what it does, as far as its system has reasons to show.

The wheel alone is enough for a bundle in a folder and a history on the command line.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sidrec import files, home
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import ServingError, UsageError

if TYPE_CHECKING:
    from sidrec.bundle import Bundle
    from sidrec.data.catalog import Catalog
    from sidrec.recommender import Request
    from sidrec.systems.base import ExplainingModel, Explanation

# Feast is imported and opened for one command.
_STORE_S = 120.0


def explain(
    users: Annotated[list[str] | None, typer.Argument(help="User ids; histories come from the feature store.")] = None,
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas, instead of a user.")] = "",
    bundle: Annotated[str, typer.Option(help="A bundle's id or folder; left out, the champion.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="How many items are explained.")] = 3,
    beam: Annotated[int | None, typer.Option(min=1, help="Beam width; left out, the bundle's own.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain recommendations: what the recommender thought of, or which path it took, in titles."""
    from sidrec.recommender import Recommender

    items = tuple(item.strip() for item in history.split(",") if item.strip())
    if bool(users) == bool(items):
        raise UsageError(
            "expected users or a history, seen both" if users else "expected users or a history, seen neither",
            next_step="sidrec explain USER …, or sidrec explain --history ITEM,ITEM,…",
        )
    opened = _open(bundle)
    model, catalog = _model(opened)
    decode = opened.decode if beam is None else {**opened.decode, "beam_width": beam}
    # The path of every answer, so what is explained is what is served.
    recommender = Recommender(
        bundle_id=opened.bundle_id, kind=opened.recipe.kind, catalog=catalog, model=model, decode=decode
    )
    recommender.set_takedown(_taken_down())
    requests = _requests(users, items, k, opened)
    answers = recommender.recommend(list(requests.values()))
    for (name, request), answer in zip(requests.items(), answers, strict=True):
        if answer.source == "cold":
            raise UsageError(
                f"{name}: none of the {len(request.item_ids)} items is in the catalogue of {opened.bundle_id}, so "
                "popular items are the answer and nothing was thought",
                next_step=f"sidrec explain --history {catalog.item_ids[0]},…",
            )
    explanations = dict(zip(requests, model.explanations, strict=True))
    if html is not None:
        title = f"Why {opened.bundle_id} recommends what it does"
        files.write_text_atomic(html, model.page(list(requests), title=title))
    value = {
        "bundle_id": opened.bundle_id,
        "beam_width": recommender.beam_width,
        "users": [{"user": name, **explanation.as_dict()} for name, explanation in explanations.items()],
    }
    emit(value, as_json, lambda: _show(opened.bundle_id, recommender.beam_width, explanations))


def _open(which: str) -> "Bundle":
    from sidrec.bundle import open_bundle

    if which and Path(which).is_dir():
        return open_bundle(Path(which))
    from serving import registry
    from sidrec.release.ledger import Ledger

    if which:
        return open_bundle(registry.bundle_folder(which))
    desired = Ledger().desired()
    if desired is None:
        raise UsageError(
            "nothing is promoted yet, so there is no champion to explain",
            next_step="sidrec explain --bundle FOLDER …, or sidrec bundle list",
        )
    return open_bundle(registry.bundle_folder(desired.bundle_ids[0]))


def _model(bundle: "Bundle") -> "tuple[ExplainingModel, Catalog]":
    """Return the model that keeps its reasons, and the catalogue."""
    import torch

    from sidrec.data.catalog import Catalog
    from sidrec.recipe import build
    from sidrec.systems.base import Explains

    system = build(bundle.recipe)
    if not isinstance(system, Explains):
        raise UsageError(
            f"{bundle.bundle_id} is of kind {bundle.recipe.kind}, which has no reasons to explain",
            evidence=bundle.folder,
            next_step="sidrec explain --bundle with a bundle of a system that reasons",
        )
    # As in serving: one thread is the fastest for so little, and its sums are the same.
    torch.set_num_threads(1)
    catalog = Catalog.read(bundle.path("catalogue.parquet"))
    return system.explaining(system.open(bundle.folder, catalog)), catalog


def _taken_down() -> frozenset[str]:
    path = home.takedown_path()
    if not path.exists():
        return frozenset()
    from serving.triton.takedown import read_takedown

    return read_takedown(path)


def _requests(users: list[str] | None, items: tuple[str, ...], k: int, bundle: "Bundle") -> "dict[str, Request]":
    """Return a request by user, or the one of the history on the command line."""
    from sidrec import clock
    from sidrec.recommender import Request

    as_of = int(bundle.decode["as_of_time"])
    now = clock.now(bundle.decode.get("clock", "event"), None, as_of)
    if not users:
        return {"this history": Request(items, (), k, now=now)}
    from serving.history import HistoryReader

    wanted = list(dict.fromkeys(users))
    reader = HistoryReader()
    reader.wait_open(_STORE_S)
    found = reader.read(wanted, now=now, deadline_ms=_STORE_S * 1000)
    reader.close()
    requests = {}
    for user, stored in zip(wanted, found, strict=True):
        if stored.status == "error":
            raise ServingError(
                f"the feature store does not answer: {reader.last_error}",
                evidence=home.feast_dir(),
                next_step="sidrec run, or give --history",
            )
        if stored.status == "missing":
            raise UsageError(
                f"user {user!r} is not in the feature store", evidence=home.feast_dir(), next_step="give --history"
            )
        if stored.status == "stale":
            raise UsageError(
                f"the newest event of user {user!r} is {(stored.age_s or 0) // clock.DAY_S} days old, which is too old "
                "to be served",
                evidence=home.feast_dir(),
                next_step="sidrec run, or give --history",
            )
        requests[user] = Request(stored.item_ids, stored.times, k, now=now)
    return requests


def _show(bundle_id: str, beam_width: int, explanations: "dict[str, Explanation]") -> None:
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f"{bundle_id}, beam width {beam_width}")
    for user, explanation in explanations.items():
        first, *rest = explanation.lines()
        say(f"\n{user}: {first}")
        for line in rest:
            say(line)
