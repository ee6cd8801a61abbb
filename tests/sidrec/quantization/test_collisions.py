"""Colliding items part within their prefix, at little cost and in order of rank."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sidrec.data.catalog import PAD, Catalog, disambiguate
from sidrec.errors import CheckFailedError
from sidrec.quantization.collisions import resolve, resolve_collisions, sinkhorn_plan
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.quantizer import Quantizer

SETTINGS = {"epsilon": 0.003, "iterations": 50}


@given(st.integers(1, 40), st.integers(1, 3), st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_prefixes_stay_and_nobody_shares_what_could_be_free(items: int, prefixes: int, size: int, seed: int) -> None:
    """Prefixes never change; an item still collides only where its prefix has more items than codes."""
    random = np.random.default_rng(seed)
    codes = np.stack([random.integers(0, prefixes, items), random.integers(0, 2, items)], axis=1).astype(np.int32)
    residuals, codewords = random.normal(size=(items, 3)), random.normal(size=(size, 3))
    resolved = resolve_collisions(
        codes, residuals.astype(np.float32), codewords.astype(np.float32), random.integers(0, 9, items), **SETTINGS
    )

    np.testing.assert_array_equal(resolved.codes[:, 0], codes[:, 0])
    surplus = 0
    for prefix in range(prefixes):
        members = resolved.codes[resolved.codes[:, 0] == prefix]
        assert len(np.unique(members[:, 1])) == min(len(members), size)
        surplus += max(0, len(members) - size)
    assert resolved.left == surplus
    assert resolved.moved == int((resolved.codes[:, 1] != codes[:, 1]).sum())


def test_items_that_collide_with_nobody_keep_their_codes() -> None:
    """Only the colliding pair is touched, and it takes no code that another item of the prefix has."""
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]], dtype=np.int32)
    line = np.arange(4, dtype=np.float32)[:, None]
    resolved = resolve_collisions(codes, np.zeros((4, 1), dtype=np.float32), line, np.array([1, 5, 0, 0]), **SETTINGS)

    # Item 1 ranks first and keeps code 0; code 1 is item 2's, so item 0 takes the next nearest.
    assert resolved.codes.tolist() == [[0, 2], [0, 0], [0, 1], [1, 0]]
    assert (resolved.moved, resolved.left) == (1, 0)


def test_rank_decides_who_keeps_the_code_and_the_index_breaks_ties() -> None:
    """Equal items: the popular one keeps the nearest code; of equally popular ones the first does."""
    codes = np.zeros((3, 1), dtype=np.int32)
    line = np.arange(3, dtype=np.float32)[:, None]
    same = np.zeros((3, 1), dtype=np.float32)

    assert resolve_collisions(codes, same, line, np.array([0, 1, 9]), **SETTINGS).codes[:, 0].tolist() == [2, 1, 0]
    assert resolve_collisions(codes, same, line, np.array([4, 4, 4]), **SETTINGS).codes[:, 0].tolist() == [0, 1, 2]


def test_an_overfull_prefix_leaves_its_least_popular_items() -> None:
    """Three items on two codes: the lowest ranked keeps its code and still collides."""
    codes = np.zeros((3, 1), dtype=np.int32)
    line = np.arange(2, dtype=np.float32)[:, None]
    resolved = resolve_collisions(codes, np.zeros((3, 1), dtype=np.float32), line, np.array([5, 1, 3]), **SETTINGS)

    assert resolved.left == 1
    assert resolved.codes[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_is_the_optimal_assignment_when_epsilon_is_small(seed: int) -> None:
    """Its largest entries are the matching of least total cost, found exactly by the Hungarian method."""
    costs = np.random.default_rng(seed).random((6, 9))
    rows, columns = linear_sum_assignment(costs)

    plan = sinkhorn_plan(costs, epsilon=0.003, iterations=3000)

    np.testing.assert_array_equal(plan.argmax(axis=1)[rows], columns)


def test_the_plan_gives_each_item_once_and_fills_no_code_twice() -> None:
    """Rows sum to 1; no column exceeds 1 by more than the iterations leave."""
    plan = sinkhorn_plan(np.random.default_rng(0).random((5, 7)), epsilon=0.1, iterations=500)

    np.testing.assert_allclose(plan.sum(axis=1), 1, rtol=1e-6)
    assert plan.sum(axis=0).max() < 1 + 1e-6


def test_equal_costs_and_a_full_house_are_no_special_case() -> None:
    """All costs zero, or as many items as codes, still give a plan of finite numbers."""
    assert np.isfinite(sinkhorn_plan(np.zeros((3, 5)), **SETTINGS)).all()
    full = sinkhorn_plan(np.random.default_rng(1).random((4, 4)), epsilon=0.05, iterations=500)
    np.testing.assert_allclose(full.sum(axis=0), 1, rtol=1e-3)
    with pytest.raises(ValueError, match="5 items do not fit on 3 codes"):
        sinkhorn_plan(np.zeros((5, 3)), **SETTINGS)


def test_resolution_costs_little_more_than_the_optimum() -> None:
    """The total cost of the seats lies within 10 % of the Hungarian optimum on a crowded prefix."""
    random = np.random.default_rng(3)
    residuals, codewords = (
        random.normal(size=(40, 4)).astype(np.float32),
        random.normal(size=(64, 4)).astype(np.float32),
    )
    costs = np.square(residuals[:, None] - codewords[None]).sum(axis=-1)
    codes = np.zeros((40, 1), dtype=np.int32)
    resolved = resolve_collisions(codes, residuals, codewords, np.zeros(40, dtype=np.int64), **SETTINGS)
    rows, columns = linear_sum_assignment(costs)

    assert costs[np.arange(40), resolved.codes[:, 0]].sum() <= 1.1 * costs[rows, columns].sum()


POLICIES = ("sinkhorn_last", "nearest_free", "extra_code")


def catalogue(codes: np.ndarray) -> Catalog:
    """Return a catalogue of these codes; it refuses what does not decode uniquely."""
    return Catalog.build(pl.DataFrame({"item_id": [f"i{row}" for row in range(len(codes))]}), codes)


def quantizer_of(kind: str, levels: int, size: int, seed: int) -> tuple[Quantizer, torch.Tensor]:
    """Return random codebooks of two-dimensional codewords, and a way to shape latent vectors for them."""
    generator = torch.Generator().manual_seed(seed)
    books = torch.randn(levels, size, 2, generator=generator)
    return Quantizer(kind, books), torch.randn(60, levels, 2, generator=generator)  # type: ignore[arg-type]


@given(
    st.sampled_from(POLICIES),
    st.sampled_from(["residual_kmeans", "mpq"]),
    st.integers(1, 40),
    st.integers(2, 5),
    st.integers(0, 1000),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_policy_ends_uniquely_decodable(
    policy: str, kind: str, items: int, size: int, seed: int, equal: bool
) -> None:
    """Overfull catalogues and equal vectors too; who collides with nobody keeps its codes; no chance is in it."""
    quantizer, parts = quantizer_of(kind, 2, size, seed)
    latent = parts[:items] if kind == "mpq" else parts[:items, 0]
    latent = latent[:1].expand_as(latent) if equal else latent
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    config = CodebookConfig(collision_policy=policy)  # type: ignore[arg-type]
    rank = np.random.default_rng(seed).integers(0, 5, items)
    made = resolve(quantizer, latent, codes, rank, config)
    again = resolve(quantizer, latent, codes, rank, config)
    _, group, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    alone = count[group] == 1

    assert len(catalogue(made.codes)) == items
    np.testing.assert_array_equal(made.codes, again.codes)
    np.testing.assert_array_equal(made.codes[alone, :2], codes[alone])
    assert made.moved == int((made.codes[:, :2] != codes).any(axis=1).sum())
    assert made.extra == int((made.codes[:, 2:] != PAD).sum())


@given(st.sampled_from(["residual_kmeans", "mpq"]), st.integers(1, 25), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_taken_semantic_ids_stay_their_owners(kind: str, items: int, seed: int) -> None:
    """New items fit between published ones, whether those have an extra code or none; together they decode uniquely."""
    quantizer, parts = quantizer_of(kind, 2, 6, seed)
    latent = parts[:items] if kind == "mpq" else parts[:items, 0]
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    random = np.random.default_rng(seed)
    own = np.unique(random.integers(0, 6, (8, 2)), axis=0)
    taken = np.concatenate([own, random.choice([PAD, 0, 3], size=(len(own), 1))], axis=1).astype(np.int32)
    made = resolve(quantizer, latent, codes, np.zeros(items, dtype=np.int64), CodebookConfig(), taken=taken)
    both = np.concatenate([taken, np.pad(made.codes, ((0, 0), (0, 1)), constant_values=PAD)])

    assert made.codes.shape[1] == 2
    assert len(catalogue(both)) == len(taken) + items


@pytest.mark.parametrize("kind", ["residual_kmeans", "mpq"])
def test_nearest_free_is_the_nearest_free_one(kind: str) -> None:
    """One item among taken neighbours gets what trying every semantic ID that differs in one code would find."""
    for seed in range(20):
        quantizer, parts = quantizer_of(kind, 3, 4, seed)
        latent = parts[:1] if kind == "mpq" else parts[:1, 0]
        own = quantizer.quantize(latent).codes
        every = torch.cartesian_prod(*[torch.arange(4)] * 3)
        near = every[(every != own).sum(dim=1) <= 1]
        blocked = near[torch.randperm(len(near), generator=torch.Generator().manual_seed(seed))[:5]]
        taken = torch.cat([own, blocked]).unique(dim=0)
        free = torch.stack([row for row in near if not (taken == row).all(dim=1).any()])
        best = free[quantizer.errors(latent.expand(len(free), *latent.shape[1:]), free).argmin()]
        made = resolve(
            quantizer, latent, own.numpy().astype(np.int32), np.zeros(1, np.int64), CodebookConfig(),
            taken=taken.numpy().astype(np.int32),
        )  # fmt: skip

        assert made.codes[0].tolist() == best.tolist()


@pytest.mark.parametrize("kind", ["residual_kmeans", "mpq"])
def test_without_a_free_single_change_two_codes_change_then_three(kind: str) -> None:
    """Equal items take every semantic ID there is, by count of changed codes, then by error: as sorting them all does.

    Beyond that many, the lowest ranked share the codes of the first, told apart by an extra code.
    """
    quantizer, parts = quantizer_of(kind, 3, 3, seed=1)
    latent = (parts[:1] if kind == "mpq" else parts[:1, 0]).repeat_interleave(29, dim=0)
    own = quantizer.quantize(latent).codes
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    changes = (every != own[:1]).sum(dim=1)
    errors = quantizer.errors(latent[:1].expand(27, *latent.shape[1:]), every)
    config = CodebookConfig(collision_policy="nearest_free")
    made = resolve(quantizer, latent, own.numpy().astype(np.int32), -np.arange(29), config)
    numbers = (torch.from_numpy(made.codes[:27, :3]).long() * torch.tensor([9, 3, 1])).sum(dim=1)

    assert len(numbers.unique()) == 27
    assert (changes[numbers].diff() >= 0).all()
    for count in range(4):
        assert (errors[numbers][changes[numbers] == count].diff() >= -1e-5).all()
    assert made.codes[27:, :3].tolist() == own[27:].tolist()
    assert (made.extra, made.left) == (3, 2)


def test_of_equal_errors_the_last_level_changes() -> None:
    """By hand: changing either code to 1 costs the same; the first level groups more items, so the last one moves."""
    quantizer = Quantizer("residual_kmeans", torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))
    codes = np.zeros((2, 2), dtype=np.int32)
    config = CodebookConfig(collision_policy="nearest_free")
    made = resolve(quantizer, torch.zeros(2, 1), codes, np.array([0, 1]), config)

    assert made.codes.tolist() == [[0, 1], [0, 0]]


@given(st.integers(1, 10), st.integers(0, 9), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_it_succeeds_exactly_while_semantic_ids_are_free(items: int, published: int, seed: int) -> None:
    """Of 9 semantic IDs some are published: as many new items as are left get one; with more, the error counts them."""
    quantizer, parts = quantizer_of("residual_kmeans", 2, 3, seed)
    latent = parts[:items, 0]
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    order = np.random.default_rng(seed).permutation(9)[:published]
    taken = np.stack([order // 3, order % 3], axis=1).astype(np.int32)

    def made() -> np.ndarray:
        return resolve(quantizer, latent, codes, np.zeros(items, np.int64), CodebookConfig(), taken=taken).codes

    if items + published <= 9:
        assert len(np.unique(np.concatenate([taken, made()]), axis=0)) == items + published
    else:
        with pytest.raises(CheckFailedError, match=rf"all 9 .* are taken; {items + published - 9} items have none"):
            made()


def test_where_changes_are_too_many_to_score_any_free_semantic_id_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing beyond single changes scored, 27 equal items still get the 27 semantic IDs."""
    monkeypatch.setattr("sidrec.quantization.nearest_free._MOST", 0)
    quantizer, parts = quantizer_of("residual_kmeans", 3, 3, seed=2)
    latent = parts[:1, 0].repeat_interleave(27, dim=0)
    codes = quantizer.quantize(latent).codes.numpy().astype(np.int32)
    config = CodebookConfig(collision_policy="nearest_free")
    made = resolve(quantizer, latent, codes, np.zeros(27, np.int64), config)

    assert made.codes.shape == (27, 3)
    assert len(catalogue(made.codes)) == 27


