"""Files that are whole or absent: atomic writes and digests of files and folders."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, and a crash loses neither."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` in the same way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys, atomically."""
    write_text_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the one spelling of a JSON value that files have."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_bytes(content: bytes) -> str:
    """Return the hex SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of one file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(path: Path) -> str:
    """Return the hex SHA-256 of a file, or of a folder's sorted (relative path, digest) pairs."""
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def sha256_sources(folder: Path, *, without: frozenset[str] = frozenset()) -> str:
    """Return the hex SHA-256 over a folder's Python files, top-level names in `without` left out."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        relative = file.relative_to(folder)
        if relative.parts[0] not in without:
            digest.update(f"{relative.as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
