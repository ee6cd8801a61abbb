"""Stage 2b: GRPO on sampled rationales and the semantic IDs behind them.

Advantages are within a prompt's samples, the loss is a mean over all actions, and the reference is stage 2a's model
(SIDReasoner, arXiv 2603.23183). A sample is learnt from once, so that the ratio of policies is 1 and no clip acts.
Prompts are points of the past, and any item of the next basket is right.

Axes: `row` samples of all prompts (one prompt's are neighbours).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sidrec.systems.sidreasoner.adapters import adapted
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import SIDReasonerAlignmentConfig, SIDReasonerTrainingConfig
from sidrec.systems.sidreasoner.points import Point
from sidrec.systems.sidreasoner.rewards import Rewards, rewards_of
from sidrec.systems.sidreasoner.sampler import Sampler
from sidrec.systems.sidreasoner.samples import Samples, action_log_probs
from sidrec.training.alignment import align_policy
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.gates import Vitals
from sidrec.training.grpo import group_advantages, grpo_loss, kl_estimate
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import LoopConfig

# VERL's, whose numbers the paper's are.
SPREAD_FLOOR = 1e-6
# Points whose samples the gates look at.
GATE_POINTS = 32


@dataclass(frozen=True, slots=True)
class Rollout:
    """Samples, what they earned, and how much better each was than the others of its prompt."""

    samples: Samples
    rewards: Rewards
    advantages: Float[Tensor, " row"]


class RolloutSet:
    """Rounds of rollouts: points are decided by (seed, step), samples by torch's random state."""

    def __init__(
        self, sampler: Sampler, points: Sequence[Point], config: SIDReasonerAlignmentConfig, *, seed: int
    ) -> None:
        self.sampler, self.points, self.config, self.seed = sampler, points, config, seed

    def __len__(self) -> int:
        """Return the number of steps in a round."""
        return self.config.validate_every

    def batches(self, epoch: int, first: int = 0) -> Iterator[Rollout]:
        """Yield a round's rollouts from step `first` on."""
        for step in range(first, len(self)):
            rng = np.random.default_rng([self.seed, 0x6290, epoch * len(self) + step])
            chosen = rng.permutation(len(self.points))[: self.config.prompts_per_step]
            yield self.rollout([self.points[place] for place in chosen.tolist()])

    def rollout(self, points: Sequence[Point]) -> Rollout:
        """Return samples for these points by the policy as it is now."""
        samples = self.sampler.samples(points)
        rewards = rewards_for(samples, points, self.sampler, self.config)
        grouped = rewards.total.view(-1, self.config.group_size)
        advantages = group_advantages(grouped, floor=SPREAD_FLOOR, unbiased=True)
        return Rollout(samples, rewards, advantages.flatten())


