"""Arms side by side."""

from monitoring.arms import arm_rows
from sidrec import exposure
from tests.monitoring.drift_world import exposed


def test_each_arm_has_its_counts_shares_and_latencies() -> None:
    """Two arms of two bundles: shares and nearest-rank percentiles by hand."""
    rows = [
        exposed(f"c{number}", "a", 10, ["i1"], latency_ms=float(number), source="cold" if number < 25 else "model")
        for number in range(1, 101)
    ]
    rows.append(exposed("t1", "b", 10, ["i1"], arm="treatment", bundle_id="b-other", source="degraded"))

    control, treatment = arm_rows(exposure.frame(rows).lazy())

    assert (control["arm"], control["requests"], control["cold_share"], control["degraded_share"]) == (
        "control",
        100,
        0.24,
        0.0,
    )
    assert (control["latency_p50_ms"], control["latency_p99_ms"]) in [(50.0, 99.0), (51.0, 99.0)]
    assert (treatment["arm"], treatment["bundle_id"], treatment["degraded_share"]) == ("treatment", "b-other", 1.0)


def test_no_requests_have_no_arms() -> None:
    """An empty window has no row."""
    assert arm_rows(exposure.SCHEMA.to_frame().lazy()) == []
