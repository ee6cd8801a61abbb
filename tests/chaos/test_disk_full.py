"""No room for the exposure log: answers go on, rows wait, what no longer fits is counted; room again, and they land."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from serving.supervisor import Supervisor
from sidrec import exposure, home
from tests.chaos.load import Load
from tests.serving.triton.test_metrics import wait_for

Serve = Callable[..., AbstractContextManager[Supervisor]]

_BUFFER_ROWS = 50


def test_a_log_that_cannot_be_written_stops_no_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is written, waiting or counted as dropped; the buffer never grows beyond its bound."""
    monkeypatch.setenv("SIDREC_EXPOSURE_ROWS", str(_BUFFER_ROWS))
    folder = home.exposures_dir()
    folder.mkdir(parents=True)
    aside = folder.with_name("aside")
    ask = {"history": ["i3"], "k": 1}
    instance = 'instance="recommend_0_0"'
    with serve(exposure_flush_s=0.1) as supervisor:
        with Load(supervisor.server.url, ask=lambda n: ask | {"context": {"request_id": f"r{n}"}}) as load:
            load.wait_answers(20)
            shutil.move(folder, aside)
            folder.write_text("a file is where the folder should be, so that nothing can be written")
            load.wait_answers(5 * _BUFFER_ROWS)
        full = wait_for(supervisor.server, ("sidrec_exposures_buffered", instance), _BUFFER_ROWS)
        folder.unlink()
        shutil.move(aside, folder)
    rows = exposure.read(folder)["request_id"]

    assert load.failures == []
    assert {one.answer.item_ids for one in load.answers} == {("i0",)}
    assert full["sidrec_exposures_buffered", instance] == _BUFFER_ROWS
    dropped = full["sidrec_exposures_dropped", instance]
    assert dropped > 0
    assert rows.n_unique() == len(rows) == len(load.answers) - dropped
    assert "event=exposures_unwritable" in supervisor.server.log.read_text()
