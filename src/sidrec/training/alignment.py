"""A policy learns in rounds, and is kept only where held-out rows say so.

After each round the gates are looked at and the rows ranked. The best round's weights are the aligned model; where none
is above the supervised model's own value, that one stays, and the summary says why.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sidrec import files
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.gates import Limits, Vitals, faults
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import Batch, Batches, LoopConfig, train

ROUNDS = "rounds.json"
# A round that does not pass its gates is worse than any list.
REFUSED = -1.0


def align_policy(
    policy: nn.Module,
    data: Batches[Batch],
    terms: Callable[[Batch], dict[str, Tensor]],
    config: LoopConfig,
    checkpoints: Checkpoints,
    *,
    value: Callable[[], float],
    vitals: Callable[[], Vitals],
    limits: Limits,
    logs: TrainingLogs,
) -> dict[str, Any]:
    """Return what is `kept` and why, each round's value and vitals; `policy` then holds the best round's weights.

    Args:
        policy: the supervised model.
        config: an epoch of it is a round.
        value: of the policy as it is when asked, on rows that it does not learn from; bigger is better.
        vitals: likewise.
    """
    before, baseline = vitals(), value()
    said = checkpoints.folder / ROUNDS
    # A round is judged before it is in a checkpoint, so a resumed run may come to the newest one again.
    rounds = _rounds_before(checkpoints, said, len(data))

    def judged() -> float:
        now = vitals()
        refused = faults(now, before, limits)
        found = value()
        rounds.append({"value": round(found, 6), "refused": refused, **now.as_dict()})
        files.write_json_atomic(said, rounds)
        return REFUSED if refused else found

    log = train(policy, data, terms, config, checkpoints, "align_model: GRPO", validate=judged, logs=logs)
    best = max(row["validation"] for row in log if "validation" in row)
    summary: dict[str, Any] = {
        "supervised_value": round(baseline, 6),
        "best_value": round(best, 6),
        "supervised": before.as_dict(),
        "rounds": rounds,
        "loss": log[-1],
        "train_seconds": log[-1]["seconds"],
    }
    checkpoints.clear()
    if best > baseline:
        return {"kept": "aligned", "epoch": log[-1]["best_epoch"], **summary}
    reason = f"no round was above the supervised model's {baseline:.4f}: it is kept"
    if best == REFUSED:
        reason = f"no round passed the gates ({'; '.join(rounds[-1]['refused'])}): the supervised model is kept"
    return {"kept": "supervised", "reason": reason, **summary}


def _rounds_before(checkpoints: Checkpoints, said: Path, steps: int) -> list[dict[str, Any]]:
    """Return what was said of the rounds that a killed run's checkpoint is behind."""
    saved = checkpoints.load()
    done = 0 if saved is None else saved[1]["step"] // steps
    rounds: list[dict[str, Any]] = files.read_json(said)[:done] if done else []
    return rounds
