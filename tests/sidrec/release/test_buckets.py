"""Users fall evenly, and a ramp of any arm moves nobody out of another."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, chi2_contingency

from sidrec.release.buckets import Buckets, buckets, fits, point_of
from sidrec.release.revision import Arm, BundleRef, arm_for

USERS = 1_000_000
RARE = 1e-4


@pytest.fixture(scope="module")
def points() -> NDArray[np.float64]:
    """Where a million users fall under one salt."""
    return np.array([point_of(f"user-{number}", "codes") for number in range(USERS)])


def arms_of(points: NDArray[np.float64], *shares: float) -> NDArray[np.int64]:
    """Return the number of each point's arm, as `Buckets.arm_at` does one by one."""
    line = buckets(shares)
    return np.array(line.arms)[np.searchsorted(np.array(line.ends), points, side="right")]


def revision_arms(*shares: float) -> tuple[Arm, ...]:
    sha256 = hashlib.sha256(b"bundle").hexdigest()
    bundle = BundleRef(bundle_id=f"b-{sha256[:12]}", sha256=sha256)
    return tuple(Arm(name=f"arm{number}", bundle=bundle, share=share) for number, share in enumerate(shares))


def test_a_million_users_fall_evenly(points: NDArray[np.float64]) -> None:
    """Over 1,000 equal buckets the chi-square is one that chance gives, neither too high nor too low."""
    counts = np.histogram(points, bins=1000, range=(0, 1))[0]
    statistic = float(((counts - USERS / 1000) ** 2 / (USERS / 1000)).sum())

    assert RARE < chi2.sf(statistic, df=999) < 1 - RARE


def test_shares_are_met(points: NDArray[np.float64]) -> None:
    """Four arms of a million users have their shares, by chi-square."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    counts = np.bincount(arms_of(points, *shares), minlength=4)

    assert chi2.sf(((counts - USERS * shares) ** 2 / (USERS * shares)).sum(), df=3) > RARE


def test_a_ramp_of_one_challenger_moves_no_exposed_user(points: NDArray[np.float64]) -> None:
    """5, 20, 50 and 100 %: of a million users 0 leave the treatment, and those who come were the champion's."""
    ramp = [arms_of(points, 1 - share, share) for share in (0.05, 0.2, 0.5, 1.0)]
    left = [int(((before == 1) & (after != 1)).sum()) for before, after in pairwise(ramp)]

    assert left == [0, 0, 0]


@pytest.mark.parametrize("grown", [1, 2])
def test_a_ramp_of_one_of_two_challengers_moves_nobody_of_the_other(points: NDArray[np.float64], grown: int) -> None:
    """Either challenger grows from 5 to 20 to 50 % beside 50 % of the other: 0 of a million users leave either."""
    other = 3 - grown
    steps = [{0: 0.5 - share, grown: share, other: 0.5} for share in (0.05, 0.2, 0.5)]
    ramp = [arms_of(points, *(step[arm] for arm in range(3))) for step in steps]

    assert all(((before == other) == (after == other)).all() for before, after in pairwise(ramp))
    assert not any(((before == grown) & (after != grown)).any() for before, after in pairwise(ramp))


def test_a_second_challenger_moves_nobody_of_the_first(points: NDArray[np.float64]) -> None:
    """The first challenger's users stay when another one joins later."""
    assert ((arms_of(points, 0.7, 0.3) == 1) == (arms_of(points, 0.4, 0.3, 0.3) == 1)).all()


def test_experiments_are_independent(points: NDArray[np.float64]) -> None:
    """Where another salt puts a user has nothing to do with where this one did, by chi-square over 10 × 10 buckets."""
    others = np.array([point_of(f"user-{number}", "beams") for number in range(USERS)])
    table = np.histogram2d(points, others, bins=10, range=((0, 1), (0, 1)))[0]

    assert RARE < chi2_contingency(table).pvalue < 1 - RARE


def test_one_challenger_keeps_the_users_it_always_had(points: NDArray[np.float64]) -> None:
    """With two arms the champion has the points below its share, the challenger those above."""
    for share in (0.05, 0.2, 0.5):
        assert ((points >= 1 - share) == (arms_of(points, 1 - share, share) == 1)).all()


def test_the_server_s_function_says_the_same_as_the_table(points: NDArray[np.float64]) -> None:
    """`arm_for`, which serves, and the vectorised look-up agree on 20,000 users of a revision of four arms."""
    arms = revision_arms(0.4, 0.3, 0.2, 0.1)
    served = [arms.index(arm_for(f"user-{number}", "codes", arms)) for number in range(20_000)]

    assert served == arms_of(points[:20_000], 0.4, 0.3, 0.2, 0.1).tolist()


@st.composite
def ramps(draw: st.DrawFn) -> tuple[list[float], list[float], int]:
    """Shares of up to six challengers within their parts of the line, before and after one of them grows."""
    challengers = draw(st.integers(1, 6))
    room = 1 / max(1, -(-challengers // 2))
    grown = draw(st.integers(1, challengers))
    before = [draw(st.floats(0, room / 2)) for _ in range(challengers)]
    after = list(before)
    after[grown - 1] = draw(st.floats(before[grown - 1], room / 2))
    return [1 - sum(before), *before], [1 - sum(after), *after], grown


@settings(max_examples=200, deadline=None)
@given(ramps(), st.lists(st.floats(0, 1, exclude_max=True), max_size=50))
def test_growing_any_arm_moves_only_the_champion_s_users(
    ramp: tuple[list[float], list[float], int], users: list[float]
) -> None:
    """Whatever the shares, as long as they fit: a user of any challenger stays when one of them grows."""
    before, after, _ = ramp
    old, new = buckets(tuple(before)), buckets(tuple(after))
    # The edges themselves and their neighbours are where a rule goes wrong.
    edges = [near for end in (*old.ends, *new.ends) for near in (end, np.nextafter(end, 0)) if 0 <= near < 1]
    moved = [point for point in (*users, *edges) if old.arm_at(point) not in (0, new.arm_at(point))]

    assert fits(before)
    assert fits(after)
    assert moved == []


@pytest.mark.parametrize(
    "shares", [(0.25, 0.25, 0.25, 0.25), (0.2,) * 5, (0.0, 0.7, 0.3), (0.4, 0.6, 0.0), (1.0, 0.0, 0.0, 0.0)]
)
def test_equal_arms_and_any_two_challengers_fit(shares: tuple[float, ...]) -> None:
    """A 2×2 of equal arms, five equal arms, and any two challengers keep to their regions and get their shares."""
    assert fits(shares)
    assert lengths(buckets(shares), len(shares)) == pytest.approx(shares)


def test_shares_that_outgrow_their_region_are_met_all_the_same() -> None:
    """Two of three challengers with .8 together do not fit their half; they get their shares, but cannot be ramped."""
    shares = (0.1, 0.5, 0.3, 0.1)

    assert not fits(shares)
    assert lengths(buckets(shares), 4) == pytest.approx(shares)


def lengths(line: Buckets, num_arms: int) -> Sequence[float]:
    """Return how much of the line each arm holds."""
    edges = [0.0, *line.ends, 1.0]
    return [
        sum(high - low for arm, low, high in zip(line.arms, edges, edges[1:], strict=False) if arm == wanted)
        for wanted in range(num_arms)
    ]
