"""The gRPC door's TLS is one folder, and a half of one protects nothing and is refused."""

from pathlib import Path

import pytest

from sidrec.client.tls import connection_args, server_options
from sidrec.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("SIDREC_GRPC_TLS", str(tmp_path))
    return tmp_path


def test_a_laptop_speaks_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable nothing changes."""
    monkeypatch.delenv("SIDREC_GRPC_TLS", raising=False)

    assert (connection_args(), server_options()) == ({}, [])


def test_both_sides_show_a_certificate(folder: Path) -> None:
    """With the authority's certificate in the folder a server asks clients for theirs, and clients have one to show."""
    assert {"--grpc-use-ssl-mutual=true", f"--grpc-root-cert={folder / 'ca.crt'}"} <= set(server_options())
    assert connection_args() == {
        "ssl": True,
        "root_certificates": str(folder / "ca.crt"),
        "private_key": str(folder / "tls.key"),
        "certificate_chain": str(folder / "tls.crt"),
    }


def test_a_client_that_trusts_nobody_in_particular_is_refused(folder: Path) -> None:
    """Without an authority any server would do: that is an error, no silent fallback."""
    (folder / "ca.crt").unlink()

    with pytest.raises(UsageError, match=r"no ca\.crt"):
        connection_args()


def test_a_server_without_a_key_is_refused(folder: Path) -> None:
    """A server never falls back to plain text because a secret is incomplete."""
    (folder / "tls.key").unlink()

    with pytest.raises(UsageError, match=r"tls\.key"):
        server_options()
