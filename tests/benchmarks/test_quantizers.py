"""The table of quantizers says what was measured on what, and reads nothing that comes after training."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks import item_vectors, quantizers
from benchmarks.item_vectors import ItemVectors


def few_items(name: str) -> ItemVectors:
    """Sixty unit vectors in twenty pairs and twenty singles."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    return ItemVectors(torch.cat([vectors, vectors[:20]]), np.arange(60), {f"{name}.parquet": "0f"}, 100, 7)


@pytest.fixture
def two_quantizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark on items that are fitted in a moment."""
    small = {"num_levels": 2, "codebook_size": 16, "hidden_dims": (8,), "code_dim": 4, "epochs": 2, "warmup_epochs": 0}
    settings = {"residual_kmeans": {"quantizer": "residual_kmeans", "num_levels": 2, "codebook_size": 16}}
    settings["mpq"] = {"quantizer": "mpq", **small}
    monkeypatch.setattr(quantizers, "SETTINGS", settings)
    monkeypatch.setattr(quantizers, "item_vectors", few_items)


def amazon_folder(root: Path) -> None:
    """Two users who bought a, b (and a, c) in training; d is bought later only."""
    folder = root / item_vectors.FOLDERS["scientific"]
    folder.mkdir()
    rows = [("u", "a", 0, "train"), ("u", "b", 1, "train"), ("u", "d", 2, "valid"), ("u", "c", 3, "test")]
    rows += [("v", "a", 0, "train"), ("v", "c", 1, "train"), ("v", "d", 2, "test")]
    pl.DataFrame(rows, schema=["user_id", "item_id", "seq_pos", "split"], orient="row").write_parquet(
        folder / "interactions.parquet"
    )
    titles = {"a": "red ball", "b": "red cube", "c": "green cube", "d": "green ball"}
    pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}).write_parquet(folder / "items.parquet")


def test_every_row_tells_items_apart_and_names_its_data(two_quantizers: None) -> None:
    """Before resolution pairs of equal vectors collide, afterwards none does; the files' digests stand beside it."""
    result = quantizers.measure(["beauty"], ["residual_kmeans", "mpq"], seed=0)

    assert [row["name"] for row in result["results"]] == ["beauty/residual_kmeans", "beauty/mpq"]
    assert all(row["collision_rate"] >= 1 / 3 for row in result["results"])
    assert all(row["collision_rate_resolved"] == 0 and row["met"] for row in result["results"])
    assert result["data"]["beauty"]["sha256"] == {"beauty.parquet": "0f"}
    assert sum(result["results"][1]["expert_load"]) == pytest.approx(1)
    assert quantizers.markdown(result).count("\n| beauty |") == 2


def test_k_means_loses_the_same_of_the_input_as_of_the_latent(two_quantizers: None) -> None:
    """A vector is its own latent; the best affine map of the codewords can only lose less."""
    row = quantizers.measure(["beauty"], ["residual_kmeans"], seed=0)["results"][0]

    assert row["input_unexplained"] == pytest.approx(row["latent_unexplained"], rel=1e-4)
    assert row["input_unexplained_linear"] <= row["input_unexplained"] + 1e-9


def test_coba_has_to_use_its_codes() -> None:
    """A level under 99 % misses CoBa's goal and nobody else's."""
    row = {"quantizer": "rqvae_coba", "collision_rate_resolved": 0.0, "utilisation": [1.0, 0.98]}

    assert not quantizers._goal(row)["met"]
    assert quantizers._goal(row | {"utilisation": [1.0, 0.99]})["met"]
    assert quantizers._goal(row | {"quantizer": "rqvae_plain"})["met"]
    assert not quantizers._goal(row | {"quantizer": "rqvae_plain", "collision_rate_resolved": 0.1})["met"]


def test_the_linear_decoder_is_least_squares() -> None:
    """An affine image is explained whole; a constant leaves twice 4 of the squared lengths 45 and 13."""
    vectors = torch.tensor([[3.0, 4.0], [3.0, 4.0]]) + torch.tensor([[0.0, 2.0], [0.0, -2.0]])
    latent = torch.randn(30, 3, 2, generator=torch.Generator().manual_seed(0))
    image = latent.flatten(1) @ torch.arange(24.0).view(6, 4) + 1

    assert quantizers.linear_unexplained(vectors, torch.ones(2, 3)) == pytest.approx(4 / 29)
    assert quantizers.linear_unexplained(image, latent) == pytest.approx(0, abs=1e-9)


def test_data_that_are_not_here_are_skipped_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table says which setting would bring them, or which file is missing."""
    monkeypatch.delenv(item_vectors.DATA_VARIABLE, raising=False)
    unset = quantizers.measure(["beauty"], ["residual_kmeans"], seed=0)
    monkeypatch.setenv(item_vectors.DATA_VARIABLE, str(tmp_path))
    empty = quantizers.measure(["beauty"], ["residual_kmeans"], seed=0)

    assert unset["results"] == empty["results"] == []
    assert "set SIDREC_BENCH_DATA" in unset["skipped"]["beauty"]
    assert str(tmp_path / "amazon_beauty_2014") in quantizers.markdown(empty)


def test_only_training_events_smooth_the_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of seven events four count; an item that is bought later only has no neighbour and no popularity."""
    amazon_folder(tmp_path)
    monkeypatch.setenv(item_vectors.DATA_VARIABLE, str(tmp_path))
    items = item_vectors.item_vectors("scientific")

    assert (items.train_events, items.edges) == (4, 2)
    assert items.rank.tolist() == [2, 1, 1, 0]
    assert set(items.sources) == {"interactions.parquet", "items.parquet"}
    torch.testing.assert_close(items.vectors.norm(dim=1), torch.ones(4))
