"""The Ed25519 key pair that signs verdicts: made on first use, or mounted and named by the environment."""

import hashlib
import os
import secrets
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidrec import files, home
from sidrec.errors import CheckFailedError, UsageError

SIGNING_VARIABLE = "SIDREC_SIGNING_KEY"
VERIFY_VARIABLE = "SIDREC_VERIFY_KEY"


def signing_key() -> Ed25519PrivateKey:
    """Return the private key: the file that `SIDREC_SIGNING_KEY` names, else this installation's, made if absent.

    Raises:
        UsageError: the named file does not exist or is no Ed25519 key.
        CheckFailedError: others can read this installation's key.
    """
    named = os.environ.get(SIGNING_VARIABLE)
    if named:
        return _load_private(Path(named))
    path = home.keys_dir() / "signing.pem"
    if not path.exists():
        _create(path)
    # A mounted secret has the mode its mount gives it; this file is ours.
    if path.stat().st_mode & 0o077:
        raise CheckFailedError(
            f"the signing key is readable by others (mode {path.stat().st_mode & 0o777:o})",
            evidence=path,
            next_step=f"chmod 600 {path}",
        )
    return _load_private(path)


def verify_key() -> Ed25519PublicKey:
    """Return the public key: the file that `SIDREC_VERIFY_KEY` names, else the signing key's other half.

    Raises:
        UsageError: there is none, or it is no Ed25519 key.
    """
    named = os.environ.get(VERIFY_VARIABLE)
    path = Path(named) if named else home.keys_dir() / "verify.pem"
    # A mounted signing key has its other half with it; without one, only this installation's public file counts.
    if not named and (
        os.environ.get(SIGNING_VARIABLE) or (not path.exists() and path.with_name("signing.pem").exists())
    ):
        return signing_key().public_key()
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            f"no public key at {path}: no verdict can be checked here",
            next_step=f"set {VERIFY_VARIABLE} to the public key of whoever signs verdicts",
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is no public key in PEM form", evidence=path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is no Ed25519 key", evidence=path)
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return 16 hex digits that tell one public key from another."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
        # A link refuses to replace: of two processes that start together, one makes the key and both use it.
        os.link(partial, path)
    except FileExistsError:
        return
    finally:
        partial.unlink()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    files.write_text_atomic(path.with_name("verify.pem"), public.decode())
    print(
        f"made a key pair for signing verdicts: {path} (keep it secret), {path.with_name('verify.pem')}",
        file=sys.stderr,
    )


def _load_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise UsageError(f"{SIGNING_VARIABLE} names {path}, which does not exist") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is no unencrypted private key in PEM form", evidence=path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is no Ed25519 key", evidence=path)
    return key
