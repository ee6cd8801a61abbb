"""One pass in pieces gives what plain loops over all rows give."""

from collections import Counter
from datetime import date

import polars as pl
import pytest

from monitoring import aggregate, arms, counting, windows
from monitoring.counting import Part, Tally
from sidrec import exposure, outcome
from sidrec.exposure import Exposure
from tests.monitoring.drift_world import BUNDLE_ID, at, exposed

DAY = 86_400
PARTS = (Part(100, 200), Part(0, 100))
NO_OUTCOMES = outcome.SCHEMA.to_frame().lazy()


def tallied(rows: list[Exposure], piece_rows: int = 3, **options: object) -> Tally:
    frame = exposure.frame(rows).lazy()
    return counting.tally(frame, PARTS, NO_OUTCOMES, watermark=10**9, piece_rows=piece_rows, **options)  # type: ignore[arg-type]


def mixed(count: int = 40) -> list[Exposure]:
    """Return requests of two arms in both parts and outside of them."""
    return [
        exposed(
            f"r{number}",
            f"u{number % 7}",
            number * 6,
            [f"i{(number + step) % 5}" for step in range(number % 3 + 1)],
            arm="control" if number % 2 else "treatment",
            bundle_id=BUNDLE_ID if number % 2 else "b-other0000000",
            history_length=number % 4,
            source="model" if number % 5 else "cold",
            k=3,
            stats=[{"name": "x", "value": number % 3 / 10}],
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("piece_rows", [1, 7, 1000])
def test_counts_are_those_of_a_loop_whatever_the_pieces(piece_rows: int) -> None:
    """Items, histories, sources, short lists and searches' numbers, by part and arm."""
    rows = mixed()
    tally = tallied(rows, piece_rows)
    for number, part in enumerate(PARTS):
        for arm in ("control", "treatment"):
            own = [row for row in rows if row.arm == arm and part.first <= row.event_time < part.after]
            table = tally.table([number], own[0].bundle_id, arm)
            expected = {
                aggregate.SERVED: Counter(item for row in own for item in row.item_ids),
                "history_length": Counter(str(row.history_length) for row in own),
                "source": Counter(row.source for row in own),
                "null_history": Counter("no" if row.history_length else "yes" for row in own),
                "short_list": Counter("yes" if len(row.item_ids) < row.k else "no" for row in own),
                "search/x": Counter(str(row.stats[0]["value"]) for row in own),
                "served_code/1": Counter(str(codes[1]) for row in own for codes in row.semantic_ids),
            }

            assert {kind: aggregate.counts_of(table, kind) for kind in expected} == expected
            assert tally.requests([number], arm) == len(own)


def test_parts_and_arms_add_up() -> None:
    """All arms of all parts together are the rows that lie in a part."""
    rows = mixed()
    tally = tallied(rows)

    assert tally.requests([0, 1]) == sum(row.event_time < 200 for row in rows)
    assert sum(aggregate.counts_of(tally.table([0, 1], None), aggregate.SERVED).values()) == sum(
        len(row.item_ids) for row in rows if row.event_time < 200
    )


def test_repeated_requests_are_left_out_by_row() -> None:
    """The row that was logged first stands, in whichever piece it lies."""
    rows = [
        exposed("r", "a", 10, ["i1"], wall_time_ms=3),
        exposed("s", "a", 11, ["i2"], wall_time_ms=1),
        exposed("r", "a", 12, ["i3"], wall_time_ms=2),
        exposed("r", "a", 13, ["i4"], wall_time_ms=4),
    ]
    order = pl.DataFrame({"row": [0, 1, 2, 3], "request": [7, 8, 7, 7], "wall_time_ms": [3, 1, 2, 4]})

    tally = tallied(rows, piece_rows=1, without=windows.repeated_rows(order))

    assert aggregate.counts_of(tally.table([1], BUNDLE_ID), aggregate.SERVED) == {"i2": 1, "i3": 1}


@pytest.mark.parametrize(
    ("items", "scores", "key"),
    [
        (["b", "a", "c"], [-1.0, -1.0, -2.0], "kept"),
        (["a", "b", "c"], [-1.0, -1.0, -2.0], "broken"),
        (["a", "c", "d"], [-1.0, -2.0, -2.0], "kept"),
        (["a", "d", "c"], [-1.0, -2.0, -2.0], "broken"),
        (["c", "b", "a"], [-1.0, -2.0, -3.0], None),
    ],
)
def test_equal_scores_have_an_order(items: list[str], scores: list[float], key: str | None) -> None:
    """b is the most popular; c and d are equally so, and c stands first in the catalogue."""
    catalogue = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "popularity": [2, 5, 1, 1]})
    rows = [exposed("r", "u", 10, items, scores=scores), exposed("s", "u", 11, ["a", "b"], scores=[-1.0, -2.0])]

    tally = tallied(rows, orders={BUNDLE_ID: counting.tie_order(catalogue)})

    assert aggregate.counts_of(tally.table([1], BUNDLE_ID), counting.TIES) == ({} if key is None else {key: 1})


def test_latency_percentiles_are_right_to_one_per_cent() -> None:
    """Bins two per cent wide, however long the tail."""
    rows = [exposed(f"r{number}", "u", 10, ["i1"], latency_ms=1.05**number) for number in range(100)]

    [row] = arms.counted_rows(tallied(rows), [1])

    assert row["latency_p50_ms"] == pytest.approx(1.05**49, rel=0.011)
    assert row["latency_p99_ms"] == pytest.approx(1.05**98, rel=0.011)


def test_weeks_of_the_real_writer_are_read_in_order(tmp_path: object) -> None:
    """Segments of several rows, an event at the border of two parts: the border belongs to the later."""
    monday = at(date(2010, 11, 1))
    rows = [exposed(str(time), "a", time, ["i1"]) for time in (monday - 1, monday, monday + 7 * DAY)]
    parts = (Part(monday, monday + 7 * DAY), Part(monday - 7 * DAY, monday))

    tally = counting.tally(exposure.frame(rows).lazy(), parts, NO_OUTCOMES, watermark=0)

    assert (tally.requests([0]), tally.requests([1])) == (1, 1)
