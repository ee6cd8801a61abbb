"""KFP's v2beta1 API on loopback, as far as recurring runs go: its published paths, fields, pages and states.

Bodies are read and answers written through the published client's own models, so an unknown or misspelt field fails.
"""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp

RECURRING = re.compile(r"^/apis/v2beta1/recurringruns(?:/(?P<id>[^:/]+)(?::(?P<verb>enable|disable))?)?$")


class KfpApi:
    """What the server has, and every call that changed it; `page` limits what one answer lists."""

    def __init__(self, *, token: str = "", page: int = 2) -> None:
        self.recurring: dict[str, kfp.V2beta1RecurringRun] = {}
        self.runs: list[kfp.V2beta1Run] = []
        self.experiments: list[kfp.V2beta1Experiment] = []
        self.changed: list[str] = []
        self.token, self.page, self.url = token, page, ""
        self._numbers = itertools.count(1)
        self._client = kfp.ApiClient(kfp.Configuration(host="http://nowhere"))

    def ended(self, recurring_run_id: str, *states: str) -> None:
        """Add runs of a recurring run, newest last."""
        for state in states:
            number = next(self._numbers)
            experiment = self.experiments[0].experiment_id
            self.runs.append(
                kfp.V2beta1Run(
                    run_id=f"run-{number}", experiment_id=experiment, recurring_run_id=recurring_run_id, state=state
                )
            )

    def read(self, body: bytes, model: str) -> Any:
        given = json.loads(body)
        known = set(getattr(kfp, model).attribute_map.values())
        assert set(given) <= known, set(given) - known

        class Response:
            data = body

        return self._client.deserialize(Response, model)

    def create(self, run: Any) -> Any:
        assert run.experiment_id in {one.experiment_id for one in self.experiments}
        assert run.pipeline_spec
        assert run.trigger.cron_schedule.cron
        run.recurring_run_id = f"recurring-{next(self._numbers)}"
        run.status = "ENABLED" if run.mode == "ENABLE" else "DISABLED"
        self.recurring[run.recurring_run_id] = run
        self.changed.append(f"create {run.display_name}")
        return run

    def plain(self, value: Any) -> Any:
        return self._client.sanitize_for_serialization(value)


class Handler(BaseHTTPRequestHandler):
    api: KfpApi

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        if not self._allowed():
            return
        experiment = query.get("experiment_id")
        if path == "/apis/v2beta1/recurringruns":
            found = [run for run in self.api.recurring.values() if run.experiment_id == experiment]
            self._list("recurringRuns", found, query)
        elif path == "/apis/v2beta1/runs":
            found = [run for run in self.api.runs if run.experiment_id == experiment]
            self._list("runs", found[::-1] if query["sort_by"] == "created_at desc" else found, query)
        elif path == "/apis/v2beta1/experiments":
            self._list("experiments", self.api.experiments, query)
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = RECURRING.match(self.path)
        if self.path == "/apis/v2beta1/experiments":
            made = self.api.read(body, "V2beta1Experiment")
            made.experiment_id = f"experiment-{len(self.api.experiments) + 1}"
            self.api.experiments.append(made)
            self._answer(200, self.api.plain(made))
        elif found and found["verb"]:
            run = self.api.recurring[found["id"]]
            run.status = "ENABLED" if found["verb"] == "enable" else "DISABLED"
            self.api.changed.append(f"{found['verb']} {run.display_name}")
            self._answer(200, {})
        elif found and not found["id"]:
            self._answer(200, self.api.plain(self.api.create(self.api.read(body, "V2beta1RecurringRun"))))
        else:
            self._answer(404, {})

    def do_DELETE(self) -> None:
        found = RECURRING.match(self.path)
        if found and found["id"] in self.api.recurring:
            run = self.api.recurring.pop(found["id"])
            self.api.changed.append(f"delete {run.display_name}")
            self._answer(200, {})
        else:
            self._answer(404, {})

    def _allowed(self) -> bool:
        if self.api.token and self.headers.get("authorization") != f"Bearer {self.api.token}":
            self._answer(401, {"error": "no token"})
            return False
        return True

    def _list(self, key: str, found: list[Any], query: dict[str, str]) -> None:
        start = int(query.get("page_token") or 0)
        size = min(int(query["page_size"]), self.api.page)
        more = {"next_page_token": str(start + size)} if start + size < len(found) else {}
        self._answer(200, {key: self.api.plain(found[start : start + size]), "total_size": len(found), **more})

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(api: KfpApi) -> Iterator[KfpApi]:
    """Serve `api` on a free loopback port for the body."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
