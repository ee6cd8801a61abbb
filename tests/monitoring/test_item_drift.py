"""Item drift: hand-worked values, properties, and the published weekly table on the shipped data."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from monitoring import causes, decide, item_drift, thresholds, windows
from monitoring.findings import worst
from monitoring.item_drift import Statistics
from monitoring.references import purchase_reference
from monitoring.windows import Window
from sidrec.recipe import MonitoringConfig, Recipe

CONFIG = MonitoringConfig()  # type: ignore[call-arg]

# docs/monitoring.md; week from Monday, events, JS, noise floor, PSI, share on unseen items, against December-August.
PUBLISHED = [
    ("2010-07-05", 5368, 0.152, 0.120, 0.032, 0.0),
    ("2010-07-12", 5767, 0.157, 0.112, 0.010, 0.0),
    ("2010-07-19", 6156, 0.161, 0.107, 0.018, 0.0),
    ("2010-07-26", 6039, 0.159, 0.108, 0.017, 0.0),
    ("2010-08-02", 5538, 0.182, 0.117, 0.010, 0.0),
    ("2010-08-09", 5554, 0.182, 0.117, 0.015, 0.0),
    ("2010-08-16", 6413, 0.174, 0.104, 0.022, 0.0),
    ("2010-08-23", 6093, 0.189, 0.107, 0.012, 0.0),
    ("2010-08-30", 4522, 0.214, 0.136, 0.025, 0.001),
    ("2010-09-06", 6226, 0.192, 0.106, 0.049, 0.008),
    ("2010-09-13", 7906, 0.205, 0.088, 0.228, 0.033),
    ("2010-09-20", 8213, 0.253, 0.086, 0.814, 0.109),
    ("2010-09-27", 10535, 0.248, 0.069, 0.889, 0.119),
    ("2010-10-04", 10959, 0.244, 0.065, 0.872, 0.115),
    ("2010-10-11", 11720, 0.244, 0.063, 0.972, 0.128),
    ("2010-10-18", 11283, 0.281, 0.064, 1.406, 0.177),
    ("2010-10-25", 10037, 0.273, 0.071, 1.183, 0.152),
    ("2010-11-01", 11612, 0.260, 0.063, 1.128, 0.147),
    ("2010-11-08", 13433, 0.260, 0.055, 1.110, 0.143),
    ("2010-11-15", 13956, 0.247, 0.052, 1.091, 0.142),
    ("2010-11-22", 13590, 0.275, 0.054, 1.284, 0.165),
]


def counts(baskets: Path, window: Window) -> dict[str, int]:
    purchases = window.days(windows.basket_purchases(pl.scan_parquet(baskets)))
    return dict(purchases.group_by("item_id").len().collect().iter_rows())


@pytest.fixture(scope="module")
def bootstrap(retail: Path, recipe: Recipe) -> dict[str, int]:
    """Item counts of December to August, the published table's reference."""
    rows = purchase_reference(pl.scan_parquet(retail), "2009-12-01..2010-08-31", recipe.gate_start).rows
    return dict(rows.group_by("item_id").len().collect().iter_rows())


@pytest.fixture(scope="module")
def weeks(retail: Path, bootstrap: dict[str, int]) -> dict[str, tuple[int, Statistics]]:
    """Every published week, measured."""
    measured = {}
    for monday, *_ in PUBLISHED:
        now = counts(retail, windows.week_of(date.fromisoformat(monday)))
        measured[monday] = (sum(now.values()), item_drift.statistics(bootstrap, now, seed=0))
    return measured


@pytest.mark.parametrize(("monday", "events", "js", "floor", "psi", "unseen"), PUBLISHED)
def test_reproduces_the_published_week(
    weeks: dict[str, tuple[int, Statistics]],
    monday: str,
    events: int,
    js: float,
    floor: float,
    psi: float,
    unseen: float,
) -> None:
    """Events, JS, PSI and unseen share come out to the printed digits."""
    seen_events, seen = weeks[monday]

    assert (seen_events, round(seen.js, 3), round(seen.psi, 3), round(seen.unseen_share, 3)) == (
        events,
        js,
        psi,
        unseen,
    )


@pytest.mark.parametrize(("monday", "events", "js", "floor", "psi", "unseen"), PUBLISHED)
def test_noise_floor_is_the_published_one_within_its_sampling_error(
    weeks: dict[str, tuple[int, Statistics]],
    monday: str,
    events: int,
    js: float,
    floor: float,
    psi: float,
    unseen: float,
) -> None:
    """A published floor is one draw; one draw has a standard deviation of 2.3 % here (200 draws a week)."""
    seen = weeks[monday][1]

    assert seen.noise_floor == pytest.approx(floor, rel=3 * 0.023, abs=0.0005)
    assert seen.ratio == pytest.approx(seen.js / seen.noise_floor)


