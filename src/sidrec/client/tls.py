"""TLS of the gRPC door, for whoever asks it and for the server itself: one folder, as Kubernetes mounts a TLS secret.

SIDREC_GRPC_TLS names it. `ca.crt` is whom we trust; `tls.crt` and `tls.key` are who we are. A server with a `ca.crt`
answers only clients that show a certificate of it. Read when a connection is made, and by a server when it starts.
"""

import os
from pathlib import Path
from typing import Any

from sidrec.errors import UsageError

VARIABLE = "SIDREC_GRPC_TLS"


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def _existing(folder: Path, name: str) -> str | None:
    path = folder / name
    return str(path) if path.is_file() else None


def connection_args() -> dict[str, Any]:
    """Return what a tritonclient connection needs; nothing where no folder is named.

    Raises:
        UsageError: the folder names nobody to trust: that would be no protection.
    """
    folder = _folder()
    if folder is None:
        return {}
    authority = _existing(folder, "ca.crt")
    if authority is None:
        raise UsageError(f"{VARIABLE} is {folder}, which has no ca.crt", next_step="mount the authority's certificate")
    own = {"private_key": _existing(folder, "tls.key"), "certificate_chain": _existing(folder, "tls.crt")}
    return {"ssl": True, "root_certificates": authority, **own}


def server_options() -> list[str]:
    """Return what makes a Triton server speak TLS; nothing where no folder is named.

    Raises:
        UsageError: it has no certificate or no key.
    """
    folder = _folder()
    if folder is None:
        return []
    certificate, key = _existing(folder, "tls.crt"), _existing(folder, "tls.key")
    if certificate is None or key is None:
        raise UsageError(
            f"{VARIABLE} is {folder}, which lacks tls.crt or tls.key", next_step="mount a TLS secret there"
        )
    options = ["--grpc-use-ssl=true", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    authority = _existing(folder, "ca.crt")
    return options if authority is None else [*options, "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={authority}"]
