"""Leave-one-out and temporal rows of ordered events are those that one reads off, and learn from train alone."""

import math
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.errors import CheckFailedError, UsageError
from sidrec.evaluation.judging import judge, rank_all
from sidrec.evaluation.protocol import NextBasket
from sidrec.evaluation.sequences import (
    ROWS_HISTORY,
    SplitName,
    Target,
    Ties,
    leave_one_out,
    read_sequences,
    temporal,
    training_table,
)
from tests.sidrec.evaluation.sequence_world import (
    RANDOM_ITEMS,
    amazon,
    amazon_folder,
    events_of,
    items_of,
    random_events,
)

ITEMS = items_of("a b c d")
USERS = {"u": "a b c | d | a", "v": "b | c | x", "w": "| | a", "y": "d d | |"}


def rows(data: NextBasket) -> list[tuple[str, str, str]]:
    """User, history and target of every row, `?` for an item outside the catalogue."""
    name = {**dict(enumerate(data.item_ids)), -1: "?"}
    return [
        (
            data.user_ids[data.basket_user[target]],
            "".join(name[item] for item in data.events[first:target]),
            name[int(data.events[target])],
        )
        for first, target in zip(data.row_first, data.row_basket, strict=True)
    ]


def fit_items(data: NextBasket) -> list[tuple[str, str]]:
    return [
        (data.user_ids[data.basket_user[basket]], data.item_ids[int(data.events[basket])])
        for basket in data.fit_baskets
    ]


def test_leave_one_out_has_one_row_a_user_and_all_before_it_as_history() -> None:
    """A test row sees the validation event; x is outside the catalogue; w has a target and nothing before it."""
    test = leave_one_out(events_of(USERS), ITEMS, target="test")
    valid = leave_one_out(events_of(USERS), ITEMS, target="valid")

    assert rows(test) == [("u", "abcd", "a"), ("v", "bc", "?")]
    assert rows(valid) == [("u", "abc", "d"), ("v", "b", "c")]
    assert (test.cold_users, valid.cold_users) == (1, 0)


@pytest.mark.parametrize("target", ["valid", "test"])
def test_fit_and_popularity_are_the_train_events_whatever_the_target(target: Target) -> None:
    """Neither valid nor test events are learnt from, and users without a target are."""
    data = leave_one_out(events_of(USERS), ITEMS, target=target)

    assert fit_items(data) == [("u", "a"), ("u", "b"), ("u", "c"), ("v", "b"), ("y", "d"), ("y", "d")]
    assert data.popularity.tolist() == data.recent_popularity.tolist() == [1, 2, 1, 2]
    assert data.gate_day == 3


def test_temporal_has_a_row_for_every_target_with_an_earlier_event() -> None:
    """Earlier targets of the same split are history; v's first event is only that, and w has no row."""
    events = events_of({"u": "a b | c d | a", "v": "| | b c d", "w": "| | a"})
    test = temporal(events, ITEMS, target="test")
    valid = temporal(events, ITEMS, target="valid")

    assert rows(valid) == [("u", "ab", "c"), ("u", "abc", "d")]
    assert rows(test) == [("u", "abcd", "a"), ("v", "b", "c"), ("v", "bc", "d")]
    assert (valid.cold_users, test.cold_users) == (0, 1)


def test_max_history_keeps_the_newest_events() -> None:
    """A longer limit than a history changes nothing, a shorter one cuts its old end."""
    events = events_of({"u": "a b c | d | a", "v": "b | c | d"})

    assert rows(leave_one_out(events, ITEMS, target="test", max_history=2)) == [("u", "cd", "a"), ("v", "bc", "d")]
    assert rows(temporal(events, ITEMS, target="test", max_history=3)) == [("u", "bcd", "a"), ("v", "bc", "d")]


def test_a_half_life_of_ln_2_over_ln_1_over_07_fades_by_07_an_event() -> None:
    """Position stands for the day; the newest event is one away. Events outside the catalogue keep their place."""
    data = leave_one_out(events_of({"u": "a x b | a | c"}), ITEMS, target="test")
    faded = data.history(half_life=math.log(2) / math.log(1 / 0.7)).toarray()

    np.testing.assert_allclose(faded, [[0.7 + 0.7**4, 0.7**2, 0, 0]])
    assert data.last_basket().toarray().tolist() == [[1, 0, 0, 0]]


def test_the_order_of_the_input_is_that_of_positions() -> None:
    """Shuffled rows, and positions with gaps, give the same rows."""
    events = events_of(USERS)
    mixed = events.sample(fraction=1, shuffle=True, seed=5).with_columns(pl.col("position") * 3 + 7)

    assert rows(leave_one_out(mixed, ITEMS, target="test")) == rows(leave_one_out(events, ITEMS, target="test"))


