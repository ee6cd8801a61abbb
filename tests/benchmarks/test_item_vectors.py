"""Item vectors of a benchmark come from training events alone, and from files that are named."""

from pathlib import Path

import polars as pl
import pytest
import torch

from benchmarks.item_vectors import DATA_VARIABLE, item_vectors
from sidrec import files

WORDS = ["red lamp", "blue lamp", "red chair", "blue chair", "green lamp", "green chair"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of six items in an order that is not that of their ids, and three users."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    folder = tmp_path / "amazon_scientific_2018"
    folder.mkdir()
    titles = pl.DataFrame({"item_id": [f"i{n}" for n in reversed(range(6))], "title": WORDS[::-1]})
    titles.write_parquet(folder / "items.parquet")
    write_events(folder, last="i5")
    return folder


def write_events(folder: Path, *, last: str) -> None:
    """Each user buys i0, i1, i2 in training, then i3 and `last`, which are held out."""
    rows = [
        {"user_id": f"u{user}", "item_id": item, "seq_pos": position, "split": split}
        for user in range(3)
        for position, (item, split) in enumerate(
            [("i0", "train"), ("i1", "train"), ("i2", "train"), ("i3", "valid"), (last, "test")]
        )
    ]
    pl.DataFrame(rows).write_parquet(folder / "interactions.parquet")


def test_held_out_events_leave_no_trace(folder: Path) -> None:
    """Whatever users bought last, vectors, ranks and edges are the same; what they trained on counts."""
    one = item_vectors("scientific")
    write_events(folder, last="i4")
    two = item_vectors("scientific")

    assert torch.equal(one.vectors, two.vectors)
    assert one.rank.tolist() == two.rank.tolist() == [3, 3, 3, 0, 0, 0]
    assert (one.train_events, one.edges) == (9, 3)


def test_items_bought_together_are_nearer_than_their_texts(folder: Path) -> None:
    """Vectors have length 1; "red lamp" is nearer to "blue lamp" of its baskets than two chairs outside them are."""
    vectors = item_vectors("scientific").vectors
    alike = vectors @ vectors.T

    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6))
    assert alike[0, 1] > alike[3, 5] + 0.1


def test_files_are_named_by_their_checksum(folder: Path) -> None:
    """Of both files, as they lie there."""
    sources = item_vectors("scientific").sources

    assert sources == {name: files.sha256_file(folder / name) for name in ("interactions.parquet", "items.parquet")}
