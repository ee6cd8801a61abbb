"""`sidrec ab plan`, `start`, `ramp`, `stop` as a person types them, down to the read-out that knows the steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import registry
from sidrec.bundle import Bundle
from sidrec.cli.main import main
from sidrec.release.ledger import Ledger
from tests.release_world import make_bundle, make_signed
from tests.sidrec.cli.test_ab import PLAN


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """A champion that was promoted and a registered challenger."""
    monkeypatch.setenv("SIDREC_ACTOR", "ann")
    made = [make_bundle(tmp_path / str(seed), seed) for seed in range(2)]
    for number, bundle in enumerate(made):
        make_signed(bundle, tmp_path / f"{number}.json")
        registry.register(bundle.folder, tmp_path / f"{number}.json")
    assert main(["promote", made[0].bundle_id, "--reason", "first", "--no-deploy"]) == 0
    return made


def write(folder: Path, bundles: list[Bundle], **changes: Any) -> str:
    value = PLAN | {"shares": {"champion": 0.95, "challenger": 0.05}, "bundles": {"challenger": bundles[1].bundle_id}}
    (folder / "plan.yaml").write_text(yaml.safe_dump(value | changes))
    return str(folder / "plan.yaml")


def call(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    status = main(["ab", *arguments, "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert status == expect, value
    return value


def test_an_experiment_from_plan_to_stop(
    bundles: list[Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frozen, started, ramped, refused to shrink or to be replanned, stopped: rows with the plan's digest."""
    file = write(tmp_path, bundles)
    move = ("--reason", "finer codes", "--no-deploy")
    digest = call(capsys, "plan", file)["sha256"]
    call(capsys, "start", "codes", *move)
    call(capsys, "ramp", "codes", "--share", "0.2", *move)
    shrunk = call(capsys, "ramp", "codes", "--share", "challenger=0.1", *move, expect=2)
    replanned = call(capsys, "plan", write(tmp_path, bundles, minimum_effect=0.01), "--replace", expect=2)
    call(capsys, "stop", "codes", *move)
    rows = Ledger().rows()

    assert [row.action for row in rows] == ["promote", "ramp", "ramp", "stop"]
    assert [row.revision.plan for row in rows] == [None, digest, digest, None]
    assert all(digest[:12] in row.why for row in rows[1:])
    assert "moves users who were exposed" in shrunk["message"]
    assert "has started" in replanned["message"]


def test_the_readout_knows_the_phases(
    bundles: list[Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name it reads the newest phase, also after the stop, and lists every step; a plan edited since is refused."""
    call(capsys, "plan", write(tmp_path, bundles))
    move = ("--reason", "finer codes", "--no-deploy")
    call(capsys, "start", "codes", *move)
    call(capsys, "ramp", "codes", "--share", "0.5", *move)
    call(capsys, "stop", *move)
    revision = Ledger().rows()[2].revision
    logs = simulated(tmp_path / "logs", revision)
    value = call(capsys, "readout", "codes", *logs, "--until", "2020-01-21", expect=3)
    early = call(capsys, "readout", "codes", *logs, "--revision", "2", expect=2)
    edited = call(capsys, "readout", write(tmp_path, bundles, minimum_effect=0.01), *logs, expect=2)

    assert value["phase"]["revision"] == revision.revision
    assert [step["shares"]["challenger"] for step in value["phases"]] == [0.05, 0.5]
    assert {check["name"]: check["light"] for check in value["readout"]["trust"]}["arm_purity"] == "green"
    assert "no exposure of experiment codes by revision 2" in early["message"]
    assert "is not the plan that experiment codes was frozen with" in edited["message"]


def simulated(folder: Path, revision: Any) -> tuple[str, ...]:
    from sidrec.experiment import simulation
    from sidrec.experiment.frozen import open_frozen
    from sidrec.release.revision import assign

    logs = simulation.simulate(
        simulation.Simulation(users=2_000),
        open_frozen("codes").plan,
        arm_of=lambda user: assign(user, revision).arm.name,
        bundles={arm.name: arm.bundle.bundle_id for arm in revision.arms},
        revision=revision.revision,
    )
    simulation.write(*logs, folder)
    return "--exposures", str(folder / "exposures"), "--outcomes", str(folder / "outcomes")
