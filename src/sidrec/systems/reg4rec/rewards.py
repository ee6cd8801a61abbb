"""PARS: what a path earns for an item, by its tokens and by the categories it names.

REG4Rec (arXiv 2508.15308), Figure 2, gives the four counts by example; how they are scaled and added is our choice.

Axes: `path` in as many axes as there are, `slot` codebooks, `step` of a path (as many as slots).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig


def step_hits(tokens: Int[Tensor, "*#path slot"], target: Int[Tensor, "*#path slot"]) -> Int[Tensor, "*path"]:
    """Return how many of the path's tokens belong to the target; both hold codes by slot."""
    return (tokens == target).sum(dim=-1)


def whole_path(tokens: Int[Tensor, "*#path slot"], target: Int[Tensor, "*#path slot"]) -> Bool[Tensor, "*path"]:
    """Return whether all of the path's tokens are the target's."""
    return (tokens == target).all(dim=-1)


def category_hits(named: Int[Tensor, "*#path step"], category: Int[Tensor, "*#path"]) -> Int[Tensor, "*path"]:
    """Return how many steps name the target's category."""
    return (named == category[..., None]).sum(dim=-1)


def step_consistency(named: Int[Tensor, "*path step"]) -> Int[Tensor, "*path"]:
    """Return how many neighbouring steps name the same category; it needs no target."""
    return (named[..., 1:] == named[..., :-1]).sum(dim=-1)


def item_reward(
    tokens: Int[Tensor, "*#path slot"],
    named: Int[Tensor, "*#path step"],
    target: Int[Tensor, "*#path slot"],
    category: Int[Tensor, "*#path"],
    config: Reg4RecAlignmentConfig,
) -> Float[Tensor, "*path"]:
    """Return R(path; item): step hits and category hits as shares, and the whole path, by their weights."""
    slots = tokens.shape[-1]
    hits = config.hit_reward * step_hits(tokens, target).float() / slots
    whole = config.path_reward * whole_path(tokens, target).float()
    return hits + whole + config.category_reward * category_hits(named, category).float() / slots


def consistency_reward(named: Int[Tensor, "*path step"], config: Reg4RecAlignmentConfig) -> Float[Tensor, "*path"]:
    """Return what a path earns once for agreeing with itself, whatever the user did."""
    return config.consistency_reward * step_consistency(named).float() / max(named.shape[-1] - 1, 1)
