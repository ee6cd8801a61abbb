"""What a policy must not lose while it learns: its nearness to the supervised model, its variety, its valid paths.

And what it must not gain alone: paths that agree with themselves are easily had by one category for everything, so
consistency that rises while no hit does is a fault (our choice; REG4Rec, arXiv 2508.15308, says nothing of it).
"""

from dataclasses import dataclass

from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig

# A rise of consistency below this is noise of the sample.
RISE = 0.02


@dataclass(frozen=True, slots=True)
class Vitals:
    """Means over paths sampled for the same users; shares lie in 0..1."""

    kl: float  # nats a step
    diversity: float  # distinct sets of tokens among a user's paths
    valid: float  # paths that are an item
    hits: float  # tokens of the best item of the user's next basket
    category_hits: float
    consistency: float


def faults(now: Vitals, supervised: Vitals, config: Reg4RecAlignmentConfig) -> list[str]:
    """Return a sentence for every gate that the policy does not pass."""
    found = []
    if now.kl > config.max_kl:
        found.append(f"KL {now.kl:.3f} nats a step from the supervised model, at most {config.max_kl}")
    if now.diversity < config.min_diversity * supervised.diversity:
        found.append(
            f"distinct paths {now.diversity:.3f}, the supervised model's {supervised.diversity:.3f}; "
            f"at least {config.min_diversity:.0%} of them"
        )
    if now.valid < config.min_valid * supervised.valid:
        found.append(
            f"paths that are items {now.valid:.3f}, the supervised model's {supervised.valid:.3f}; "
            f"at least {config.min_valid:.0%} of them"
        )
    alone = now.hits <= supervised.hits and now.category_hits <= supervised.category_hits
    if now.consistency > supervised.consistency + RISE and alone:
        found.append(
            f"consistency alone rose, {supervised.consistency:.3f} to {now.consistency:.3f}: token hits "
            f"{supervised.hits:.3f} to {now.hits:.3f}, category hits {supervised.category_hits:.3f} to "
            f"{now.category_hits:.3f}"
        )
    return found