def test_sinkhorn_last_is_the_plan_then_extra_codes() -> None:
    """The policy gives what `resolve_collisions` on the last level's residuals gives, the rest numbered by rank."""
    quantizer, parts = quantizer_of("residual_kmeans", 2, 3, seed=4)
    latent = parts[:, 0]
    quantized = quantizer.quantize(latent)
    codes, rank = quantized.codes.numpy().astype(np.int32), np.arange(60) % 7
    config = CodebookConfig()
    made = resolve(quantizer, latent, codes, rank, config)
    last = quantizer.codebooks[-1].numpy()
    plan = resolve_collisions(
        codes, quantized.residuals[:, -1].numpy(), last, rank, epsilon=config.sinkhorn_epsilon,
        iterations=config.sinkhorn_iterations,
    )  # fmt: skip

    assert plan.moved > 0 < plan.left
    np.testing.assert_array_equal(made.codes, disambiguate(plan.codes, rank))
    assert (made.moved, made.left) == (plan.moved, plan.left)


def test_of_equal_codes_the_nearest_item_keeps_them() -> None:
    """By hand, one level: 0.1 is nearest to codeword 0 and keeps it; 0.4 ranks next and takes codeword 1."""
    quantizer = Quantizer("residual_kmeans", torch.tensor([[[0.0], [1.0], [-1.0], [9.0]]]))
    latent = torch.tensor([[0.3], [0.1], [0.4]])
    config = CodebookConfig(collision_policy="nearest_free")
    made = resolve(quantizer, latent, np.zeros((3, 1), dtype=np.int32), np.array([0, 0, 5]), config)

    assert made.codes[:, 0].tolist() == [2, 0, 1]
    assert (made.moved, made.extra, made.left) == (2, 0, 0)


def test_extra_codes_number_by_rank() -> None:
    """The codes stay as quantized; the popular item of a group is number 0, an item alone has no number."""
    quantizer = Quantizer("residual_kmeans", torch.tensor([[[0.0], [9.0]]]))
    codes = np.array([[0], [0], [1]], dtype=np.int32)
    config = CodebookConfig(collision_policy="extra_code")
    made = resolve(quantizer, torch.tensor([[0.0], [0.0], [9.0]]), codes, np.array([1, 7, 0]), config)

    assert made.codes.tolist() == [[0, 1], [0, 0], [1, PAD]]
    assert (made.moved, made.extra, made.left) == (0, 2, 0)
