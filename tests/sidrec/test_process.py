"""A lock is held by one process and freed by its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from sidrec.errors import BusyError
from sidrec.process import exclusive


def test_second_holder_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    """Who comes second learns who holds the lock."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from sidrec.process import exclusive\n"
            f"with exclusive(Path({str(tmp_path / 'lock')!r}), 'slot'):\n print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    holder.stdout.readline()

    with pytest.raises(BusyError, match=f"process {holder.pid}"), exclusive(tmp_path / "lock", "slot"):
        pass
    holder.kill()
    holder.wait()
    with exclusive(tmp_path / "lock", "slot"):
        pass
