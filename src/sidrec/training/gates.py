"""What a policy must not lose while it learns: its nearness to the supervised model, its variety, its valid samples.

And what it must not gain alone: a measure that can be had without doing the task, such as paths that agree with
themselves, is a fault where it rises and no measure of the task does (our choice; no paper says anything of it).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# A rise of an easy measure below this is noise of the sample.
RISE = 0.02


class Limits(Protocol):
    """How far a policy may go."""

    @property
    def max_kl(self) -> float: ...  # noqa: D102

    @property
    def min_diversity(self) -> float: ...  # noqa: D102

    @property
    def min_valid(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Vitals:
    """Means over samples of the same prompts; shares lie in 0..1."""

    kl: float  # nats an action
    diversity: float  # distinct samples among a prompt's
    valid: float  # samples that are an item
    hits: Mapping[str, float]  # what the task is
    easy: Mapping[str, float]  # what can be had without it
    beside: Mapping[str, float]  # what else there is to see; no gate looks at it

    def as_dict(self) -> dict[str, float]:
        """Return all measures by name."""
        named = {"kl": self.kl, "diversity": self.diversity, "valid": self.valid}
        return {name: round(value, 4) for name, value in {**named, **self.hits, **self.easy, **self.beside}.items()}


def faults(now: Vitals, supervised: Vitals, limits: Limits) -> list[str]:
    """Return a sentence for every gate that the policy does not pass."""
    found = []
    if now.kl > limits.max_kl:
        found.append(f"KL {now.kl:.3f} nats an action from the supervised model, at most {limits.max_kl}")
    for said, value, before, least in (
        ("distinct samples", now.diversity, supervised.diversity, limits.min_diversity),
        ("samples that are items", now.valid, supervised.valid, limits.min_valid),
    ):
        if value < least * before:
            found.append(f"{said} {value:.3f}, the supervised model's {before:.3f}; at least {least:.0%} of them")
    if all(value <= supervised.hits[name] for name, value in now.hits.items()):
        changes = ", ".join(f"{name} {supervised.hits[name]:.3f} to {value:.3f}" for name, value in now.hits.items())
        found += [
            f"{name} alone rose, {supervised.easy[name]:.3f} to {value:.3f}: {changes}"
            for name, value in now.easy.items()
            if value > supervised.easy[name] + RISE
        ]
    return found
