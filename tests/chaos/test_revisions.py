"""Revisions come and go under load; a bad one is refused, whatever is bad about it, and the good one serves on."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving import registry
from serving.deploy import confirm_live, deploy, prepare
from serving.state import read_state
from serving.supervisor import Supervisor
from serving.triton import repository
from sidrec import home
from sidrec.bundle import Bundle, write_bundle
from sidrec.errors import ServingError
from sidrec.release.ledger import Ledger
from sidrec.release.promotion import promote, rollback
from tests.chaos.conftest import CEILING_S, supervised
from tests.chaos.load import Load
from tests.release_world import make_signed
from tests.serving.world import make_bundle


def register(bundle: Bundle, folder: Path) -> Bundle:
    make_signed(bundle, folder / f"{bundle.bundle_id}.json")
    registry.register(bundle.folder, folder / f"{bundle.bundle_id}.json")
    return bundle


def ask_for(bundle: Bundle, *, first: bool = False) -> None:
    folder, verdict = registry.bundle_folder(bundle.bundle_id), registry.verdict_path(bundle.bundle_id)
    promote(registry.open_bundle(folder), verdict, why="test", who="ann", first=first)


def desired() -> int:
    """The newest revision that was asked for."""
    wanted = Ledger().desired()
    assert wanted is not None
    return wanted.revision


@dataclass(frozen=True)
class Standing:
    """A sound bundle that a supervised server serves as revision 1."""

    home: Path
    server: Supervisor
    sound: Bundle


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """One server for all faults: a refused revision leaves it as it was."""
    folder = tmp_path_factory.mktemp("standing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(folder / "home"))
        sound = register(make_bundle(folder / "made", name="sound"), folder)
        ask_for(sound, first=True)
        revision = prepare(Ledger())
        repository.point_to(home.triton_repository_dir(), revision.revision)
        with supervised() as server:
            confirm_live(revision, urls=[server.server.url], who="test")
            yield Standing(folder / "home", server, sound)


@pytest.fixture
def served(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> Standing:
    """The module's server, its state folder this test's."""
    monkeypatch.setenv("SIDREC_HOME", str(standing.home))
    return standing


def weights(change: Callable[[Path], None]) -> Callable[[Bundle, Path], None]:
    """Return what promotes a bundle whose weights are changed and whose digests hold."""

    def ask(bundle: Bundle, folder: Path) -> None:
        parts = {name: bundle.folder / name for name in bundle.manifest["files"]}
        parts["weights.safetensors"] = folder / "changed.safetensors"
        parts["weights.safetensors"].write_bytes((bundle.folder / "weights.safetensors").read_bytes())
        change(parts["weights.safetensors"])
        ask_for(register(write_bundle(folder / "bad", parts, {}), folder))

    return ask


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def not_a_number(path: Path) -> None:
    save_file({name: np.full_like(values, np.nan) for name, values in load_file(path).items()}, path)


_NEWEST = itertools.count(60)


def code(old: str, new: str) -> Callable[[Bundle, Path], None]:
    """Return what promotes another bundle and changes the code that its version carries."""

    def ask(bundle: Bundle, folder: Path) -> None:
        # A bundle of its own each time: one that is asked for already is not asked for again.
        ask_for(register(make_bundle(folder / "made", name="other", newest=next(_NEWEST)), folder))
        prepare(Ledger())
        model = home.triton_repository_dir() / "recommend" / str(desired()) / "model.py"
        assert old in model.read_text()
        model.write_text(model.read_text().replace(old, new))

    return ask


BAD = {
    "corrupt weights": weights(corrupt),
    "weights that are no numbers": weights(not_a_number),
    "code that cannot be imported": code("import torch\n", "import torch\nimport no_such_module\n"),
    "code that cannot be parsed": code("import torch\n", "import torch (\n"),
    "an output of another type": code("answer.scores[None]", "answer.scores[None].astype(np.float64)"),
    "an output under another name": code("pb_utils.Tensor(spec.name,", "pb_utils.Tensor(spec.name + 'S',"),
    "items of nobody": code("item.encode() for item in", "b'x' + item.encode() for item in"),
    "another bundle's name": code("_text(outcome.arm.bundle.bundle_id)", "_text('b-000000000000')"),
    "fewer responses than requests": code("return responses\n", "return responses[1:]\n"),
}


def settle(supervisor: Supervisor) -> None:
    """Wait until whatever had died before is buried: a stub's last request may outlive the deployment."""
    deadline = time.monotonic() + CEILING_S
    while supervisor.server.lost_a_stub() or (read_state() or {"health": "gone"})["health"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_revision_is_refused_while_the_good_one_serves(served: Standing, tmp_path: Path, fault: str) -> None:
    """The deployment says so, the config is back, the old answers stay right and whole."""
    with Load(served.server.server.url) as load:
        load.wait_answers(20)
        BAD[fault](served.sound, tmp_path)
        with pytest.raises(ServingError, match="revision 1 serves on"):
            deploy()
        began = len(load.answers)
        load.wait_answers(20)
        after = load.answers[began:]

    assert load.failures == []
    assert {(one.answer.model_version, one.answer.item_ids[0]) for one in after[8:]} == {("1", "i0")}
    assert repository.pointed_to(home.triton_repository_dir()) == 1
    assert served.server.restarts == 0


def test_no_request_fails_and_no_answer_is_mixed(served: Standing, tmp_path: Path) -> None:
    """Forward, back, forward: each answer's bundle and items are those of the revision that it names."""
    sound, number = served.sound, desired()
    other = register(make_bundle(tmp_path / "made", name="other", newest=50), tmp_path)
    with Load(served.server.server.url) as load:
        load.wait_answers(50)
        for step in range(3):
            if step == 1:
                rollback(why="the first was better", who="ann")
            else:
                ask_for(other)
            deploy(who="ann")
            load.wait_answers(50)

    assert load.failures == []
    seen = {(one.answer.model_version, one.answer.bundle_id, one.answer.item_ids[0]) for one in load.answers}
    assert seen == {
        ("1", sound.bundle_id, "i0"),
        (str(number + 1), other.bundle_id, "i50"),
        (str(number + 2), sound.bundle_id, "i0"),
        (str(number + 3), other.bundle_id, "i50"),
    }


def test_going_back_works_while_the_revision_keeps_dying(served: Standing, tmp_path: Path) -> None:
    """A revision that passes its golden requests and then dies again and again is left by one rollback."""
    with Load(served.server.server.url) as load:
        load.wait_answers(20)
        code(
            "        started = time.perf_counter()\n",
            "        self.batches = getattr(self, 'batches', 0) + 1\n"
            "        if self.batches > 60:\n            os._exit(1)\n"
            "        started = time.perf_counter()\n",
        )(served.sound, tmp_path)
        deploy()
        deadline = time.monotonic() + CEILING_S
        while served.server.restarts == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        rollback(why="it dies", who="ann")
        deploy()
        settle(served.server)
        gone_back = len(load.answers), len(load.failures)
        load.wait_answers(100)

    assert {one.answer.model_version for one in load.answers[gone_back[0] + 4 :]} == {str(desired())}
    assert load.failures[gone_back[1] + 4 :] == []


def test_a_revision_that_takes_the_server_along_is_left_at_once(served: Standing, tmp_path: Path) -> None:
    """The server dies of every load: the deployment goes back once it has not started again, and old answers return."""
    with Load(served.server.server.url) as load:
        load.wait_answers(20)
        before, serving = served.server.restarts, repository.pointed_to(home.triton_repository_dir())
        code("        logging.basicConfig(", "        os.kill(os.getppid(), 9)\n        logging.basicConfig(")(
            served.sound, tmp_path
        )
        began = time.monotonic()
        with pytest.raises(ServingError, match=f"revision {serving} serves on"):
            deploy()
        seconds = time.monotonic() - began
        load.wait_answers(100)
        settle(served.server)
        gone_back = len(load.answers), len(load.failures)
        load.wait_answers(50)

    assert served.server.restarts >= before + 2
    assert seconds < CEILING_S
    assert {one.answer.model_version for one in load.answers[gone_back[0] :]} == {str(serving)}
    assert load.failures[gone_back[1] :] == []
