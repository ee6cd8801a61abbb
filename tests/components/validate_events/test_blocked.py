"""A bad batch stops the run with one line that names the rule, and an evidence file that exists."""

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.validate_events.run import run, source_files
from sidrec.data.adapters.online_retail import COLUMNS
from sidrec.errors import ValidationFailedError
from sidrec.files import read_json
from sidrec.recipe import Recipe
from tests import data_world as world

LAST_DAY = pl.col("InvoiceDate").str.starts_with("2010-12-09")
TENTH = pl.int_range(pl.len()) % 10 == 0


def refused(recipe: Recipe, folder: Path) -> ValidationFailedError:
    """Run the validation, which must refuse; the evidence must lie in the step's folder."""
    step = folder / "step"
    step.mkdir()
    with pytest.raises(ValidationFailedError) as caught:
        run(recipe, {}, step)
    error = caught.value
    assert error.evidence is not None
    assert Path(error.evidence).parent == step
    assert read_json(Path(error.evidence))["rule"] in error.message
    assert "\n" not in error.message
    assert not (step / "events").exists()
    return error


def swapped(path: Path) -> None:
    world.retail().rename({"StockCode": "Customer ID", "Customer ID": "StockCode"}).write_parquet(path)


def missing(path: Path) -> None:
    world.retail().drop("Price").write_parquet(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    whole = world.RAW.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def mostly_anonymous(path: Path) -> None:
    """Sixty percent of all rows have no customer."""
    sheet = world.retail()
    wanted = int(sheet.height * 0.6) - sheet["Customer ID"].null_count()
    known = pl.col("Customer ID").is_not_null()
    blank = known & (known.cum_sum() <= wanted)
    sheet.with_columns(pl.when(~blank).then(pl.col("Customer ID")).alias("Customer ID")).write_parquet(path)


def thin_last_day(path: Path) -> None:
    world.retail().filter(~LAST_DAY | TENTH).write_parquet(path)


def last_day_stops_early(path: Path) -> None:
    sheet = world.retail()
    pl.concat([sheet.filter(~LAST_DAY), sheet.filter(LAST_DAY).head(250)]).write_parquet(path)


def mostly_cancelled(path: Path) -> None:
    sheet = world.retail()
    every_fifth = pl.int_range(pl.len()) % 5 == 0
    cancelled = pl.when(every_fifth & ~pl.col("Invoice").str.contains("^[A-Z]")).then("C" + pl.col("Invoice"))
    sheet.with_columns(Invoice=cancelled.otherwise("Invoice")).write_parquet(path)


def titles_as_countries(path: Path) -> None:
    """Words everywhere, but far too many different ones for countries."""
    world.retail().head(20_000).with_columns(Country="The " + pl.col("Description")).write_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (swapped, r"rule schema: column 'StockCode'.* rows break this"),
        (titles_as_countries, r"rule schema: column 'Country' must hold .* at most 250 different ones; seen: \d+"),
        (missing, r"rule schema: column 'Price' is missing"),
        (empty, r"rule readable: .*is empty \(0 bytes\)"),
        (truncated, r"rule readable: .*not a whole Parquet file"),
        (mostly_anonymous, r"rule null_user_share: 60.0% of the rows have no user \(at most 40%\)"),
        (thin_last_day, r"rule last_day_volume: 2010-12-09 has 272 sales, 11% of the median 2,498"),
        (last_day_stops_early, r"rule last_day_volume: 2010-12-09 .* set data.watermark: 2010-12-09"),
        (mostly_cancelled, r"rule quarantined_share: 2\d\.\d% .* by R3: invoice is a cancellation"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_bad_retail_file_is_blocked(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    """Each fault of a file made from the real data is named by its own rule."""
    path = tmp_path / "events.parquet"
    spoil(path)

    error = refused(world.retail_recipe(path), tmp_path)

    assert re.search(says, error.message), error.message


@pytest.mark.parametrize("pair", list(combinations(COLUMNS, 2)), ids="-".join)
def test_any_two_swapped_columns_are_blocked(pair: tuple[str, str], tmp_path: Path) -> None:
    """No two columns of the sheet can trade places unseen."""
    one, other = pair
    path = tmp_path / "events.parquet"
    world.retail("2010-11-01").head(4_000).rename({one: other, other: one}).write_parquet(path)

    assert "rule schema" in refused(world.retail_recipe(path), tmp_path).message


def shop(folder: Path, **columns: str) -> dict[str, Any]:
    """The shop's data section with event columns mapped otherwise."""
    data = world.shop_data(folder)
    return {**data, "event_columns": {**data["event_columns"], **columns}}


def test_own_data_with_users_and_items_swapped(tmp_path: Path) -> None:
    """Referential integrity sees the swap and says which columns to look at."""
    recipe = world.shop_recipe(shop(tmp_path, user_id="sku", item_id="customer"))

    message = refused(recipe, tmp_path).message

    assert "rule known_items: 0.0% of the events" in message
    assert "the two columns are swapped" in message


def test_own_data_with_text_as_time(tmp_path: Path) -> None:
    """A timestamp column that holds ids is no time."""
    recipe = world.shop_recipe(shop(tmp_path, user_id="bought_at", timestamp="customer"))

    assert "rule timestamp_readable: 0.0% of the timestamps are a time" in refused(recipe, tmp_path).message


def test_own_data_with_numbers_as_time(tmp_path: Path) -> None:
    """Numbers far from any date are ids or another unit."""
    events = world.shop_events().with_columns(bought_at=pl.int_range(pl.len()) + 1_000)
    recipe = world.shop_recipe(world.shop_data(tmp_path, events))

    assert "rule timestamp_range: 0.0% of the timestamps lie in 1990..2100" in refused(recipe, tmp_path).message


def test_own_items_with_an_id_twice(tmp_path: Path) -> None:
    """Two rows for one item are refused: which title counts cannot be known."""
    items = pl.concat([world.shop_items(), world.shop_items().head(1)])
    recipe = world.shop_recipe(world.shop_data(tmp_path, items=items))

    assert "rule schema: column 'sku' must be unique" in refused(recipe, tmp_path).message


def test_own_data_beside_the_as_of_date(tmp_path: Path) -> None:
    """An as_of after the data leaves the gate window empty, and the sentence shows the data's span."""
    recipe = world.shop_recipe(world.shop_data(tmp_path), as_of="2027-01-01")

    assert "rule gate_window: 0 events in" in refused(recipe, tmp_path).message


def test_old_data_are_not_fresh(tmp_path: Path) -> None:
    """With a freshness limit, the newest sale's age against as_of decides."""
    recipe = world.shop_recipe(world.shop_data(tmp_path), as_of="2026-05-10", validation={"max_age_days": 3})

    assert "rule freshness: the newest sale is 6 days older" in refused(recipe, tmp_path).message


def test_watermark_lets_a_partial_last_day_pass(tmp_path: Path) -> None:
    """The stated first unwhole day is cut, and the whole days before it are judged."""
    events = world.shop_events()
    partial = pl.concat([events.head(events.height - 30), events.tail(30).head(2)])
    last = str(world.START + world.timedelta(days=world.DAYS - 1))
    data = world.shop_data(tmp_path, partial)
    as_it_is, cut = (tmp_path / "as_it_is", tmp_path / "cut")
    as_it_is.mkdir()
    cut.mkdir()
    assert "rule last_day_volume" in refused(world.shop_recipe(data), as_it_is).message

    summary = run(world.shop_recipe({**data, "watermark": last}), {}, cut)

    assert summary["quarantined"] == 2


def test_a_retry_after_a_refusal_starts_clean(tmp_path: Path) -> None:
    """The same folder, once the data are right, holds no evidence of a refusal, no table of a killed run."""
    data = world.shop_data(tmp_path)
    good = (tmp_path / "events.csv").read_bytes()
    (tmp_path / "events.csv").write_bytes(b"")
    refused(world.shop_recipe(data), tmp_path)
    (tmp_path / "events.csv").write_bytes(good)
    (tmp_path / "step" / "tables-killed").mkdir()

    run(world.shop_recipe(data), {}, tmp_path / "step")

    assert not (tmp_path / "step" / "evidence.json").exists()
    assert not list((tmp_path / "step").glob("tables-*"))


def test_new_content_under_an_old_name_is_a_new_step(tmp_path: Path) -> None:
    """The raw files count among the step's inputs."""
    data = world.shop_data(tmp_path)

    files = source_files(world.shop_recipe(data).model_dump_json())

    assert files == {"events_file": Path(data["events"]), "items_file": Path(data["items"])}
