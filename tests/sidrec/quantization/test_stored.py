"""Ranks that stream their own rows of one file end with one codebook, and none of them reads another's rows."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from sidrec.errors import UsageError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.quantizer import Quantizer
from sidrec.quantization.residual_kmeans import fit_blocks
from sidrec.quantization.sharding import Shards, checksum
from sidrec.quantization.stored import stored_vectors
from tests.sidrec.quantization.shard_world import on_ranks

FILE = "SIDREC_TEST_VECTORS"
CONFIG = CodebookConfig.model_validate(
    {"quantizer": "residual_kmeans", "num_levels": 2, "codebook_size": 8, "kmeans_iterations": 10}
)


def write(path: Path, count: int = 3001) -> torch.Tensor:
    """Write a seeded mixture of 20 clusters and return it."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(20, 6, generator=generator)
    vectors = centres[torch.randint(20, (count,), generator=generator)] + torch.randn(count, 6, generator=generator)
    save_file({"vectors": vectors}, path)
    return vectors


def fit_own(group: dist.ProcessGroup) -> dict[str, Any]:
    """Fit on this rank's rows, and say which and how many at a time it was given."""
    shards = Shards(group)
    blocks = stored_vectors(Path(os.environ[FILE]), shards=shards, rows=200)
    books = fit_blocks(blocks, CONFIG, seed=0, shards=shards).quantizer.codebooks
    own = list(blocks())
    return {"books": books, "checksum": checksum(books), "own": torch.cat(own), "most": max(len(one) for one in own)}


def error(books: torch.Tensor, vectors: torch.Tensor) -> float:
    quantizer = Quantizer("residual_kmeans", books)
    return float(quantizer.errors(vectors, quantizer.encode(vectors)).mean())


def test_ranks_stream_their_own_rows_and_end_with_one_codebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal checksums on two gloo ranks, an error within 5 % of one process's; together the rows are the file's."""
    path = tmp_path / "vectors.safetensors"
    vectors = write(path)
    monkeypatch.setenv(FILE, str(path))

    one, other = on_ranks(__file__, "fit_own", tmp_path)

    assert one["checksum"] == other["checksum"]
    assert torch.equal(torch.cat([one["own"], other["own"]]), vectors)
    assert (len(one["own"]), len(other["own"])) == (1500, 1501)
    assert max(one["most"], other["most"]) == 200
    alone = fit_blocks(stored_vectors(path), CONFIG, seed=0).quantizer.codebooks
    assert error(one["books"], vectors) == pytest.approx(error(alone, vectors), rel=0.05)


def test_more_ranks_than_vectors_are_refused(tmp_path: Path) -> None:
    """A rank without a row has nothing to fit on."""
    write(tmp_path / "v", 2)
    shards = Shards()
    shards.count = 3

    with pytest.raises(UsageError, match="2 vectors, and there are 3 ranks"):
        stored_vectors(tmp_path / "v", shards=shards)