@pytest.mark.parametrize(
    ("monday", "level"),
    [("2010-08-30", "insufficient"), ("2010-09-06", "ok"), ("2010-09-13", "warn"), ("2010-09-20", "alarm")],
)
def test_the_autumn_range_raises_the_alarm(retail: Path, bootstrap: dict[str, int], monday: str, level: str) -> None:
    """Quiet before the range comes in, a warning in its first week, the alarm in its second."""
    now = counts(retail, windows.week_of(date.fromisoformat(monday)))

    assert item_drift.measure(bootstrap, now, CONFIG, seed=0).level == level


def test_the_week_of_too_few_events_is_quiet_in_itself(weeks: dict[str, tuple[int, Statistics]]) -> None:
    """August 30 has 4,522 events, too few for a verdict; its numbers cross no threshold either."""
    events, seen = weeks["2010-08-30"]

    assert events < CONFIG.min_events
    assert item_drift.judge(seen.psi, seen.ratio, CONFIG.min_events, CONFIG) == ("ok", ())


def test_june_is_quiet_against_december_to_may(retail: Path, recipe: Recipe) -> None:
    """The negative control: no week of the quietest month warns, though two of them are over the ratio's limit."""
    before = counts(retail, Window(date(2009, 12, 1), date(2010, 6, 1)))
    june = item_drift.statistics(before, counts(retail, Window(date(2010, 6, 1), date(2010, 7, 1))), seed=0)
    weekly = [
        item_drift.measure(
            before, counts(retail, windows.week_of(date(2010, 5, 31) + timedelta(weeks=week))), CONFIG, seed=0
        )
        for week in range(5)
    ]
    levels = [
        item_drift.settled(weekly[week], weekly[max(0, week - 2) : week][::-1], CONFIG).level for week in range(1, 5)
    ]

    assert (round(june.js, 3), round(june.psi, 2), round(june.unseen_share, 3)) == (0.118, 0.03, 0.005)
    assert levels == ["ok"] * 4
    assert [week.level for week in weekly[1:]] == ["warn", "ok", "ok", "warn"]


@pytest.mark.parametrize(
    ("monday", "level", "cause"),
    [
        ("2010-08-30", "insufficient", None),
        ("2010-09-06", "ok", None),
        ("2010-09-13", "warn", "unseen_items"),
        ("2010-09-20", "alarm", "unseen_items"),
    ],
)
def test_the_autumn_range_is_named(
    retail: Path, bootstrap: dict[str, int], recipe: Recipe, monday: str, level: str, cause: str | None
) -> None:
    """The alarm names the items that the fit period never saw, the most bought first."""
    now = counts(retail, windows.week_of(date.fromisoformat(monday)))
    drift = item_drift.measure(bootstrap, now, CONFIG, seed=0)
    found = decide.purchase_findings(
        drift,
        bootstrap,
        now,
        thresholds.load(thresholds.SHIPPED),
        CONFIG,
        coded=frozenset(bootstrap),
        window="",
        label="",
    )
    findings, suspects = causes.name_causes(
        found, {}, reference_items=bootstrap, current_items=now, gained=decide.top_gain(bootstrap, now)[1]
    )

    assert worst([finding.level for finding in findings]) == level
    assert [suspect.cause for suspect in suspects] == ([] if cause is None else [cause])
    if cause == "unseen_items":
        assert suspects[0].items
        assert not set(suspects[0].items) & set(bootstrap)
        assert [now[item] for item in suspects[0].items] == sorted(
            (count for item, count in now.items() if item not in bootstrap), reverse=True
        )[:10]


@pytest.mark.parametrize(
    ("ratios", "level"),
    [
        ((2.1,), "warn"),
        ((2.1, 1.9), "ok"),
        ((2.1, 2.2), "warn"),
        ((2.1, 1.9, 2.5), "warn"),
        ((2.1, 1.0, 1.0, 9.0), "ok"),
    ],
)
def test_the_ratio_alone_needs_two_of_three_windows(ratios: tuple[float, ...], level: str) -> None:
    """Of as many as there are; PSI needs one."""
    newest, *earlier = (
        item_drift.ItemDrift("warn", ("JS",), 5000, 9000, Statistics(0.2, 0.1, ratio, 0.1, 0.0)) for ratio in ratios
    )

    assert item_drift.settled(newest, earlier, CONFIG).level == level
    fast = item_drift.ItemDrift("warn", ("PSI",), 5000, 9000, Statistics(0.2, 0.1, 1.0, 0.2, 0.0))
    assert item_drift.settled(fast, earlier, CONFIG).level == "warn"


def test_equal_traffic_raises_no_alarm(retail: Path, bootstrap: dict[str, int]) -> None:
    """A/A: 200 windows of 5,000 events, customers of the reference resampled whole; none alarms.

    No alarm in 200 bounds the false-alarm share below 2.3 % with 99 % confidence.
    """
    fitted = pl.read_parquet(retail).filter(pl.col("day") < date(2010, 9, 1))
    by_user = fitted.group_by("user_id", maintain_order=True).agg("item_ids")["item_ids"].to_list()
    rng = np.random.default_rng(0)
    levels = []
    for _ in range(200):
        now: Counter[str] = Counter()
        while now.total() < CONFIG.min_events:
            baskets = by_user[rng.integers(len(by_user))]
            now.update(baskets[rng.integers(len(baskets))])
        levels.append(item_drift.measure(bootstrap, now, CONFIG, seed=0).level)

    assert Counter(levels)["alarm"] == 0