def align_backbone(
    backbone: Backbone,
    sampler: Sampler,
    points: Sequence[Point],
    *,
    value: Callable[[], float],
    config: SIDReasonerAlignmentConfig,
    training: SIDReasonerTrainingConfig,
    folder: Path,
    seed: int,
    threads: int,
    lora_rank: int = 0,
) -> dict[str, Any]:
    """Return what is `kept` and why, and each round's value and vitals; the backbone then has the best round's weights.

    Args:
        sampler: of this backbone, which learns.
        points: at least one.
        value: of the backbone as it is when asked; bigger is better.
        lora_rank: of the adapters that learn in place of the weights; 0 is none.
    """
    policy = backbone.model
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    data = RolloutSet(sampler, points, config, seed=seed)
    watched = [points[place] for place in _rng(seed).permutation(len(points))[:GATE_POINTS].tolist()]
    with adapted(backbone, lora_rank):
        return align_policy(
            policy,
            data,
            lambda rollout: terms(policy, reference, rollout, sampler, config),
            LoopConfig(
                epochs=-(-config.steps // config.validate_every),
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                warmup_share=0.0,
                gradient_clip=training.gradient_clip,
                average_decay=0.0,
                seed=seed,
                threads=threads,
                schedule="constant",
                validate_every=1,
                patience=config.patience,
                precision=training.precision,
            ),
            Checkpoints(folder / "checkpoints" / "stage_2b", minutes=training.checkpoint_minutes),
            value=value,
            vitals=lambda: vitals(policy, reference, watched, sampler, config, seed=seed),
            limits=config,
            logs=TrainingLogs(folder / "logs" / "stage_2b"),
        )


def terms(
    policy: Any, reference: Any, rollout: Rollout, sampler: Sampler, config: SIDReasonerAlignmentConfig
) -> dict[str, Float[Tensor, ""]]:
    """Return GRPO's terms over all actions, and what the samples were like.

    A few rows at a time are in memory: their states are computed again when the gradient is.
    """
    samples = rollout.samples
    weight = samples.actions.sum()
    sums: dict[str, Tensor] = {}
    for first, last in passes(samples, config.tokens_per_pass):
        part = samples.part(first, last)
        real = part.actions
        now = checkpoint(action_log_probs, policy, sampler.level_tokens, part, config.temperature, use_reentrant=False)
        with torch.no_grad():
            theirs = action_log_probs(reference, sampler.level_tokens, part, config.temperature)
        found = grpo_loss(
            now,
            now.detach(),
            theirs,
            rollout.advantages[first:last],
            clip=config.clip,
            kl_weight=config.kl_weight,
            real=real,
            per="action",
        )
        for name, part_mean in found.items():
            sums[name] = sums.get(name, torch.zeros_like(part_mean)) + part_mean * (real.sum() / weight)
    rewards = rollout.rewards
    groups = rewards.total.view(-1, config.group_size)
    return {
        **sums,
        "reward": rewards.total.mean(),
        "hits": rewards.hits.mean(),
        "valid": rewards.valid.mean(),
        "equal_groups": (groups.amax(dim=1) == groups.amin(dim=1)).float().mean(),
        "rationale_tokens": samples.rationale_tokens.float().mean(),
        "ended": samples.ended.float().mean(),
    }


@torch.no_grad()
def vitals(
    policy: Any,
    reference: Any,
    points: Sequence[Point],
    sampler: Sampler,
    config: SIDReasonerAlignmentConfig,
    *,
    seed: int,
) -> Vitals:
    """Return what the gates look at, on answers sampled for the same points by the same draws."""
    device = sampler.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        samples = sampler.samples(points)
    rewards = rewards_for(samples, points, sampler, config)
    kl = torch.zeros((), device=device)
    for first, last in passes(samples, config.tokens_per_pass):
        part = samples.part(first, last)
        now, theirs = (
            action_log_probs(model, sampler.level_tokens, part, config.temperature) for model in (policy, reference)
        )
        kl += (kl_estimate(now, theirs) * part.actions).sum()
    answers = samples.answers.view(len(points), config.group_size, -1)
    distinct = [len(own.unique(dim=0)) for own in answers]
    valid = float(rewards.valid.mean())
    return Vitals(
        kl=float(kl / samples.actions.sum()),
        diversity=float(np.mean(distinct)) / config.group_size,
        valid=valid,
        hits={"hits": float(rewards.hits.mean())},
        # Written freely, any item's name earns something, whoever asked.
        easy={"items": valid} if config.rollout == "free" else {},
        beside={
            "rationale_tokens": float(samples.rationale_tokens.float().mean()),
            "ended": float(samples.ended.float().mean()),
        },
    )


def rewards_for(
    samples: Samples, points: Sequence[Point], sampler: Sampler, config: SIDReasonerAlignmentConfig
) -> Rewards:
    """Return what the samples of these points earn."""
    targets = [point.targets for point in points for _ in range(config.group_size)]
    return rewards_of(samples.answers, targets, sampler.backbone.vocab.codes, valid_reward=config.valid_reward)


def passes(samples: Samples, tokens: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of rows that have at most so many tokens, padding counted."""
    step = max(1, tokens // samples.tokens.shape[1])
    for first in range(0, len(samples), step):
        yield first, min(first + step, len(samples))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0xA11])
