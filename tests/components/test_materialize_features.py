"""The training set is joined point in time, and the store knows nothing at or after the cut."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from components.materialize_features.run import SECTIONS, join_training_set, run, still_holds
from components.materialize_features.sources import user_aggregates, user_history
from feature_repo.store import live_folder, new_generation, open_store, write_source
from serving.events import push_events
from serving.history import HistoryReader
from sidrec import home, outcome
from sidrec.clock import DAY_S, day_start
from sidrec.errors import CheckFailedError
from sidrec.steps import execute
from tests import feature_world as world

DAYS = 31


def _training_set(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "training_set")


def _by_hand(baskets: pl.DataFrame, cap: int, gate_start: date) -> list[dict[str, object]]:
    """Return the training set by a loop over baskets that knows no join."""
    rows = baskets.sort("user_id", "day").to_dicts()
    by_user: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row)
    expected = []
    for row in rows:
        if not gate_start - timedelta(days=DAYS) <= row["day"] < gate_start:
            continue
        history = world.history_by_hand(by_user[row["user_id"]], row["user_id"], row["day"], cap)
        if history:
            expected.append(
                {
                    "user_id": row["user_id"],
                    "day": row["day"],
                    "history_item_ids": [item_id for item_id, _ in history],
                    "history_times": [time for _, time in history],
                    "target_item_ids": row["item_ids"],
                }
            )
    return expected


def _online(user_ids: list[str]) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    reader = HistoryReader(max_age_days=100_000)
    assert reader.wait_open(60)
    answers = reader.read(user_ids, now=day_start(world.AS_OF), deadline_ms=10_000)
    assert all(answer.status in ("fresh", "missing") for answer in answers), reader.last_error
    reader.close()
    return {user: (answer.item_ids, answer.times) for user, answer in zip(user_ids, answers, strict=True)}


def test_training_set_equals_a_loop_over_baskets(tmp_path: Path) -> None:
    """Feast's join gives the histories that a plain loop gives: no leak, no lost row, no changed label.

    Baskets at midnight and in a day's last second are among them.
    """
    baskets = world.baskets()

    result = _training_set(world.make_store(tmp_path, baskets))

    assert result.drop("event_timestamp").to_dicts() == _by_hand(baskets, world.CAP, world.GATE_START)
    assert result.height > 50


def test_training_set_of_real_baskets_equals_the_loop(tmp_path: Path, project_root: Path) -> None:
    """The same on three hundred customers of the shipped data, with their real sizes and gaps."""
    raw = pl.read_parquet(project_root / "data" / "online_retail" / "transactions.parquet")
    names = {re.sub("[^a-z]", "", name.lower()): name for name in raw.columns}
    lines = raw.select(
        invoice=pl.col(names["invoice"]).cast(pl.String),
        item_id=pl.col(names["stockcode"]).cast(pl.String).str.strip_chars().str.to_uppercase(),
        time=pl.col(names["invoicedate"]).cast(pl.String).str.slice(0, 19).str.to_datetime("%Y-%m-%d %H:%M:%S"),
        user_id=pl.col(names["customerid"]).cast(pl.String),
    ).filter(pl.col("user_id").is_not_null() & ~pl.col("invoice").str.starts_with("C"))
    sample = lines["user_id"].unique().sort().sample(300, seed=1)
    baskets = (
        lines.filter(pl.col("user_id").is_in(sample.implode()) & (pl.col("time").dt.date() < world.AS_OF))
        .sort("time", maintain_order=True)
        .group_by("user_id", pl.col("time").dt.date().alias("day"), maintain_order=True)
        .agg(
            pl.col("time").first().dt.epoch("s").alias("first"),
            pl.col("item_id").unique(maintain_order=True).alias("item_ids"),
        )
        .rename({"first": "time"})
        .sort("user_id", "day")
    )

    result = _training_set(world.make_store(tmp_path, baskets, history_cap=200))

    assert result.drop("event_timestamp").to_dicts() == _by_hand(baskets, 200, world.GATE_START)
    assert result.height > 60
    assert result["history_item_ids"].list.len().max() > 150


def test_a_source_that_knows_the_day_itself_is_caught(tmp_path: Path) -> None:
    """Histories stamped a day early leak their day's basket into the join; the step refuses them."""
    baskets = world.baskets()
    world.make_store(tmp_path, baskets)
    source = home.feast_dir() / "sources" / "user_history.parquet"
    early = pl.read_parquet(source).with_columns(pl.col("event_timestamp") - pl.duration(days=1))
    write_source("user_history", early)

    with pytest.raises(CheckFailedError, match="know an event of their own day or later"):
        join_training_set(open_store(live_folder(home.feast_dir())), baskets, world.GATE_START, DAYS)


def test_a_source_that_lacks_histories_is_caught(tmp_path: Path) -> None:
    """A user with an earlier basket must have a history; an empty one is not trained on silently."""
    baskets = world.baskets()
    world.make_store(tmp_path, baskets)
    source = home.feast_dir() / "sources" / "user_history.parquet"
    write_source("user_history", pl.read_parquet(source).filter(pl.col("user_id") != "user-000 é"))

    with pytest.raises(CheckFailedError, match="have an earlier basket but no history, the first of user user-000 é"):
        join_training_set(open_store(live_folder(home.feast_dir())), baskets, world.GATE_START, DAYS)


