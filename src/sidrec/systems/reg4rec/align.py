"""Alignment: GRPO on PARS over MSRA's window, kept only where held-out rows say so.

From the supervised model, rounds of sampled paths move the policy; after each, rows that it does not learn from are
ranked and the gates looked at. The best round's weights are the aligned model; where none is above the supervised
model's own value, that one stays, and the summary says why (REG4Rec, arXiv 2508.15308, reports the stage; rounds,
gates and fall-back are our choice).
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sidrec import files
from sidrec.codebook.artefact import Codebook
from sidrec.decoding.nodes import NONE
from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.base import MODEL, WEIGHTS, FitInputs, link_unaligned
from sidrec.systems.batches import Sampling
from sidrec.systems.reg4rec.categories import item_vectors
from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig, Reg4RecSearchConfig, Reg4RecTrainingConfig
from sidrec.systems.reg4rec.losses import Tables, losses_after
from sidrec.systems.reg4rec.model import Reg4RecModel
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.reg4rec.rank import MASSES, Reg4RecRanker, categories_in, load_model
from sidrec.systems.reg4rec.rewards import category_hits, step_consistency, step_hits
from sidrec.systems.reg4rec.rollout import walk
from sidrec.systems.reg4rec.rollouts import Points, Rollout, RolloutSet
from sidrec.systems.stored_histories import drop_histories, stored_histories
from sidrec.systems.validation_rows import EPOCH, rows_value
from sidrec.training.alignment import align_policy
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.device import device_of
from sidrec.training.gates import Vitals
from sidrec.training.grpo import grpo_loss, kl_estimate
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import LoopConfig

# Users whose paths the gates look at.
GATE_USERS = 128


def align(
    model: Path,
    inputs: FitInputs,
    folder: Path,
    *,
    training: Reg4RecTrainingConfig,
    alignment: Reg4RecAlignmentConfig,
    search: Reg4RecSearchConfig,
    sampling: Sampling,
) -> dict[str, Any]:
    """Write `folder/model_aligned` and return a summary: what is `kept`, and each round's value and vitals.

    Without `inputs.validate`, rows of the training set are ranked, and nothing is learnt from their days.
    """
    if not alignment.enabled:
        return link_unaligned(model, folder, "alignment.enabled is false")
    policy, header, tensors = load_model(model)
    if header["aligned"]:
        return link_unaligned(model, folder, "the model was carried, and is aligned already")
    fit_end = (inputs.fit_end - EPOCH).days
    end = fit_end if inputs.validate is not None else fit_end - training.validation_days
    value = inputs.validate or rows_value(inputs)
    if value is None:
        return link_unaligned(model, folder, "there are no rows to judge an aligned model by")
    sets = TokenSets.of(inputs.catalog.codes, policy.codebook_size)
    policy, reference = without_dropout(policy), without_dropout(policy).eval().requires_grad_(False)
    codebooks = Codebook.load(inputs.codebook).quantizer.codebooks
    histories = stored_histories(inputs.baskets, inputs.catalog, folder)
    tables = Tables(
        sets.codes,
        categories_in(header, tensors).of(inputs.catalog.categories, item_vectors(sets.codes, codebooks)),
        CodePrior.fit(histories, sets, training, last_day=fit_end),
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy.to(device)
    reference.to(device)
    there = tables.to(device)
    data = RolloutSet(histories, sampling, alignment, end=end, seed=inputs.seed, model=policy, tables=there)
    if not len(data.users):
        drop_histories(folder)
        return link_unaligned(model, folder, "no user has two baskets before the rows that it would be judged by")
    watched = data.points(range(min(GATE_USERS, len(data.users))), _rng(inputs.seed), newest_only=True).to(device)

    def value_now() -> float:
        answering = policy if device.type == "cpu" else copy.deepcopy(policy).cpu()
        return value(Reg4RecRanker.of(answering, inputs.catalog, sets, search, tensors[MASSES], None))

    torch.manual_seed(inputs.seed)
    summary = align_policy(
        policy,
        data,
        lambda rollout: terms(policy, reference, rollout, there, training, alignment),
        LoopConfig(
            epochs=alignment.rounds,
            learning_rate=alignment.learning_rate,
            weight_decay=0.0,
            warmup_share=0.0,
            gradient_clip=training.gradient_clip,
            average_decay=0.0,
            seed=inputs.seed,
            threads=inputs.threads,
            schedule="constant",
            validate_every=1,
            patience=alignment.patience,
        ),
        Checkpoints(folder / "checkpoints" / "align", minutes=training.checkpoint_minutes),
        value=value_now,
        vitals=lambda: vitals(policy, reference, watched, there, sets, alignment, seed=inputs.seed),
        limits=alignment,
        logs=TrainingLogs(folder / "logs" / "align"),
    )
    drop_histories(folder)
    if summary["kept"] == "supervised":
        link_unaligned(model, folder, summary["reason"])
    else:
        _write(model, folder, policy.cpu(), tensors)
    return summary


def terms(
    policy: Reg4RecModel,
    reference: Reg4RecModel,
    rollout: Rollout,
    tables: Tables,
    training: Reg4RecTrainingConfig,
    alignment: Reg4RecAlignmentConfig,
) -> dict[str, Tensor]:
    """Return GRPO's terms, the supervised loss of the same points, and their weighted sum; users are encoded once."""
    points, temperature = rollout.points, alignment.slot_temperature
    start = points.start(policy, tables)
    now = walk(policy, start, slot_temperature=temperature, given=rollout.walk).log_probs.flatten(0, 1)
    with torch.no_grad():
        theirs = walk(reference, points.start(reference, tables), slot_temperature=temperature, given=rollout.walk)
    found = grpo_loss(
        now,
        rollout.walk.log_probs.flatten(0, 1),
        theirs.log_probs.flatten(0, 1),
        rollout.advantages.flatten(),
        clip=alignment.clip,
        kl_weight=alignment.kl_weight,
    )
    supervised = losses_after(policy, start.memory, points.batch, tables, training)["total"]
    total = found["total"] + alignment.supervised_weight * supervised
    return {**found, "supervised": supervised, "reward": rollout.reward, "total": total}