def test_novel_rows_are_those_without_their_target_in_the_history() -> None:
    """u buys a again within its history, not within its last two events."""
    events = events_of(USERS)
    whole = leave_one_out(events, ITEMS, target="test").targets("novel")
    cut = leave_one_out(events, ITEMS, target="test", max_history=2).targets("novel")

    assert (whole.rows.tolist(), cut.rows.tolist()) == ([1], [0, 1])


def test_a_second_target_is_refused_by_leave_one_out() -> None:
    """Two test events of a user are rows of `temporal`, not of leave-one-out."""
    events = events_of({"u": "a | b | c d"})

    with pytest.raises(CheckFailedError, match=r"1 users have more than one event of split test \(first: u\)"):
        leave_one_out(events, ITEMS, target="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit("dev").alias("split"), "split that is none of train, valid, test"),
        (pl.lit(None, pl.Int64).alias("position"), "no position of their own"),
        (pl.lit(1, pl.Int64).alias("position"), "no position of their own"),
        ((10 - pl.col("position")).alias("position"), "follow one of a later split"),
    ],
)
def test_events_without_one_order_are_refused(change: pl.Expr, message: str) -> None:
    """An unknown split, a missing or double position, a train event after a target."""
    with pytest.raises(CheckFailedError, match=message):
        leave_one_out(events_of({"u": "a b | c | d"}).with_columns(change), ITEMS, target="test")


def test_nothing_to_judge_and_no_history_to_look_at_are_refused() -> None:
    """Not an empty report."""
    events = events_of({"u": "| | a", "v": "b | |"})

    with pytest.raises(CheckFailedError, match="none of the 1 events of split test has an earlier one"):
        temporal(events, ITEMS, target="test")
    with pytest.raises(UsageError, match="max_history is 0"):
        temporal(events_of(USERS), ITEMS, target="test", max_history=0)
    with pytest.raises(CheckFailedError, match="2 rows of items hold only 1 different"):
        temporal(events_of(USERS), items_of("a a"), target="test")


def test_training_table_holds_the_train_events_in_order() -> None:
    """One item a basket; positions as days and as seconds."""
    table = training_table(events_of({"u": "a b | c | d", "v": "b | |"}).reverse())

    assert table.rows() == [
        ("u", date(1970, 1, 1), 0, ["a"]),
        ("u", date(1970, 1, 2), 86_400, ["b"]),
        ("v", date(1970, 1, 1), 0, ["b"]),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_all_items_alone_are_judged_as_beside_novel_ones(seed: int) -> None:
    """Leaving a kind out changes nothing of the other."""
    data = leave_one_out(events_of(random_events(seed)), items_of(RANDOM_ITEMS), target="test")
    both = {"all": data.targets("all"), "novel": data.targets("novel")}
    generator = np.random.default_rng(seed)
    table = generator.random((data.num_rows, data.num_items))
    judged = {}
    for kinds in (("all", "novel"), ("all",), ("novel",)):
        targets = {kind: both[kind] for kind in kinds}
        judged[kinds] = judge(rank_all(lambda chosen: table[chosen], data, targets, batch_size=5), targets, 9)  # type: ignore[arg-type]

    assert list(judged["all",].rows) == list(judged["all",].lists) == ["all"]
    for kind in ("all", "novel"):
        assert judged[kind,].means(kind) == judged["all", "novel"].means(kind)  # type: ignore[arg-type,index]
        np.testing.assert_array_equal(judged[kind,].lists[kind], judged["all", "novel"].lists[kind])  # type: ignore[index]


def write(folder: Path, *, without: str = "", empty: str = "") -> None:
    """Write one user's four events; `without` leaves a column out, `empty` nulls one."""
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * 4,
            "item_id": ["b", "a", "c", "d"],
            "seq_pos": [1, 0, 2, 3],
            "split": ["train", "train", "valid", "test"],
            "split_temporal": ["train", "train", "test", "test"],
            "seq_pos_shuf": [0, 1, 3, 2],
            "split_shuf": ["train", "train", "test", "valid"],
        },
        schema_overrides={"seq_pos": pl.Int32, "seq_pos_shuf": pl.Int32},
    )
    if empty:
        frame = frame.with_columns(pl.lit(None, frame[empty].dtype).alias(empty))
    frame.drop(without or []).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": ["d", "a", "b", "c"]}).write_parquet(folder / "items.parquet")


@pytest.mark.parametrize(
    ("ties", "split", "expected"),
    [
        ("published", "leave_one_out", [("u", "abc", "d")]),
        ("shuffled", "leave_one_out", [("u", "bad", "c")]),
        ("published", "temporal", [("u", "ab", "c"), ("u", "abc", "d")]),
        ("shuffled", "temporal", [("u", "ba", "d"), ("u", "bad", "c")]),
    ],
)
def test_ties_and_split_choose_the_columns(tmp_path: Path, ties: Ties, split: SplitName, expected: list[str]) -> None:
    """The catalogue keeps the order of its file."""
    write(tmp_path)
    events, items = read_sequences(tmp_path, ties=ties, split=split)
    data = temporal(events, items, target="test")

    assert rows(data) == expected
    assert data.item_ids == ("d", "a", "b", "c")


