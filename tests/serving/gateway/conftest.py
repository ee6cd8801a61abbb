"""A real gateway, in front of the real server or of one that fails as told."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.gateway.process import GatewayProcess
from serving.triton.server import free_port
from tests.serving.conftest import Live

TOKEN = "open sesame"


@contextmanager
def running(folder: Path, triton_url: str, **settings: str) -> Iterator[GatewayProcess]:
    """A gateway with a token and these settings, ready to answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(folder / "home"))
        patch.setenv("SIDREC_GATEWAY_TOKEN", TOKEN)
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        for name, value in settings.items():
            patch.setenv(name, value)
        process = GatewayProcess(free_port(), triton_url, folder / "gateway.log")
        process.start()
        try:
            process.wait_answer()
            yield process
        finally:
            process.stop()


@pytest.fixture(scope="module")
def gateway(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running(tmp_path_factory.mktemp("gateway"), live.server.url) as process:
        yield process


def call(gateway: GatewayProcess, path: str, body: Any = None, *, token: str | None = TOKEN) -> tuple[int, Any]:
    status, text, _ = call_for_headers(gateway, path, body, token=token)
    return status, text


def call_for_headers(
    gateway: GatewayProcess, path: str, body: Any = None, *, token: str | None = TOKEN
) -> tuple[int, str, Any]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers
