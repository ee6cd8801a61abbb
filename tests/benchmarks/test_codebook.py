"""The benchmark of codebooks runs whole at small sizes; its peers and its data are what they are said to be."""

import itertools
from pathlib import Path

import pytest
import torch

from benchmarks import codebook, peers
from benchmarks.mixture import file_blocks, mixture, write_mixture


def test_every_row_is_measured_and_none_is_judged_at_quick_sizes() -> None:
    """Ten rows with the schema's keys; each has a time or says why its outputs are not equal."""
    report = codebook.run(quick=True)
    rows = report["results"]

    assert len(rows) == 10
    assert len({row["name"] for row in rows}) == 10
    assert all({"name", "ours", "peer", "ratio", "goal", "met", "spread"} <= row.keys() for row in rows)
    assert all(row["met"] is None and row["goal"] is None for row in rows)
    assert all(row["ours"] is not None or "ours" in row["notes"] for row in rows)


def test_a_full_run_judges_what_the_goals_name() -> None:
    """At full size goals stand; at quick size the same goals are none."""
    assert codebook.Sizes().goal(1.3) == 1.3
    assert codebook.QUICK.goal(1.3) is None


def test_the_file_holds_the_mixture(tmp_path: Path) -> None:
    """Blocks of the file are the vectors in memory, as often as they are read; a prefix is a prefix."""
    write_mixture(tmp_path / "m.f32", 70_000, 3, seed=5)
    blocks = file_blocks(tmp_path / "m.f32", 70_000, 3)
    memory = mixture(70_000, 3, seed=5)

    assert torch.equal(torch.cat(list(blocks())), memory)
    assert torch.equal(torch.cat(list(blocks())), memory)
    assert torch.equal(torch.cat(list(file_blocks(tmp_path / "m.f32", 10, 3)())), memory[:10])


@pytest.mark.parametrize("seed", range(3))
def test_min_cost_flow_is_the_least_of_all_assignments(seed: int) -> None:
    """On six items and three codes taken once to three times, no assignment within the bounds costs less."""
    costs = torch.rand(6, 3, generator=torch.Generator().manual_seed(seed))

    def cost(codes: tuple[int, ...]) -> float:
        return sum(float(costs[item, code]) for item, code in enumerate(codes))

    allowed = (c for c in itertools.product(range(3), repeat=6) if all(1 <= c.count(code) <= 3 for code in range(3)))
    found = tuple(peers.cheapest_balanced(costs, 1, 3).tolist())

    assert all(1 <= found.count(code) <= 3 for code in range(3))
    assert cost(found) == pytest.approx(min(cost(codes) for codes in allowed), abs=6e-3)


@pytest.mark.parametrize("fit", [peers.faiss_kmeans, peers.sklearn_kmeans, peers.residual_vq])
def test_peers_return_codebooks_that_explain_the_vectors(fit: codebook.Fit) -> None:
    """Two levels of eight codes leave less than one level does."""
    vectors = 3 * mixture(500, 4)
    books = fit(vectors, 2, 8, 10)
    first = torch.cdist(vectors, books[0]).min(dim=1)
    left = vectors - books[0][first.indices]

    assert books.shape == (2, 8, 4)
    assert float(torch.cdist(left, books[1]).min(dim=1).values.square().mean()) < float(first.values.square().mean())