@torch.no_grad()
def vitals(
    policy: Reg4RecModel,
    reference: Reg4RecModel,
    points: Points,
    tables: Tables,
    sets: TokenSets,
    alignment: Reg4RecAlignmentConfig,
    *,
    seed: int,
) -> Vitals:
    """Return what the gates look at, on paths sampled for the same points by the same draws."""
    device = device_of(policy)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        temperature = alignment.slot_temperature
        taken = walk(policy, points.start(policy, tables), slot_temperature=temperature, samples=alignment.group_size)
    theirs = walk(reference, points.start(reference, tables), slot_temperature=temperature, given=taken)
    tokens = taken.tokens.cpu()
    _, paths, slots = tokens.shape
    distinct = [len(own.unique(dim=0)) for own in tokens]
    items = sets.items_of(tokens.flatten(0, 1))
    # The next basket alone: what a path is for, whatever the horizon.
    wanted = points.windows.items[:, 0]
    real = (wanted != NONE)[:, None]
    safe = wanted.clamp(min=0)
    hits = step_hits(taken.tokens[:, :, None], tables.codes[safe][:, None]).masked_fill(~real, 0).amax(dim=-1)
    named = category_hits(taken.category[:, :, None], tables.category[safe][:, None]).masked_fill(~real, 0)
    return Vitals(
        kl=float(kl_estimate(taken.log_probs.flatten(0, 1), theirs.log_probs.flatten(0, 1)).mean()),
        diversity=float(np.mean(distinct)) / paths,
        valid=float((items != NONE).float().mean()),
        hits={
            "hits": float(hits.float().mean()) / slots,
            "category_hits": float(named.amax(dim=-1).float().mean()) / slots,
        },
        # Paths agree with themselves by one category for everything.
        easy={"consistency": float(step_consistency(taken.category).float().mean()) / max(slots - 1, 1)},
        beside={},
    )


def without_dropout(model: Reg4RecModel) -> Reg4RecModel:
    """Return a copy whose log-probabilities are the same in training: a ratio of policies must not be noise."""
    config = model.config.model_copy(update={"dropout": 0.0})
    same = Reg4RecModel(config, num_slots=model.num_slots, codebook_size=model.codebook_size)
    same.load_state_dict(model.state_dict())
    return same


def _write(model: Path, folder: Path, policy: Reg4RecModel, tensors: dict[str, Tensor]) -> None:
    target = folder / "model_aligned"
    target.mkdir(parents=True, exist_ok=True)
    save_file({**policy.state_dict(), **tensors}, target / WEIGHTS)
    files.write_json_atomic(target / MODEL, files.read_json(model / MODEL) | {"aligned": True})


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0xA11])