@pytest.mark.parametrize("column", ["seq_pos_shuf", "split_shuf"])
@pytest.mark.parametrize("how", ["without", "empty"])
def test_a_column_without_values_is_refused(tmp_path: Path, column: str, how: str) -> None:
    """Data without timestamps have no shuffled ties."""
    write(tmp_path, **{how: column})

    with pytest.raises(UsageError, match=f"column {column} is empty in 4 of 4 events"):
        read_sequences(tmp_path, ties="shuffled", split="leave_one_out")


def test_published_rows_must_be_the_targets_of_the_interactions(tmp_path: Path) -> None:
    """A target that differs is named; published rows have no shuffled order."""
    write(tmp_path)
    published = pl.DataFrame({"split": ["valid", "test"], "user_id": ["u", "u"], "item_id": ["c", "d"]})
    published.write_parquet(tmp_path / "eval_rows.parquet")
    events, items = read_sequences(tmp_path, ties="published", split="rows")
    published.with_columns(item_id=pl.lit("c")).write_parquet(tmp_path / "eval_rows.parquet")

    assert rows(temporal(events, items, target="valid", max_history=1)) == [("u", "b", "c")]
    with pytest.raises(CheckFailedError, match=r"2 targets differ .*\(first: \('test', 'u', 'c', None, 1\)\)"):
        read_sequences(tmp_path, ties="published", split="rows")
    with pytest.raises(UsageError, match="published rows have the published order"):
        read_sequences(tmp_path, ties="shuffled", split="rows")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """With the path that was looked for."""
    with pytest.raises(UsageError, match=r"interactions\.parquet is missing"):
        read_sequences(tmp_path / "nowhere", ties="published", split="leave_one_out")


@pytest.mark.parametrize(("target", "count"), [("valid", 4532), ("test", 4533)])
def test_industrial_rows_are_the_published_ones(target: Target, count: int) -> None:
    """The same users, targets and histories, each as often as in `eval_rows.parquet`."""
    data = temporal(*amazon("amazon_industrial_2018", "published", "rows"), target=target, max_history=ROWS_HISTORY)
    items = np.array([*data.item_ids, ""])
    ours = Counter(
        (data.user_ids[data.basket_user[last]], items[data.events[last]], tuple(items[data.events[first:last]]))
        for first, last in zip(data.row_first, data.row_basket, strict=True)
    )
    published = pl.read_parquet(amazon_folder("amazon_industrial_2018") / "eval_rows.parquet")
    chosen = published.filter(pl.col("split") == target).select("user_id", "item_id", "history_item_id")

    assert data.num_rows == count
    assert ours == Counter((user, item, tuple(history)) for user, item, history in chosen.iter_rows())


@pytest.mark.parametrize("name", ["amazon_scientific_2018", "amazon_industrial_2018"])
def test_amazon_data_without_timestamps_have_no_shuffled_ties(name: str) -> None:
    """The README says so; the message names the empty column."""
    with pytest.raises(UsageError, match="column seq_pos_shuf is empty"):
        read_sequences(amazon_folder(name), ties="shuffled", split="leave_one_out")


@pytest.mark.parametrize(
    ("name", "ties", "users", "items"),
    [
        ("amazon_scientific_2018", "published", 8442, 4385),
        ("amazon_beauty_2014", "published", 22_363, 12_101),
        ("amazon_beauty_2014", "shuffled", 22_363, 12_101),
    ],
)
def test_amazon_leave_one_out_has_a_row_for_every_user(name: str, ties: Ties, users: int, items: int) -> None:
    """The published counts: a validation and a test row each, nobody cold, every target in the catalogue."""
    for target in ("valid", "test"):
        data = leave_one_out(*amazon(name, ties, "leave_one_out"), target=target)  # type: ignore[arg-type]

        assert (data.num_rows, data.num_items, data.cold_users) == (users, items, 0)
        assert (data.events >= 0).all()


@pytest.mark.parametrize("ties", ["published", "shuffled"])
def test_amazon_temporal_rows_fall_short_of_the_targets_by_first_events(ties: Ties) -> None:
    """19,851 test events; those that are the first of their user have no row."""
    events, items = amazon("amazon_beauty_2014", ties, "temporal")
    data = temporal(events, items, target="test")
    first = events.filter(pl.col("split") == "test", pl.col("position") == 0).height

    assert data.num_rows == 19_851 - first
    assert 0 < first < 3000
