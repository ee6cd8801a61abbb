"""Drift verdicts by hand, and a real HTTP listener that keeps what it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from monitoring.findings import Area, Cause, DriftVerdict, Finding, Level, Suspect

MONDAY = date(2010, 9, 20)
CONTROL, TREATMENT = "b-000000000001", "b-000000000002"
BUNDLES = {"control": CONTROL, "treatment": TREATMENT}


def finding(
    name: str,
    level: Level = "ok",
    *,
    area: Area = "sid",
    arm: str = "treatment",
    effect: float | None = 0.1,
    **values: Any,
) -> Finding:
    """Return a finding of 6,000 rows whose warning begins at an effect of 0.2."""
    given = {
        "bundle_id": BUNDLES.get(arm),
        "window": "2010-09-20..2010-09-26",
        "reference": "the four weeks before",
        "value": 0.5,
        "reference_value": 0.6,
        "unit": "drop",
        "n": 6_000,
        "reference_n": 20_000,
        "min_n": 200,
        "threshold": 0.2,
        "cause": "shifted" if level in ("warn", "alarm") else None,
        "sentence": f"{name} of {arm} is {level}",
    }
    return Finding(name=name, area=area, arm=arm, effect=effect, level=level, **(given | values))


def suspect(cause: Cause, level: Level, *explained: Finding, since: date = MONDAY) -> Suspect:
    """Return a suspect of the first finding's area and arm."""
    return Suspect(
        cause=cause,
        area=explained[0].area,
        arm=explained[0].arm,
        level=level,
        since=since,
        sentence=f"{len(explained)} measures of {explained[0].arm}, control is flat",
        findings=tuple(one.key for one in explained),
    )


def verdict(*found: Finding, suspects: tuple[Suspect, ...] = (), reference: str = "fit") -> DriftVerdict:
    """Return the verdict of the week of September 20, as severe as its worst finding."""
    order: tuple[Level, ...] = ("insufficient", "ok", "warn", "alarm")
    return DriftVerdict(
        level=max((one.level for one in found), key=order.index, default="insufficient"),
        sentence="a week",
        window="2010-09-20..2010-09-26",
        first_day=MONDAY,
        last_day=date(2010, 9, 26),
        reference=reference,
        labels_final=True,
        watermark=0,
        bundle_ids=BUNDLES,
        findings=found,
        suspects=suspects,
    )


@dataclass
class Listener:
    """What a webhook on loopback was told, oldest first; `answer` is the status that it gives."""

    url: str = ""
    answer: int = 200
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        """The messages' first lines."""
        return [one["title"] for one in self.told]

    def fields(self, number: int) -> dict[str, str]:
        """Return a message's body by the names that its lines begin with."""
        lines = self.told[number]["message"].splitlines()
        return dict(line.split(": ", 1) for line in lines)


@contextmanager
def listening() -> Iterator[Listener]:
    """Yield a real HTTP server on a free loopback port."""
    heard = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if heard.answer == 200:
                heard.told.append(json.loads(body))
            self.send_response(heard.answer)
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"json://127.0.0.1:{server.server_port}/alerts"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
