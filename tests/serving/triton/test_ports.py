"""Ports that are chosen for a server stay free until it listens."""

import socket

import pytest

from serving.triton import server
from serving.triton.server import free_port
from sidrec.errors import ServingError


def test_a_free_port_can_be_bound_and_is_none_of_outgoing_connections() -> None:
    """Linux gives those from 32768 on."""
    for _ in range(20):
        port = free_port()
        with socket.socket() as own:
            own.bind(("127.0.0.1", port))
        assert port < 32_768


def test_a_taken_port_is_passed_over_and_all_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "_PORTS", [port] * 100)

        with pytest.raises(ServingError, match="no free port"):
            free_port()
    assert free_port() == port