def test_a_source_with_two_rows_of_one_moment_keeps_the_row_count(tmp_path: Path) -> None:
    """Rows in are rows out, however the source repeats itself."""
    baskets = world.baskets()
    folder = world.make_store(tmp_path, baskets)
    source = pl.read_parquet(home.feast_dir() / "sources" / "user_history.parquet")
    write_source("user_history", pl.concat([source, source]))

    again = join_training_set(open_store(live_folder(home.feast_dir())), baskets, world.GATE_START, DAYS)

    assert again.equals(_training_set(folder))


def test_a_basket_is_not_known_before_its_day_is_over(tmp_path: Path) -> None:
    """A join at noon does not see what that day's basket will hold in the evening."""
    noon = day_start(world.GATE_START) + DAY_S // 2
    basket = {"user_id": "u", "day": world.GATE_START, "time": noon - 60, "item_ids": ["item-01", "item-02"]}
    rows = user_history(pl.DataFrame([basket], schema_overrides={"day": pl.Date}), world.CAP)

    assert rows["event_timestamp"].dt.epoch("s").to_list() == [day_start(world.GATE_START) + DAY_S - 1]


def test_nobody_to_train_on_is_an_empty_training_set(tmp_path: Path) -> None:
    """First baskets only: the schema stands, with no row."""
    baskets = world.baskets().group_by("user_id", maintain_order=True).first().select(world.baskets().columns)
    full = _training_set(world.make_store(tmp_path / "full"))

    result = _training_set(world.make_store(tmp_path / "first", baskets, key="b" * 64))

    assert result.height == 0
    assert result.schema == full.schema


@pytest.mark.parametrize("online_until", ["gate_start", "as_of"])
def test_online_store_holds_the_history_before_the_cut(tmp_path: Path, online_until: str) -> None:
    """Every user's online row is the loop's history; who bought only since is unknown."""
    baskets = world.baskets()
    rows = baskets.to_dicts()
    users = baskets["user_id"].unique().sort().to_list()
    cut = world.GATE_START if online_until == "gate_start" else world.AS_OF

    world.make_store(tmp_path, baskets, online_until=online_until)

    expected = {user: world.history_by_hand(rows, user, cut, world.CAP) for user in users}
    assert _online(users) == {
        user: (tuple(item_id for item_id, _ in history), tuple(time for _, time in history))
        for user, history in expected.items()
    }
    assert any(not history for history in expected.values()) == (online_until == "gate_start")
    offline = pl.read_parquet(home.feast_dir() / "sources" / "user_history.parquet")
    assert offline["times"].list.max().max() < day_start(cut)


def test_a_store_made_for_an_earlier_date_forgets_what_came_after(tmp_path: Path) -> None:
    """Going back to the gate's start leaves no row of the later store behind."""
    baskets = world.baskets()
    users = baskets["user_id"].unique().sort().to_list()
    world.make_store(tmp_path, baskets, online_until="as_of")
    world.make_store(tmp_path, baskets, key="b" * 64, online_until="gate_start")

    newest = max(max(times, default=0) for _, times in _online(users).values())

    assert 0 < newest < day_start(world.GATE_START)


def test_pushed_purchases_survive_a_new_run(tmp_path: Path) -> None:
    """What was bought since the cut is in the next store too, unless that store reproduces a past date."""
    now = day_start(world.AS_OF) + 60
    world.make_store(tmp_path)
    push_events([{"event_id": "1", "user_id": "newcomer", "item_id": "item-07", "event_time": now}])

    world.make_store(tmp_path, key="b" * 64)
    live = _online(["newcomer"])
    world.make_store(tmp_path, key="c" * 64, online_until="gate_start")
    replayed = _online(["newcomer"])

    assert live == {"newcomer": (("item-07",), (now,))}
    assert replayed == {"newcomer": ((), ())}


def test_user_aggregates_count_each_basket_by_hand() -> None:
    """Sums run over a user's own baskets, in time, and an item is distinct once."""
    day = world.FIRST_DAY
    baskets = pl.DataFrame(
        [
            {"user_id": "a", "day": day, "time": day_start(day) + 5, "item_ids": ["x", "y"]},
            {
                "user_id": "a",
                "day": day + timedelta(days=3),
                "time": day_start(day) + 3 * DAY_S,
                "item_ids": ["y", "z", "w"],
            },
            {"user_id": "b", "day": day, "time": day_start(day) + 7, "item_ids": ["x"]},
        ]
    )

    rows = user_aggregates(baskets).drop("event_timestamp").rows()

    start = day_start(day)
    assert rows == [
        ("a", 1, 2, 2, start + 5, start + 5),
        ("a", 2, 5, 4, start + 5, start + 3 * DAY_S),
        ("b", 1, 1, 1, start + 7, start + 7),
    ]


