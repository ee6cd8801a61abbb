"""GRPO: samples of one prompt are compared with each other, and the policy moves towards the better ones.

L = -mean min(rho A, clip(rho, 1 ± c) A) + beta KL(pi || pi_ref), rho = pi / pi_old, and within a group
A = (R - mean R) / (std R + floor) (Shao et al., arXiv 2402.03300). What a policy is, and what earns a reward, it does
not know.

Axes: `group` prompts, `sample` of a group, `path` samples of all groups, `step` actions of one.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SPREAD_FLOOR = 1e-4
# Beyond that a ratio of probabilities is no number any more.
LOG_RATIO_LIMIT = 20.0


def group_advantages(
    rewards: Float[Tensor, "group sample"], *, floor: float = SPREAD_FLOOR, unbiased: bool = False
) -> Float[Tensor, "group sample"]:
    """Return how much better each sample is than its group, in the group's standard deviations.

    A group whose samples earn the same teaches nothing: its advantages are 0.

    Args:
        floor: added to the deviation.
        unbiased: over one sample less, as VERL has it; else over all.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = (centred.square().sum(dim=1, keepdim=True) / (rewards.shape[1] - unbiased)).sqrt()
    # Equal rewards may differ from their mean by rounding.
    same = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    return (centred / (spread + floor)).masked_fill(same, 0.0)


def clipped_surrogate(
    log_probs: Float[Tensor, "path step"],
    old_log_probs: Float[Tensor, "path step"],
    advantages: Float[Tensor, " path"],
    clip: float,
) -> Float[Tensor, "path step"]:
    """Return -min(rho A, clip(rho, 1 ± clip) A) of every action."""
    ratio = (log_probs - old_log_probs).exp()
    advantage = advantages[:, None]
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_estimate(
    log_probs: Float[Tensor, "path step"], reference: Float[Tensor, "path step"]
) -> Float[Tensor, "path step"]:
    """Return the estimate r - log r - 1, r = pi_ref / pi, of KL(pi || pi_ref): never negative, its mean is the KL.

    Source: J. Schulman, Approximating KL divergence (k3).
    """
    log_ratio = (reference - log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return log_ratio.exp() - log_ratio - 1


def grpo_loss(
    log_probs: Float[Tensor, "path step"],
    old_log_probs: Float[Tensor, "path step"],
    reference: Float[Tensor, "path step"],
    advantages: Float[Tensor, " path"],
    *,
    clip: float,
    kl_weight: float,
    real: Bool[Tensor, "path step"] | None = None,
    per: Literal["path", "action"] = "path",
) -> dict[str, Float[Tensor, ""]]:
    """Return `policy`, `kl`, the share `clipped`, and `total`, as means.

    Args:
        log_probs: of the actions taken, by the policy that learns.
        old_log_probs: by the one that took them; `reference` by the frozen one.
        real: False is padding; None is an action everywhere.
        per: path: the mean over a path's actions, then over paths. action: over all actions, so that a long path
            counts for more.
    """
    mask = torch.ones_like(log_probs) if real is None else real.to(log_probs.dtype)

    def mean(values: Float[Tensor, "path step"]) -> Float[Tensor, ""]:
        # Chosen, not multiplied away: what stands in padding may be infinite.
        kept = torch.where(mask > 0, values, torch.zeros_like(values))
        if per == "action":
            return kept.sum() / mask.sum().clamp(min=1)
        return (kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()

    policy = mean(clipped_surrogate(log_probs, old_log_probs, advantages, clip))
    kl = mean(kl_estimate(log_probs, reference))
    ratio = (log_probs - old_log_probs).exp().detach()
    outside = ((ratio > 1 + clip) & (advantages[:, None] > 0)) | ((ratio < 1 - clip) & (advantages[:, None] < 0))
    return {"policy": policy, "kl": kl, "clipped": mean(outside.to(log_probs.dtype)), "total": policy + kl_weight * kl}
