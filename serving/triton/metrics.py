"""What Triton's own metrics do not say, on the same page: sources, beams, feature ages, refusals, exposure rows.

Shares are left to who reads: a cold share is a rate of `sidrec_answers_total{source="cold"}` by that of all. The time
that requests wait is Triton's own `nv_inference_queue_duration_us`.

A sample that changes is a message to the server's process and waits for its answer, so no request sends any: what
batches add is gathered here and published once a second.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from serving.triton.answering import Refused, Served
from sidrec.exposure import ExposureWriter

log = logging.getLogger(__name__)

_PUBLISH_S = 1.0
OUTSIDE = "outside"
_COUNTERS = {
    "sidrec_answers_total": "Answers by arm and source",
    "sidrec_refusals_total": "Requests without an answer, by whose fault it was",
    "sidrec_beams_total": "Beams that were searched, by arm",
    "sidrec_valid_beams_total": "Beams that ended at an item of the catalogue, by arm",
    "sidrec_shadow_total": "Requests that the shadow was offered, by what became of them",
    "sidrec_feature_reads_total": "Histories asked of the feature store, by what it said",
    "sidrec_feature_age_seconds_sum": "Ages of the histories that the feature store gave, added up",
    "sidrec_feature_age_seconds_count": "Histories with an age that the feature store gave",
}
_GAUGES = {
    "sidrec_exposures_buffered": "Exposure rows a crash would lose",
    "sidrec_exposures_dropped": "Exposure rows lost to a full buffer",
    "sidrec_shadow_rows_dropped": "Rows of the shadow's answers lost to a full buffer",
    "sidrec_intra_op_threads": "Threads that one matrix product may use; more than one is slower on a busy machine",
}


class Metrics:
    """Counts of one revision by all its instances, and gauges of this instance."""

    def __init__(self, revision: str, instance: str, exposures: ExposureWriter) -> None:
        """Start to publish what is counted, and the state of `exposures`."""
        self._revision = revision
        self._instance = instance
        self._exposures = exposures
        self._shadow_rows: ExposureWriter | None = None
        kinds = ((_COUNTERS, pb_utils.MetricFamily.COUNTER), (_GAUGES, pb_utils.MetricFamily.GAUGE))
        self._families = {
            name: pb_utils.MetricFamily(name=name, description=text, kind=kind)
            for texts, kind in kinds
            for name, text in texts.items()
        }
        self._metrics: dict[tuple[str, ...], Any] = {}
        self._shown: dict[str, float] = {}
        self._server = os.getppid()
        self._counted: Counter[Key] = Counter()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._publish()
        self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")
        self._thread.start()

    def count(self, outcomes: Sequence[Served | Refused]) -> None:
        """Add a batch's outcomes; canaries are not counted."""
        found = counts(outcomes)
        with self._lock:
            self._counted.update(found)

    def watch_shadow(self, rows: ExposureWriter) -> None:
        """Publish the state of the shadow's log too."""
        self._shadow_rows = rows

    def count_shadow(self, outcome: str) -> None:
        """Add what became of one request that the shadow was offered."""
        with self._lock:
            self._counted["sidrec_shadow_total", ("outcome", outcome)] += 1

    def close(self) -> None:
        """Publish what is left and stop."""
        self._closed.set()
        self._thread.join()
        self._publish()

    def _run(self) -> None:
        while not self._closed.wait(_PUBLISH_S):
            if os.getppid() != self._server:
                # Nobody would answer, and a call waits for ever with the interpreter's lock in its hands: what ends
                # this process without its server could not run.
                return
            try:
                self._publish()
            except Exception:
                # The boundary: the server's process did not answer, and the next second may be better.
                log.exception("event=metrics_unpublished")

    def _publish(self) -> None:
        with self._lock:
            found, self._counted = self._counted, Counter()
        for key, number in found.items():
            self._metric(*key).increment(number)
        stats = self._exposures.stats()
        self._gauge("sidrec_exposures_buffered", stats.buffered)
        self._gauge("sidrec_exposures_dropped", stats.dropped)
        if self._shadow_rows is not None:
            self._gauge("sidrec_shadow_rows_dropped", self._shadow_rows.stats().dropped)

    def show_threads(self, threads: int) -> None:
        """Show how many threads this instance computes with."""
        self._gauge("sidrec_intra_op_threads", threads)

    def _gauge(self, name: str, value: float) -> None:
        if self._shown.get(name) != value:
            self._metric(name, ("instance", self._instance)).set(value)
            self._shown[name] = value

    def _metric(self, name: str, *labels: tuple[str, str]) -> Any:
        key = (name, *(value for _, value in labels))
        if key not in self._metrics:
            self._metrics[key] = self._families[name].Metric(labels=dict(labels) | {"revision": self._revision})
        return self._metrics[key]


Key = tuple[str, *tuple[tuple[str, str], ...]]


def counts(outcomes: Sequence[Served | Refused]) -> Counter[Key]:
    """Return what a batch adds to each counter, by the counter's name and labels."""
    found: Counter[Key] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            found["sidrec_refusals_total", ("fault", "caller" if outcome.invalid else "server")] += 1
            continue
        if outcome.request.canary:
            continue
        # Apart from the arm, so that a read-out can hold its log against the answers of its own users.
        arm = ("arm", outcome.arm.name if outcome.counts else OUTSIDE)
        found["sidrec_answers_total", arm, ("source", outcome.answer.source)] += 1
        found["sidrec_beams_total", arm] += outcome.answer.beam_width
        found["sidrec_valid_beams_total", arm] += outcome.answer.valid_beams
        if outcome.feature_status is not None:
            found[("sidrec_feature_reads_total", ("status", outcome.feature_status))] += 1
        if outcome.feature_age_s is not None:
            found[("sidrec_feature_age_seconds_sum",)] += outcome.feature_age_s
            found[("sidrec_feature_age_seconds_count",)] += 1
    return found
