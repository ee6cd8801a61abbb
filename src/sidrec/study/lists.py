"""A recommender's lists on the rows of a protocol, through the code that serves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sidrec.evaluation.histories import RowHistory, row_histories
from sidrec.evaluation.judging import Lists
from sidrec.evaluation.metrics import LIST_LENGTH
from sidrec.evaluation.protocol import Ints, NextBasket, TargetKind, Targets
from sidrec.progress import track
from sidrec.recommender import Answer, Recommender, Request

BATCH = 64


def recommended_lists(
    recommender: Recommender,
    data: NextBasket,
    targets: Mapping[TargetKind, Targets],
    *,
    history_cap: int,
    label: str,
) -> tuple[Lists, dict[str, Any]]:
    """Return the lists for every row of every kind in `targets`, and what the answers said about themselves."""
    # Novel means not in the whole history, so all of it must be cleared; otherwise the request is serving's.
    caps: dict[TargetKind, int] = {"all": history_cap, "novel": len(data.events)}
    histories = {kind: row_histories(data, cap=caps[kind]) for kind in targets}
    index = {item_id: number for number, item_id in enumerate(data.item_ids)}
    work: list[tuple[TargetKind, Ints]] = []
    for kind in targets:
        rows = np.arange(len(targets[kind].rows))
        # Equal lengths together, so that a batch is padded little.
        lengths = [len(histories[kind][row].item_ids) for row in targets[kind].rows]
        rows = rows[np.argsort(lengths, kind="stable")]
        work += [(kind, rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]

    lists = {kind: np.full((len(targets[kind].rows), LIST_LENGTH), -1, dtype=np.int64) for kind in targets}
    short = dict.fromkeys(targets, 0)
    sources: dict[str, int] = {}
    for kind, rows in track(work, label, total=len(work)):
        chosen = [histories[kind][row] for row in targets[kind].rows[rows]]
        for row, answer in zip(rows, _answers(recommender, chosen, kind), strict=True):
            found = [index.get(item_id, -1) for item_id in answer.item_ids[:LIST_LENGTH]]
            lists[kind][row, : len(found)] = found
            short[kind] += len(found) < LIST_LENGTH
            sources[answer.source] = sources.get(answer.source, 0) + 1
    facts = {
        "bundle_id": recommender.bundle_id,
        "kind": recommender.kind,
        "beam_width": recommender.beam_width,
        "watermark": recommender.decode.get("watermark"),
        "short_lists": short,
        "sources": sources,
    }
    return lists, facts


def _answers(recommender: Recommender, histories: Sequence[RowHistory], kind: TargetKind) -> list[Answer]:
    return recommender.recommend(
        [
            Request(
                item_ids=history.item_ids,
                times=history.times,
                k=LIST_LENGTH,
                exclude_seen=kind == "novel",
                now=history.now,
            )
            for history in histories
        ]
    )
