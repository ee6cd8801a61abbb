"""A shadow's answers are held against those that were sent, worked by hand."""

from datetime import date

import pytest

from monitoring.shadow import beside
from sidrec import exposure, home
from sidrec.errors import UsageError
from sidrec.exposure import Exposure
from tests.monitoring.drift_world import at, exposed, write_exposures
from tests.monitoring.test_preread import drawn, shadowed

NOW = at(date(2010, 11, 1))


def shadow(*rows: Exposure) -> None:
    writer = exposure.ExposureWriter(home.shadow_dir())
    for row in rows:
        writer.append(row)
    writer.close()


def test_answers_to_the_same_request_are_compared() -> None:
    """Two of two items and the same first one, then one of two and another first one; a drawn answer is no answer."""
    sent = [exposed(f"r{n}", "u", NOW, ["i1", "i2"], latency_ms=5.0 + n) for n in range(3)]
    write_exposures([*sent, drawn("r4", "u", 0, ["i1", "i2"])])
    shadow(shadowed("r0", ["i1", "i2"]), shadowed("r1", ["i2", "i9"]), shadowed("r4", ["i7"]), shadowed("r9", ["i1"]))
    found = beside(home.exposures_dir(), home.shadow_dir())

    assert (found["requests"], found["overlap"], found["same_first"]) == (2, 0.75, 0.5)
    assert (found["sent"]["latency_p99_ms"], found["shadow"]["latency_p99_ms"]) == (6.0, 5.0)


def test_without_a_shadow_there_is_nothing_to_compare() -> None:
    """The error says what to do."""
    write_exposures([exposed("r0", "u", NOW, ["i1"])])
    with pytest.raises(UsageError, match="no shadow in"):
        beside(home.exposures_dir(), home.shadow_dir())
