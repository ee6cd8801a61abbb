"""Amazon-style folders: each user's own order, and no invented calendar without being told."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from sidrec.clock import DAY_S, day_start
from sidrec.data.adapters import open_adapter
from sidrec.data.adapters.source import PLACE, Source, SourceRefusedError
from sidrec.data.batch import open_batch
from sidrec.data.config import DataConfig
from sidrec.data.tables import Polars, values

AS_OF = date(2014, 7, 24)
EVENTS = pl.DataFrame(
    {
        "user_id": ["u1", "u2", "u1", "u1", "u2"],
        "item_id": ["i1", "i1", "i3", "i2", "gone"],
        "timestamp": [100_000_000, 100_000_005, 100_000_000, 100_000_000, 100_000_009],
        "seq_pos": [0, 0, 2, 1, 1],
    }
)
ITEMS = pl.DataFrame(
    {"item_id": ["i1", "i2", "i3"], "title": ["one", None, "three"], "categories": [["a", "b"], ["a"], None]}
)


def parse(folder: Path, events: pl.DataFrame, *, derive_times: bool = False) -> Source:
    """The batch of these interactions and `ITEMS`."""
    events.write_parquet(folder / "interactions.parquet")
    ITEMS.write_parquet(folder / "items.parquet")
    adapter = open_adapter(DataConfig(adapter="amazon", events=folder, derive_times=derive_times), AS_OF)
    return open_batch(adapter, Polars(), folder).parse()


def rows_of(source: Source) -> pl.DataFrame:
    """The batch's rows in the order of the file."""
    return pl.DataFrame(values(source.rows.sort(PLACE)))


def test_same_day_events_follow_seq_pos(tmp_path: Path) -> None:
    """Position follows each user's order, not the file's."""
    rows = rows_of(parse(tmp_path, EVENTS))

    assert rows.filter(pl.col("user_id") == "u1").sort("timestamp", "position")["item_id"].to_list() == [
        "i1",
        "i2",
        "i3",
    ]


def test_items_keep_their_text_and_lists_are_joined(tmp_path: Path) -> None:
    """A missing title is empty text, a list of categories one line."""
    items = parse(tmp_path, EVENTS).items

    assert items is not None
    found = pl.DataFrame(values(items.sort("item_id")))
    assert found.select("title", "categories").rows() == [("one", "a; b"), ("", "a"), ("three", None)]


def test_an_item_that_the_items_file_lacks_is_marked(tmp_path: Path) -> None:
    """The referential rule sees which events name an unknown item."""
    rows = rows_of(parse(tmp_path, EVENTS))

    assert rows["catalog_item_id"].to_list() == ["i1", "i1", "i3", "i2", None]


def test_order_without_times_is_refused(tmp_path: Path) -> None:
    """Some unknown timestamps refuse the file, and the sentence says what would allow it."""
    events = EVENTS.with_columns(timestamp=pl.Series([None, 100_000_005, None, None, 100_000_009]))

    with pytest.raises(SourceRefusedError, match=r"3 of 5 rows .* no timestamp.*derive_times: true"):
        parse(tmp_path, events)


def test_derived_times_put_the_newest_event_on_the_last_day(tmp_path: Path) -> None:
    """Each user's events lie on consecutive days that end the day before as_of; the batch says so."""
    events = EVENTS.with_columns(timestamp=pl.lit(None, dtype=pl.Int64))

    source = parse(tmp_path, events, derive_times=True)

    days_before = (day_start(AS_OF) - rows_of(source)["timestamp"]) // DAY_S
    assert days_before.to_list() == [3, 2, 1, 2, 1]
    assert not source.has_calendar
    assert source.derived is not None


def test_known_times_are_never_replaced(tmp_path: Path) -> None:
    """derive_times changes nothing where every time is known."""
    source = parse(tmp_path, EVENTS, derive_times=True)

    assert rows_of(source)["timestamp"].to_list() == EVENTS["timestamp"].to_list()
    assert source.has_calendar
