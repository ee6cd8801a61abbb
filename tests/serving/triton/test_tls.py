"""A server with TLS answers those that it trusts, and nobody else."""

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.supervisor import Supervisor
from serving.triton.canary import ask_canary
from serving.triton.server import free_port
from sidrec import home
from sidrec.errors import ServingError
from tests.serving.conftest import publish
from tests.serving.world import make_bundle, make_revision


def certificate(
    name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
) -> tuple[bytes, bytes, x509.Name, ec.EllipticCurvePrivateKey]:
    """Return a certificate and key in PEM form for loopback, signed by `issuer` or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer_name, signer = issuer or (subject, key)
    now = datetime.now(UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(loopback, critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private, subject, key


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor whose server wants certificates of our authority; its folder is `tls`."""
    authority, _, name, key = certificate("authority", None)
    own, private, _, _ = certificate("triton", (name, key))
    folder = tmp_path / "tls"
    folder.mkdir()
    for file, content in (("ca.crt", authority), ("tls.crt", own), ("tls.key", private)):
        (folder / file).write_bytes(content)
    monkeypatch.setenv("SIDREC_GRPC_TLS", str(folder))
    bundle = make_bundle(tmp_path / "made")
    publish(home.triton_repository_dir(), make_revision(1, bundle), bundle)
    supervisor = Supervisor(grpc_port=free_port())
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()


def test_only_those_with_a_certificate_are_answered(
    served: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe with the folder gets an answer; plain text, and a client that shows nothing, get none."""
    answered = ask_canary(served.server.url, timeout_s=5.0)
    monkeypatch.delenv("SIDREC_GRPC_TLS")
    with pytest.raises(ServingError):
        ask_canary(served.server.url, timeout_s=2.0)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    (nobody / "ca.crt").write_bytes((tmp_path / "tls" / "ca.crt").read_bytes())
    monkeypatch.setenv("SIDREC_GRPC_TLS", str(nobody))
    with pytest.raises(ServingError):
        ask_canary(served.server.url, timeout_s=2.0)

    assert answered.source == "cold"
