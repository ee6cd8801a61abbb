"""Clusters of codewords are those of the codes that items have."""

import numpy as np
import torch

from sidrec.systems.s2gr.clusters import cluster_codewords
from sidrec.systems.s2gr.config import S2GRCodebookConfig

CONFIG = S2GRCodebookConfig(num_clusters=2, cluster_restarts=4)


def test_clusters_cover_all_codes_and_ignore_unused_ones() -> None:
    """Centres are the means of used codewords; an unused one, however far, joins the nearest cluster."""
    words = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0], [500.0, 500.0]]])
    clusters = cluster_codewords(words, np.array([[0], [1], [2], [3]], dtype=np.int32), CONFIG, seed=0)
    of = clusters.of[0]

    assert sorted(clusters.centres[0].tolist()) == [[0.0, 1.0], [9.0, 1.0]]
    assert of[0] == of[1]
    assert of[2] == of[3] == of[4]
    assert of[0] != of[2]


def test_a_code_belongs_to_its_nearest_centre() -> None:
    """At every level, whatever further columns the semantic IDs have."""
    words = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(0))
    codes = np.random.default_rng(0).integers(0, 16, (80, 4)).astype(np.int32)
    clusters = cluster_codewords(words, codes, CONFIG.model_copy(update={"num_clusters": 5}), seed=0)

    for level in range(3):
        torch.testing.assert_close(clusters.of[level], torch.cdist(words[level], clusters.centres[level]).argmin(dim=1))


def test_random_clusters_have_the_sizes_of_the_real_ones_and_other_members() -> None:
    """A control: the same task without its meaning."""
    torch.manual_seed(0)
    words = torch.randn(2, 32, 4)
    codes = np.stack([np.arange(32)] * 2, axis=1).astype(np.int32)
    real = cluster_codewords(words, codes, S2GRCodebookConfig(num_clusters=5), seed=0)
    dealt = cluster_codewords(words, codes, S2GRCodebookConfig(num_clusters=5, random_clusters=True), seed=0)

    for level in range(2):
        assert dealt.of[level].bincount().tolist() == real.of[level].bincount().tolist()
        assert not torch.equal(dealt.of[level], real.of[level])
        mean = torch.stack([words[level][dealt.of[level] == cluster].mean(dim=0) for cluster in range(5)])
        torch.testing.assert_close(dealt.centres[level], mean)


def test_with_a_cluster_a_code_the_cluster_is_the_code() -> None:
    """K_c = K: a thinking token is to predict the code itself."""
    torch.manual_seed(0)
    words = torch.randn(1, 16, 4)
    codes = np.arange(16, dtype=np.int32)[:, None]
    clusters = cluster_codewords(words, codes, S2GRCodebookConfig(num_clusters=16), seed=0)

    assert len(clusters.of[0].unique()) == 16
