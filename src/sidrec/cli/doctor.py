"""`sidrec doctor`: does this machine have what a run and a server need."""

import os
import platform
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import typer
from rich.console import Console

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import CheckFailedError

_MIN_GLIBC = (2, 35)
_MIN_SHM_BYTES = 64 * 2**20
_SHM = "/dev/shm"  # noqa: S108 - the check is about this very folder


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome and, where it failed, the fix."""

    check: str
    ok: bool
    seen: str
    fix: str


def doctor(as_json: JsonFlag = False) -> None:
    """Check Python, the C library, shared memory, the Triton server and the state folder."""
    findings = [check() for check in _CHECKS]
    value = {"ok": all(f.ok for f in findings), "checks": [_row(f) for f in findings]}

    def render() -> None:
        console = Console()
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]FAIL[/]"
            console.print(f"{mark} {finding.check}: {finding.seen}", highlight=False)
            if not finding.ok:
                console.print(f"     fix: {finding.fix}", highlight=False)

    emit(value, as_json, render)
    broken = [finding for finding in findings if not finding.ok]
    if broken and as_json:  # the findings are the one JSON object
        raise typer.Exit(CheckFailedError.exit_code)
    if broken:
        names = ", ".join(finding.check for finding in broken)
        raise CheckFailedError(f"this machine is not ready: {names}", next_step=broken[0].fix)


def _row(finding: Finding) -> dict[str, str | bool]:
    return {"check": finding.check, "ok": finding.ok, "seen": finding.seen, "fix": finding.fix}


def _python() -> Finding:
    seen = platform.python_version()
    ok = sys.version_info[:2] == (3, 11)
    return Finding("python 3.11", ok, seen, "make setup PYTHON=/path/to/python3.11")


def _libpython() -> Finding:
    """Triton's Python stub embeds libpython, so the interpreter must have it as a shared library."""
    name = "libpython3.11.so.1.0"
    places = [Path(str(sysconfig.get_config_var("LIBDIR"))), Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib")]
    found = next((str(place / name) for place in places if (place / name).exists()), None)
    return Finding("libpython", found is not None, found or f"no {name}", "apt-get install libpython3.11")


def _glibc() -> Finding:
    seen = platform.libc_ver()[1] or "0"
    ok = tuple(int(part) for part in seen.split(".")[:2]) >= _MIN_GLIBC
    return Finding("glibc >= 2.35", ok, seen, "use Debian 12, Ubuntu 22.04 or newer")


def _shared_memory() -> Finding:
    try:
        stats = os.statvfs(_SHM)
    except OSError as error:
        return Finding(_SHM, False, str(error), "mount a tmpfs of at least 64 MB at /dev/shm")
    free = stats.f_bavail * stats.f_frsize
    return Finding(_SHM, free >= _MIN_SHM_BYTES, f"{free / 2**20:.0f} MB free", "mount at least 64 MB there")


def _triton() -> Finding:
    try:
        from serving.supervisor import triton_home
    except ModuleNotFoundError as error:
        return Finding(
            "tritonserver", False, f"a bare wheel: no {error.name}", "run from a checkout after `make setup`"
        )
    folder = triton_home()
    server = folder / "wheel" / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    return Finding("tritonserver", server.exists(), str(server), "make setup")


def _platforms() -> Finding:
    names = ("kfp", "feast", "great_expectations", "bentoml", "tritonclient", "evidently")
    missing = [name for name in names if not _installed(name)]
    seen = "all installed" if not missing else f"missing {', '.join(missing)}"
    return Finding("platforms", not missing, seen, "pip install 'sidrec[all]'")


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _state() -> Finding:
    folder = home.home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Finding("state folder", False, str(error), "set SIDREC_HOME to a folder you may write")
    return Finding("state folder", True, str(folder), "")


_CHECKS: list[Callable[[], Finding]] = [_python, _libpython, _glibc, _shared_memory, _platforms, _triton, _state]