def test_js_divergence_of_disjoint_shares_is_one_bit() -> None:
    """No common item is the largest divergence; equal shares of other sizes are none."""
    first, second = np.array([3.0, 1.0, 0.0]), np.array([0.0, 0.0, 5.0])

    assert item_drift.js_divergence(first, second) == pytest.approx(1.0)
    assert item_drift.js_divergence(first, 7 * first) == pytest.approx(0.0, abs=1e-12)


def test_js_divergence_of_a_coin_and_a_sure_thing() -> None:
    """Shares (1/2, 1/2) and (1, 0): half of 1/2 log2(2/3) + 1/2 log2 2 and of log2(4/3)."""
    value = item_drift.js_divergence(np.array([1.0, 1.0]), np.array([1.0, 0.0]))

    assert value == pytest.approx((0.5 * np.log2(2 / 3) + 0.5 + np.log2(4 / 3)) / 2)
    assert round(value, 4) == 0.3113


def test_psi_by_hand() -> None:
    """Shares (.5, .5) against (.25, .75): .25 ln 2 + .25 ln 1.5."""
    reference, current = np.array([2.0, 2.0]), np.array([1.0, 3.0])

    value = item_drift.psi(reference, current, np.array([0, 1]), 2)

    assert value == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))


def test_psi_floors_an_empty_bin() -> None:
    """A bin that the reference lacks counts as a share of 1e-4, not as infinite."""
    value = item_drift.psi(np.array([4.0, 0.0]), np.array([2.0, 2.0]), np.array([0, 1]), 2)

    assert value == pytest.approx((0.5 - 1) * np.log(0.5) + (0.5 - 1e-4) * np.log(0.5 / 1e-4))


def test_popularity_bins_by_hand() -> None:
    """Shares .5, .25, .25 in two bins: the border lies after the first; an unseen item has the bin after the last."""
    bins = item_drift.popularity_bins(np.array([1.0, 2.0, 0.0, 1.0]), num_bins=2)

    assert bins.tolist() == [1, 0, 2, 1]


def test_noise_floor_shrinks_as_one_over_the_sample() -> None:
    """Ten times the events, a tenth of the chance divergence."""
    reference = np.full(50, 1000.0)

    small, large = (item_drift.noise_floor(reference, size, seed=0, repeats=200) for size in (2_000, 20_000))

    assert small / large == pytest.approx(10, rel=0.1)


def test_noise_floor_is_seeded() -> None:
    """The same seed gives the same floor, so a report can be made again."""
    reference = np.arange(1.0, 30.0)

    assert item_drift.noise_floor(reference, 100, seed=3) == item_drift.noise_floor(reference, 100, seed=3)
    assert item_drift.noise_floor(reference, 100, seed=3) != item_drift.noise_floor(reference, 100, seed=4)


@pytest.mark.parametrize(("codes", "events"), [(256, 5_000), (4_000, 2_500)])
def test_two_samples_of_one_distribution_lie_at_the_two_sample_floor(codes: int, events: int) -> None:
    """The mean ratio of 40 equal pairs is 1, for evenly used codes and for a long tail of rare items alike."""
    shares = 1 / np.arange(1, codes + 1) if codes > 256 else np.ones(codes)
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        before, now = (rng.multinomial(events, shares / shares.sum()).astype(float) for _ in range(2))
        ratios.append(item_drift.js_divergence(before, now) / item_drift.two_sample_floor(before, now, seed=0))

    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_a_small_reference_needs_the_two_sample_floor() -> None:
    """Counting the current sample's noise alone would double the ratio."""
    rng = np.random.default_rng(0)
    before, now = (rng.multinomial(5_000, np.full(256, 1 / 256)).astype(float) for _ in range(2))

    assert item_drift.js_divergence(before, now) / item_drift.noise_floor(before, 5_000, seed=0) > 1.6


@pytest.mark.parametrize(
    ("psi", "ratio", "events", "level"),
    [
        (0.19, 1.99, 5000, "ok"),
        (0.20, 0.0, 5000, "warn"),
        (0.0, 2.0, 5000, "warn"),
        (0.30, 2.4, 5000, "warn"),
        (0.24, 9.0, 5000, "warn"),
        (0.25, 2.5, 5000, "alarm"),
        (0.25, 2.5, 4999, "insufficient"),
    ],
)
def test_the_rule_at_its_borders(psi: float, ratio: float, events: int, level: str) -> None:
    """Either measure warns, both together alarm, and too few events say nothing."""
    assert item_drift.judge(psi, ratio, events, CONFIG)[0] == level


def test_nothing_to_compare_is_insufficient() -> None:
    """An empty window, or an empty reference, has no statistics and no verdict."""
    assert item_drift.measure({"a": 1}, {}, CONFIG, seed=0).level == "insufficient"
    assert item_drift.measure({}, {"a": 9000}, CONFIG, seed=0).statistics is None
