"""Rounds of alignment: which one is kept, what is said of each, and that a kill cannot be seen in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sidrec.training.alignment import align_policy
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.gates import Vitals
from sidrec.training.logs import TrainingLogs
from tests.sidrec.training.test_gates import Limits
from tests.sidrec.training.toy import Batch, Killed, Rows, config, killed_at, model, terms_of, weights

LIMITS = Limits()


def aligned(
    folder: Path,
    values: Iterator[float],
    *,
    kl: Callable[[], float] = lambda: 0.0,
    terms: Callable[[nn.Module], Callable[[Batch], dict[str, Tensor]]] = terms_of,
) -> tuple[nn.Module, dict[str, Any]]:
    """Align the toy for three rounds; its hit is how large its weights are, so that rounds differ."""
    policy = model()

    def vitals() -> Vitals:
        return Vitals(kl(), 0.9, 0.5, {"hits": float(weights(policy).abs().mean())}, {}, {"length": 3.0})

    summary = align_policy(
        policy,
        Rows(),
        terms(policy),
        config(epochs=3, validate_every=1),
        Checkpoints(folder / "checkpoints", minutes=0),
        value=lambda: next(values),
        vitals=vitals,
        limits=LIMITS,
        logs=TrainingLogs(folder / "logs"),
    )
    return policy, summary


def test_the_best_round_is_kept_if_it_is_better(tmp_path: Path) -> None:
    """Before .2, then .1, .5, .3: round 2; its weights are neither the first ones nor the last round's."""
    policy, summary = aligned(tmp_path, iter([0.2, 0.1, 0.5, 0.3]))
    last, _ = aligned(tmp_path / "last", iter([0.2, 0.1, 0.3, 0.5]))

    assert (summary["kept"], summary["epoch"], summary["supervised_value"], summary["best_value"]) == (
        "aligned", 2, 0.2, 0.5,
    )  # fmt: skip
    assert [row["value"] for row in summary["rounds"]] == [0.1, 0.5, 0.3]
    assert not torch.equal(weights(policy), weights(model()))
    assert not torch.equal(weights(policy), weights(last))
    assert summary["rounds"][0].keys() == {"value", "refused", "kl", "diversity", "valid", "hits", "length"}


def test_a_round_as_good_as_before_is_not_better(tmp_path: Path) -> None:
    _, summary = aligned(tmp_path, iter([0.5, 0.1, 0.5, 0.3]))

    assert summary["kept"] == "supervised"
    assert "no round was above the supervised model's 0.5000" in summary["reason"]


def test_a_round_that_a_gate_refuses_is_not_the_best(tmp_path: Path) -> None:
    """KL 0 before, .1, .9 and .1: the best round is refused, the next best one kept; all refused, none is."""
    _, summary = aligned(tmp_path, iter([0.2, 0.3, 0.9, 0.4]), kl=iter([0.0, 0.1, 0.9, 0.1]).__next__)
    _, none = aligned(tmp_path / "none", iter([0.2, 0.3, 0.9, 0.4]), kl=iter([0.0, 0.9, 0.9, 0.9]).__next__)

    assert (summary["kept"], summary["epoch"], summary["best_value"]) == ("aligned", 3, 0.4)
    assert [bool(row["refused"]) for row in summary["rounds"]] == [False, True, False]
    assert none["kept"] == "supervised"
    assert "no round passed the gates (KL 0.900" in none["reason"]


@pytest.mark.parametrize("step", [2, 4, 5, 9])
def test_a_kill_cannot_be_seen_in_what_is_said_of_the_rounds(tmp_path: Path, step: int) -> None:
    """Killed in the first round, after it, in the second, or at the very end: every round once, and equal weights."""
    whole, expected = aligned(tmp_path / "whole", iter([0.2, 0.1, 0.5, 0.3]))
    with pytest.raises(Killed):
        aligned(tmp_path / "killed", iter([0.2, 0.1, 0.5]), terms=lambda policy: killed_at(step, terms_of(policy)))
    done = (step - 1) // 3
    policy, summary = aligned(tmp_path / "killed", iter([0.2, *[0.1, 0.5, 0.3][done:]]))

    assert summary["rounds"] == expected["rounds"]
    assert torch.equal(weights(policy), weights(whole))
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_a_round_that_was_judged_and_not_saved_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed as the checkpoint behind the second round is written: the round is done and judged again."""
    _, expected = aligned(tmp_path / "whole", iter([0.2, 0.1, 0.5, 0.3]))
    save, saved = Checkpoints.save, []

    def dying(self: Checkpoints, step: int, *rest: Any) -> None:
        saved.append(step)
        if step == 6:
            raise Killed
        save(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        with pytest.raises(Killed):
            aligned(tmp_path / "killed", iter([0.2, 0.1, 0.5]))
    _, summary = aligned(tmp_path / "killed", iter([0.2, 0.5, 0.3]))

    assert saved == [1, 2, 3, 4, 5, 6]
    assert summary["rounds"] == expected["rounds"]
