"""The Ed25519 key that signs verdicts, and the public keys that are trusted: made on first use, or mounted.

One key signs, several are trusted, so that a key is replaced while verdicts that the old one signed still hold.
"""

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
    """Return the public half of the key that signs here: of the signing key where there is one, else `verify.pem`.

    Raises:
        UsageError: there is none, or it is no Ed25519 key.
    """
    path = home.keys_dir() / "verify.pem"
    if can_sign():
        return signing_key().public_key()
    return load_public(path)


def trusted_keys() -> dict[str, Ed25519PublicKey]:
    """Return the public keys that a verdict may be signed with, by key id; the present one first.

    `SIDREC_VERIFY_KEY` names them: files, or folders of `*.pem`, with a colon between; nothing else is trusted then.
    Without it they are this installation's own and those in its folder `trusted`.

    Raises:
        UsageError: there is none, or a file is no Ed25519 key.
    """
    if named := os.environ.get(VERIFY_VARIABLE, "").strip():
        places = [Path(one) for one in named.split(os.pathsep)]
        paths = [path for place in places for path in (sorted(place.glob("*.pem")) if place.is_dir() else [place])]
        if not paths:
            raise UsageError(f"{VERIFY_VARIABLE} names folders without any *.pem: no verdict can be checked")
        found = [load_public(path) for path in paths]
    else:
        found = [verify_key(), *(load_public(path) for path in sorted(trusted_dir().glob("*.pem")))]
    return {key_id(key): key for key in found}


def can_sign() -> bool:
    """Return whether a signing key is mounted or was made here."""
    return bool(os.environ.get(SIGNING_VARIABLE)) or (home.keys_dir() / "signing.pem").exists()


def trusted_dir() -> Path:
    """Return the folder of further public keys that this installation trusts."""
    return home.keys_dir() / "trusted"


def trust(key: Ed25519PublicKey) -> Path:
    """Return the file that makes this installation trust one more key."""
    path = trusted_dir() / f"{key_id(key)}.pem"
    files.write_text_atomic(path, _pem(key))
    return path


def rotate() -> tuple[str, str]:
    """Make a new key that signs from now on, and return (old, new) key ids; verdicts of the old one still hold.

    Raises:
        UsageError: the signing key is mounted; whoever mounts it rotates it.
    """
    if os.environ.get(SIGNING_VARIABLE):
        raise UsageError(
            f"{SIGNING_VARIABLE} names a mounted key; this command replaces this installation's own only",
            next_step="docs/release.md, Keys: mount the new one, and trust both",
        )
    old = signing_key().public_key()
    trust(old)  # first: whatever happens next, what it signed still holds
    path = home.keys_dir() / "signing.pem"
    partial = _write_new(path)
    partial.replace(path)
    new = signing_key().public_key()
    files.write_text_atomic(path.with_name("verify.pem"), _pem(new))
    return key_id(old), key_id(new)


def retire(name: str) -> None:
    """Trust a key no longer: verdicts that it signed let nothing pass from now on.

    Raises:
        UsageError: it is no further key of this installation's; the one that signs is rotated first.
    """
    path = trusted_dir() / f"{name}.pem"
    if not path.exists():
        raise UsageError(f"{name} is no further key of this installation", next_step="sidrec keys list")
    path.unlink()


def key_id(key: Ed25519PublicKey) -> str:
    """Return 16 hex digits that tell one public key from another."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    partial = _write_new(path)
    try:
        # A link refuses to replace: of two processes that start together, one makes the key and both use it.
        os.link(partial, path)
    except FileExistsError:
        return
    finally:
        partial.unlink()
    files.write_text_atomic(path.with_name("verify.pem"), _pem(_load_private(path).public_key()))
    print(
        f"made a key pair for signing verdicts: {path} (keep it secret), {path.with_name('verify.pem')}",
        file=sys.stderr,
    )


def _write_new(path: Path) -> Path:
    """Return a new private key's file beside `path`, readable by this account alone from its first byte."""
    private = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    return partial


def _pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def load_public(path: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file.

    Raises:
        UsageError: there is none, or it is no Ed25519 key.
    """
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
