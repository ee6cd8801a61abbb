"""Sums over ranks are those of one process, and the same bits everywhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sidrec.errors import CheckFailedError
from sidrec.quantization.sharding import Shards, checksum
from tests.sidrec.quantization.shard_world import on_ranks


def ask_everything(group: dist.ProcessGroup) -> dict[str, Any]:
    """What one of two ranks gets; rank r holds r + 2 rows of the number r + 0.1."""
    shards = Shards(group)
    rows = torch.full((shards.rank + 2, 3), shards.rank + 0.1)
    refused = ""
    try:
        shards.check_equal(rows[0], "the row")
    except CheckFailedError as error:
        refused = error.message
    return {
        "rank": shards.rank,
        "count": shards.count,
        "sum": shards.sum(rows.sum(dim=0)),
        "gathered": shards.gather(rows),
        "sizes": shards.sizes(len(rows)),
        "first": shards.broadcast(rows[0]),
        "equal": shards.check_equal(torch.arange(4), "the range"),
        "refused": refused,
    }


def test_one_process_is_one_shard() -> None:
    """Without a group every question is answered by the process itself."""
    shards, rows = Shards(), torch.rand(3, 2)

    assert (shards.rank, shards.count, shards.sizes(3)) == (0, 1, [3])
    assert all(torch.equal(ask(rows), rows) for ask in (shards.sum, shards.gather, shards.broadcast))
    assert shards.check_equal(rows, "rows") == checksum(rows)


def test_two_ranks_answer_alike(tmp_path: Path) -> None:
    """Sums, gathered rows of unequal shards and broadcasts are worked by hand and equal on both ranks."""
    answers = on_ranks(__file__, "ask_everything", tmp_path)

    for rank, answer in enumerate(answers):
        assert (answer["rank"], answer["count"], answer["sizes"]) == (rank, 2, [2, 3])
        torch.testing.assert_close(answer["sum"], torch.full((3,), 2 * 0.1 + 3 * 1.1))
        assert answer["gathered"][:, 0].tolist() == pytest.approx([0.1, 0.1, 1.1, 1.1, 1.1])
        assert answer["first"].tolist() == pytest.approx([0.1] * 3)
        assert answer["equal"] == checksum(torch.arange(4))
    assert torch.equal(answers[0]["sum"], answers[1]["sum"])


def test_ranks_that_differ_are_named(tmp_path: Path) -> None:
    """A tensor that is not the same on all ranks is refused on every one of them, with the ranks named."""
    for answer in on_ranks(__file__, "ask_everything", tmp_path):
        assert "the row differs between ranks: rank 0 has" in answer["refused"]


def test_a_checksum_sees_every_bit() -> None:
    """Equal tensors have one checksum; the next float has another."""
    value = torch.tensor([1.0, 2.0])

    assert checksum(value) == checksum(value.clone())
    assert checksum(value) != checksum(torch.nextafter(value, torch.tensor(9.0)))
