"""The codebook is repeatable, uses its codes, tells items apart and comes back from disk as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sidrec.errors import BundleError
from sidrec.quantization.health import codebook_health, sid_health
from sidrec.systems.s2gr.codebook import Fit, S2GRCodebook, cluster_codewords, fit_codebook
from sidrec.systems.s2gr.config import S2GRCodebookConfig

CONFIG = S2GRCodebookConfig(
    codebook_size=32, code_dim=8, hidden_dims=(32,), num_clusters=4, epochs=60, warmup_epochs=10, batch_size=128
)


def clustered(num_items: int = 600) -> np.ndarray:
    """Return unit vectors in 24 groups of groups, the last ten of them twice the same."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(24, 12))
    vectors = coarse[np.arange(num_items) % 24] + 0.4 * random.normal(size=(num_items, 12))
    vectors[-5:] = vectors[-10:-5]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fit(config: S2GRCodebookConfig = CONFIG, seed: int = 0) -> Fit:
    return fit_codebook(clustered(), np.arange(600), config, seed=seed, lineage="text-1")


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit()


def test_one_seed_makes_one_codebook(fitted: Fit) -> None:
    """Weights and codes of two fits are equal bit for bit, whatever the caller's threads and random state."""
    torch.manual_seed(99)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = fit()

    for name, value in fitted.codebook.autoencoder.state_dict().items():
        assert torch.equal(value, again.codebook.autoencoder.state_dict()[name]), name
    np.testing.assert_array_equal(again.resolved.codes, fitted.resolved.codes)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not np.array_equal(fit(seed=1).quantized, fitted.quantized)


def test_codes_are_used_and_items_told_apart(fitted: Fit) -> None:
    """More than 90 % of the codes of every level are in use; after resolution no two items share their codes."""
    health = codebook_health(fitted.quantized, 32)

    assert min(level["utilisation"] for level in health["levels"]) > 0.9
    assert min(level["normalised_entropy"] for level in health["levels"]) > 0.9
    assert fitted.resolved.left == 0
    assert sid_health(fitted.resolved.codes)["uniquely_identified"] == 1
    np.testing.assert_array_equal(fitted.resolved.codes[:, :-1], fitted.quantized[:, :-1])


def test_balance_evens_out_usage() -> None:
    """With the usage adjustment the entropy of the codes is higher than without, at every level together."""

    def entropy(strength: float) -> float:
        config = CONFIG.model_copy(update={"balance_strength": strength, "usage_decay": 0.9})
        levels = codebook_health(fit(config).quantized, 32)["levels"]
        return float(sum(level["normalised_entropy"] for level in levels))

    assert entropy(0.5) > entropy(0.0)


def test_training_lowers_the_error(fitted: Fit) -> None:
    """The last look rebuilds better than the first, and most of a vector is explained."""
    assert fitted.history[-1]["reconstruction"] < fitted.history[0]["reconstruction"]
    assert fitted.history[-1]["reconstruction"] < 0.25
    assert float(fitted.residual.mean()) < 0.2


def test_training_stops_when_looks_bring_nothing() -> None:
    """With patience 1 and no learning, the second look ends it; the first look's weights are kept."""
    config = CONFIG.model_copy(
        update={"learning_rate": 1e-12, "patience": 1, "epochs": 50, "check_every": 5, "warmup_epochs": 0}
    )
    history = fit(config).history

    assert len(history) < 10


def test_export_is_by_plain_distance(fitted: Fit) -> None:
    """Codes do not depend on usage: encoding the fitted vectors again gives the codes as quantized."""
    np.testing.assert_array_equal(fitted.codebook.encode(clustered()), fitted.quantized)
    np.testing.assert_array_equal(fitted.codebook.encode(clustered()[17:18])[0], fitted.quantized[17])


def test_equal_vectors_part_by_rank(fitted: Fit) -> None:
    """The five repeated items have the codes of their twins but for the last one, which differs."""
    quantized, resolved = fitted.quantized, fitted.resolved.codes

    np.testing.assert_array_equal(quantized[-5:], quantized[-10:-5])
    assert (resolved[-5:, -1] != resolved[-10:-5, -1]).all()


def test_clusters_cover_all_codes_and_ignore_unused_ones() -> None:
    """Centres are the means of used codewords; an unused one, however far, joins the nearest cluster."""
    words = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0], [500.0, 500.0]]])
    config = CONFIG.model_copy(update={"num_clusters": 2})
    cluster_of, centres = cluster_codewords(words, np.array([[0], [1], [2], [3]], dtype=np.int32), config, seed=0)

    assert sorted(centres[0].tolist()) == [[0.0, 1.0], [9.0, 1.0]]
    assert cluster_of.dtype == torch.int32
    assert cluster_of[0, 0] == cluster_of[0, 1]
    assert cluster_of[0, 2] == cluster_of[0, 3] == cluster_of[0, 4]
    assert cluster_of[0, 0] != cluster_of[0, 2]


def test_cluster_tables_belong_to_the_codewords(fitted: Fit) -> None:
    """Every codeword's cluster is the one of its nearest centre, at every level."""
    book = fitted.codebook
    for level in range(3):
        nearest = torch.cdist(book.codewords[level], book.cluster_centres[level]).argmin(dim=-1)

        assert torch.equal(book.cluster_of[level].long(), nearest)


def test_a_codebook_comes_back_as_it_was(fitted: Fit, tmp_path: Path) -> None:
    """Codes of new vectors, clusters, config and lineage survive saving; saving again writes the same bytes."""
    fitted.codebook.save(tmp_path / "one")
    again = S2GRCodebook.load(tmp_path / "one")
    again.save(tmp_path / "two")
    new = np.random.default_rng(5).normal(size=(20, 12)).astype(np.float32)

    np.testing.assert_array_equal(again.encode(new), fitted.codebook.encode(new))
    assert torch.equal(again.cluster_of, fitted.codebook.cluster_of)
    assert torch.equal(again.cluster_centres, fitted.codebook.cluster_centres)
    assert (again.config, again.lineage) == (CONFIG, "text-1")
    for name in ("codebook.safetensors", "codebook.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_files_of_two_codebooks_are_refused(fitted: Fit, tmp_path: Path) -> None:
    """A header beside other weights, another kind and a missing file are three named faults."""
    fitted.codebook.save(tmp_path / "a")
    header = (tmp_path / "a" / "codebook.json").read_text()
    (tmp_path / "a" / "codebook.json").write_text(header.replace("[\n      32,\n      12\n    ]", "[32, 11]"))
    with pytest.raises(BundleError, match="two codebooks"):
        S2GRCodebook.load(tmp_path / "a")

    (tmp_path / "a" / "codebook.json").write_text(header.replace('"s2gr"', '"reg4rec"'))
    with pytest.raises(BundleError, match="kind 'reg4rec'"):
        S2GRCodebook.load(tmp_path / "a")

    shutil.rmtree(tmp_path / "a")
    with pytest.raises(BundleError, match="cannot be read"):
        S2GRCodebook.load(tmp_path / "a")
