"""Exposures and outcomes as the server and its users would write them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from sidrec import exposure, home
from sidrec.clock import day_start
from sidrec.exposure import Exposure
from sidrec.outcome import Outcome, OutcomeLog

BUNDLE_ID = "b-0123456789ab"


@dataclass(frozen=True)
class World:
    """Paths of a small world: 16 items with two-level codes, baskets of the fit period."""

    bundle: Path
    baskets: Path


def at(day: date, seconds: int = 0) -> int:
    """Return a time of a day in unix seconds."""
    return day_start(day) + seconds


EXPOSURE = Exposure(
    request_id="r",
    user_id="u",
    wall_time_ms=0,
    event_time=0,
    arm="control",
    bundle_id=BUNDLE_ID,
    revision=1,
    experiment=None,
    surface=None,
    k=10,
    exclude_seen=False,
    history_source="store",
    history_length=10,
    known_items=9,
    item_ids=[],
    semantic_ids=[],
    scores=[],
    source="model",
    feature_age_s=3 * 86_400,
    latency_ms=5.0,
    beam_width=50,
    valid_beams=50,
    group_size=1,
)


def exposed(request_id: str, user_id: str, event_time: int, items: Sequence[str], **changes: object) -> Exposure:
    """Return an exposure of these items; the semantic ID of `i<n>` is (n mod 4, n div 4)."""
    codes = [[int(item[1:]) % 4, int(item[1:]) // 4] if item[1:].isdigit() else [0, 0] for item in items]
    values = {
        "request_id": request_id,
        "user_id": user_id,
        "event_time": event_time,
        "wall_time_ms": event_time * 1000,
        "item_ids": list(items),
        "semantic_ids": codes,
        "scores": [-float(rank + 1) for rank in range(len(items))],
    }
    return replace(EXPOSURE, **(values | changes))  # type: ignore[arg-type]


def write_exposures(rows: Sequence[Exposure]) -> Path:
    """Write exposures as segments of this test's log."""
    writer = exposure.ExposureWriter(home.exposures_dir())
    for row in rows:
        writer.append(row)
    writer.close()
    return home.exposures_dir()


def bought(user_id: str, item_id: str, event_time: int, request_id: str | None = None) -> Outcome:
    """Return a purchase whose id is made of its values."""
    return Outcome(
        event_id=f"{user_id}/{item_id}/{event_time}",
        user_id=user_id,
        item_id=item_id,
        event_time=event_time,
        request_id=request_id,
    )


def write_outcomes(rows: Sequence[Outcome]) -> Path:
    """Write outcomes as a segment of this test's log."""
    OutcomeLog(home.outcomes_dir()).append(rows)
    return home.outcomes_dir()
