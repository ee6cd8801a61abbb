"""What a search says of itself in the exposure log: what its first thinking token points at, and how long it is.

Axes: `user` rows of a batch, `cluster` of the first level's codewords.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sidrec.systems.s2gr.clusters import Clusters
from sidrec.systems.s2gr.model import S2GRModel

THOUGHT_CLUSTER = "thought_cluster"
THOUGHT_NORM = "thought_norm"


def nearest_clusters(
    model: S2GRModel, clusters: Clusters, level: int, token: Float[Tensor, "user dim"]
) -> Float[Tensor, "user cluster"]:
    """Return the cosine of each thinking token with every cluster of its level."""
    centres = clusters.centres[level]
    members = one_hot(clusters.of[level], len(centres)).to(token.dtype)
    token, centres = model.in_cluster_space(level, token, centres, members)
    return normalize(token, dim=-1) @ normalize(centres, dim=-1).T


@torch.inference_mode()
def statistics(
    model: S2GRModel, clusters: Clusters | None, thought: Float[Tensor, "user dim"] | None, users: int
) -> list[dict[str, float]]:
    """Return each user's numbers by name.

    `thought_cluster`: what the token in front of the first code points at; its entropy over requests is how far users
    differ in what is thought of them. `thought_norm`: the token's length; 0, or a jump, is a thought that came to
    nothing. Both are absent without a token, the cluster also where tokens were not taught to point.
    """
    if thought is None:
        return [{} for _ in range(users)]
    said = [{THOUGHT_NORM: round(norm, 4)} for norm in thought.norm(dim=-1).tolist()]
    if clusters is not None and model.config.supervised:
        nearest = nearest_clusters(model, clusters, 0, thought).argmax(dim=-1).tolist()
        said = [{THOUGHT_CLUSTER: float(cluster)} | own for cluster, own in zip(nearest, said, strict=True)]
    return said