def test_aggregates_and_attributes_are_served(tmp_path: Path) -> None:
    """All views answer online; text that the items file lacks is null."""
    baskets = world.baskets()
    world.make_store(tmp_path, baskets)
    store = open_store(live_folder(home.feast_dir()))

    user = store.get_online_features(
        features=["user_aggregates:num_baskets"], entity_rows=[{"user_id": "user-003 é"}]
    ).to_dict()
    item = store.get_online_features(
        features=["item_attributes:title", "item_attributes:brand", "item_attributes:popularity"],
        entity_rows=[{"item_id": "item-03"}],
    ).to_dict()

    assert user["num_baskets"] == [baskets.filter(pl.col("user_id") == "user-003 é").height]
    assert (item["title"], item["brand"], item["popularity"]) == (["TITLE 3 Ü"], [None], [3])


def test_step_is_reused_only_while_its_store_is_the_live_one(tmp_path: Path) -> None:
    """The same step twice is done once; after another store went live it is done again."""
    inputs = world.write_inputs(tmp_path, world.baskets(), world.items())

    def step(online_until: str) -> Path:
        text = yaml.safe_dump(world.recipe(online_until=online_until).model_dump(mode="json"))
        outputs = {"training_set": tmp_path / f"out-{online_until}"}
        execute(
            "materialize_features",
            run,
            recipe=text,
            sections=SECTIONS,
            inputs=inputs,
            outputs=outputs,
            still_holds=still_holds,
        )
        return live_folder(home.feast_dir())

    first, again = step("as_of"), step("as_of")
    other, back = step("gate_start"), step("as_of")

    assert first == again
    assert len({first, other, back}) == 3
    assert still_holds((tmp_path / "out-as_of").resolve().parent)
    assert not still_holds((tmp_path / "out-gate_start").resolve().parent)


def test_no_store_holds_nothing(tmp_path: Path) -> None:
    """A wiped state folder makes the step run again."""
    assert not still_holds(tmp_path / ("a" * 64))


def test_training_set_file_is_the_same_every_time(tmp_path: Path) -> None:
    """Its digest is part of the next steps' keys, so it depends on the data alone."""
    first = world.make_store(tmp_path)
    second = world.make_store(tmp_path, key="b" * 64)

    assert (first / "training_set").read_bytes() == (second / "training_set").read_bytes()


@pytest.mark.slow
def test_a_killed_run_leaves_the_live_store_as_it_was(tmp_path: Path, own_state: Path) -> None:
    """SIGKILL while the new generation is being filled: readers go on with the old one, the next run succeeds."""
    world.make_store(tmp_path)
    before = live_folder(home.feast_dir())
    code = (
        "import sys; from pathlib import Path; from tests import feature_world as world\n"
        "world.make_store(Path(sys.argv[1]), key='b' * 64, online_until='gate_start')"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "again")], cwd=Path(world.__file__).parents[1]
    )
    generations = home.feast_dir() / "generations"
    deadline = time.monotonic() + 60
    while not any(folder != before and (folder / "online.db").exists() for folder in generations.iterdir()):
        assert victim.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()

    assert live_folder(home.feast_dir()) == before
    assert _online(["user-003 é"])["user-003 é"][0]
    world.make_store(tmp_path, key="b" * 64, online_until="gate_start")
    assert live_folder(home.feast_dir()) != before


def test_a_failing_run_leaves_the_live_store_as_it_was(tmp_path: Path) -> None:
    """An error after the new generation was filled is no half store: readers go on with the old one."""
    world.make_store(tmp_path)
    before, rows = live_folder(home.feast_dir()), _online(["user-003 é"])
    push_events([{"event_id": "1", "user_id": "u", "item_id": "i", "event_time": day_start(world.AS_OF)}])
    segment = outcome.segments(home.outcomes_dir())[0]
    pl.read_parquet(segment).with_columns(schema_version=pl.lit(99, dtype=pl.Int32)).write_parquet(segment)

    with pytest.raises(CheckFailedError, match="outcome segment"):
        world.make_store(tmp_path, key="b" * 64)

    assert live_folder(home.feast_dir()) == before
    assert _online(["user-003 é"]) == rows


@pytest.mark.parametrize("fault", ["two baskets of one day", "a time of another day", "a day at or after as_of"])
def test_baskets_that_contradict_themselves_are_refused(tmp_path: Path, fault: str) -> None:
    """The cut at a day is only as good as the baskets' days: the step checks them first."""
    baskets = world.baskets()
    if fault == "two baskets of one day":
        baskets = pl.concat([baskets, baskets.head(1)])
    elif fault == "a time of another day":
        baskets = baskets.with_columns(pl.col("time") + DAY_S)
    else:
        baskets = baskets.with_columns(pl.col("time") + 200 * DAY_S, pl.col("day") + pl.duration(days=200))

    with pytest.raises(CheckFailedError, match=f"baskets are refused: .*{fault}"):
        world.make_store(tmp_path, baskets)


def test_an_unapplied_generation_is_never_live(tmp_path: Path) -> None:
    """Only a whole generation moves the link."""
    world.make_store(tmp_path)
    before = live_folder(home.feast_dir())

    new_generation("c" * 64)

    assert live_folder(home.feast_dir()) == before
