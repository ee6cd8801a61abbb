"""Which code and which library versions made something; never part of an id."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from sidrec import __version__

_PACKAGES = ("torch", "numpy", "polars", "pydantic", "safetensors", "scipy")


def git_sha() -> str:
    """Return the commit of the code that runs; `SIDREC_GIT_SHA` in images, where there is no repository."""
    named = os.environ.get("SIDREC_GIT_SHA")
    if named:
        return named
    root = Path(__file__).parents[3]
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def versions() -> dict[str, str]:
    """Return the version of Python, of sidrec and of each library whose numbers end up in a bundle."""
    found = {"python": platform.python_version(), "sidrec": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
