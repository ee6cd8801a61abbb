"""K-means finds what is there, the same way every time."""

import itertools

import torch

from sidrec.quantization.kmeans import kmeans, lloyd, revive_dead_codes, spread_centres


def blobs(num_blobs: int, each: int, spread: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    centres = 10 * torch.randn(num_blobs, 6, generator=generator)
    labels = torch.arange(num_blobs).repeat_interleave(each)
    return centres[labels] + spread * torch.randn(len(labels), 6, generator=generator), labels


def test_separated_blobs_are_recovered() -> None:
    """Well separated groups become the clusters, whatever the clusters' numbers."""
    vectors, labels = blobs(8, 20)
    assignment = kmeans(vectors, 8, seed=0, restarts=3).assignment

    together = assignment[:, None] == assignment[None]
    assert torch.equal(together, labels[:, None] == labels[None])


def test_no_partition_of_a_tiny_set_is_better() -> None:
    """On seven points and two clusters, restarts reach the least inertia of all partitions."""
    vectors = torch.tensor([[0.0], [0.2], [0.9], [1.0], [4.0], [4.1], [9.0]])

    def inertia(part: tuple[int, ...]) -> float:
        groups = [vectors[[index for index in range(7) if part[index] == group]] for group in (0, 1)]
        return sum(float((group - group.mean(dim=0)).square().sum()) for group in groups if len(group))

    best = min(inertia(part) for part in itertools.product((0, 1), repeat=7))
    assert abs(kmeans(vectors, 2, seed=0, restarts=20).inertia - best) < 1e-4


def test_the_seed_decides() -> None:
    """One seed gives one result, bit for bit, and the caller's random state is left alone."""
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two = kmeans(vectors, 10, seed=3), kmeans(vectors, 10, seed=3)

    assert torch.equal(one.centres, two.centres)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(kmeans(vectors, 10, seed=4).centres, one.centres)


def test_more_restarts_never_do_worse() -> None:
    """The first runs of many restarts are the runs of few."""
    vectors = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))

    assert kmeans(vectors, 12, seed=0, restarts=8).inertia <= kmeans(vectors, 12, seed=0, restarts=1).inertia


def test_every_cluster_is_used_when_there_are_enough_vectors() -> None:
    """No centre stays empty on distinct vectors."""
    vectors = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))

    assert len(kmeans(vectors, 32, seed=0).assignment.unique()) == 32


def test_fewer_distinct_vectors_than_clusters_is_allowed() -> None:
    """Repeated vectors are served exactly and nothing turns into nan."""
    clusters = kmeans(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(3, 1), 5, seed=0)

    assert clusters.inertia == 0
    assert torch.isfinite(clusters.centres).all()


def test_dead_codes_move_onto_the_worst_served_vectors() -> None:
    """Two unused codewords take the two vectors farthest from their own; used ones stay."""
    codebook = torch.tensor([[0.0], [50.0], [60.0], [10.0]])
    vectors = torch.tensor([[0.0], [3.0], [10.0], [11.0], [2.0]])
    revived, moved = revive_dead_codes(codebook, torch.tensor([0, 0, 3, 3, 0]), vectors)

    assert moved == 2
    assert revived.squeeze(-1).tolist() == [0.0, 3.0, 2.0, 10.0]


def test_nothing_moves_when_every_code_is_used() -> None:
    """A codebook without dead codes comes back unchanged."""
    codebook = torch.tensor([[0.0], [1.0]])
    revived, moved = revive_dead_codes(codebook, torch.tensor([0, 1]), torch.tensor([[0.1], [0.9]]))

    assert moved == 0
    assert torch.equal(revived, codebook)


def test_greedy_seeds_are_nearer() -> None:
    """Of several candidates the best is taken: over ten seeds the sum of squared distances is lower than with one."""
    vectors = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))

    def inertia(candidates: int) -> float:
        total = 0.0
        for seed in range(10):
            generator = torch.Generator().manual_seed(seed)
            centres = spread_centres(vectors, 20, generator, candidates=candidates)
            total += float(torch.cdist(vectors, centres).square().amin(dim=1).sum())
        return total

    assert inertia(5) < inertia(1)


def test_greedy_seeds_find_every_tight_group() -> None:
    """Of forty tight groups each gets one seed, although a round takes several seeds at once."""
    vectors, labels = blobs(40, 12)
    seeds = spread_centres(vectors, 40, torch.Generator().manual_seed(0), candidates=4)
    group = labels[torch.cdist(seeds, vectors).argmin(dim=1)]

    assert len(group.unique()) == 40


def test_a_tolerance_ends_the_iterations_early() -> None:
    """With every change tolerated one iteration is all; with none the end is that of many iterations."""
    vectors = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    start = vectors[:12]

    assert torch.equal(lloyd(vectors, start, 50, tolerance=1.0).centres, lloyd(vectors, start, 1).centres)
    assert torch.equal(lloyd(vectors, start, 500).centres, lloyd(vectors, start, 900).centres)
