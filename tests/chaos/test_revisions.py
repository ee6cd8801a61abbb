"""Revisions come and go under load; a bad one is refused, whatever is bad about it, and the good one serves on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving import registry
from serving.deploy import confirm_live, deploy, prepare
from serving.supervisor import Supervisor
from serving.triton import repository
from sidrec import home
from sidrec.bundle import Bundle, write_bundle
from sidrec.errors import ServingError
from sidrec.release.ledger import Ledger
from sidrec.release.promotion import promote, rollback
from tests.chaos.conftest import supervised
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


@pytest.fixture
def sound(tmp_path: Path) -> Bundle:
    return register(make_bundle(tmp_path / "made", name="sound"), tmp_path)


@pytest.fixture
def served(sound: Bundle) -> Iterator[Supervisor]:
    """The sound bundle, live as revision 1."""
    ask_for(sound, first=True)
    revision = prepare(Ledger())
    repository.point_to(home.triton_repository_dir(), revision.revision)
    with supervised() as supervisor:
        confirm_live(revision, urls=[supervisor.server.url], who="test")
        yield supervisor


def test_no_request_fails_and_no_answer_is_mixed(served: Supervisor, sound: Bundle, tmp_path: Path) -> None:
    """Forward, back, forward: each answer's bundle and items are those of the revision that it names."""
    other = register(make_bundle(tmp_path / "made", name="other", newest=50), tmp_path)
    with Load(served.server.url) as load:
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
        ("2", other.bundle_id, "i50"),
        ("3", sound.bundle_id, "i0"),
        ("4", other.bundle_id, "i50"),
    }


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


def code(old: str, new: str) -> Callable[[Bundle, Path], None]:
    """Return what promotes another bundle and changes the code that its version carries."""

    def ask(bundle: Bundle, folder: Path) -> None:
        ask_for(register(make_bundle(folder / "made", name="other", newest=50), folder))
        prepare(Ledger())
        model = home.triton_repository_dir() / "recommend" / "2" / "model.py"
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


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_revision_is_refused_while_the_good_one_serves(
    served: Supervisor, sound: Bundle, tmp_path: Path, fault: str
) -> None:
    """The deployment says so, the config is back, the old answers stay right and whole."""
    with Load(served.server.url) as load:
        load.wait_answers(20)
        BAD[fault](sound, tmp_path)
        with pytest.raises(ServingError, match="revision 1 serves on"):
            deploy()
        began = len(load.answers)
        load.wait_answers(20)
        after = load.answers[began:]

    assert load.failures == []
    assert {(one.answer.model_version, one.answer.item_ids[0]) for one in after[8:]} == {("1", "i0")}
    assert repository.pointed_to(home.triton_repository_dir()) == 1
    assert served.restarts == 0
