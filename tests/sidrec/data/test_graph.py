"""The co-occurrence graph counts what was bought together, and smoothing follows it."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data import graph

ITEMS = ["a", "b", "c", "d", "e"]
INDEX = {item: index for index, item in enumerate(ITEMS)}


def table(baskets: list[list[str]], users: list[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": users or ["u"] * len(baskets),
            "day": [date(2010, 1, 1) + timedelta(days=row) for row in range(len(baskets))],
            "item_ids": baskets,
        },
        schema_overrides={"item_ids": pl.List(pl.String)},
    )


def counted(incidence: scipy.sparse.csr_array) -> np.ndarray:
    """Return the plain co-occurrence counts, without the diagonal."""
    dense = incidence.toarray()
    counts = dense.T @ dense
    np.fill_diagonal(counts, 0)
    return counts


def normalised(counts: np.ndarray) -> np.ndarray:
    degrees = counts.sum(axis=1)
    root = np.array([1 / degree**0.5 if degree else 0.0 for degree in degrees])
    return root[:, None] * counts * root[None, :]


def test_baskets_are_the_windows() -> None:
    """One row a basket, unknown items left out, an item once a window."""
    incidence = graph.basket_windows(table([["a", "b", "zz"], ["b", "b", "c"], []]), INDEX)

    assert incidence.toarray().tolist() == [[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


@given(
    st.lists(
        st.tuples(st.sampled_from(["u", "v"]), st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4)),
        min_size=1,
        max_size=6,
    ),
    st.integers(2, 7),
)
@settings(max_examples=100, deadline=None)
def test_event_windows_agree_with_sliding_by_hand(baskets: list[tuple[str, list[str]]], window: int) -> None:
    """Per user and centre event: the set of items at most window // 2 events away."""
    events: dict[str, list[str]] = {}
    for user, items in baskets:
        events.setdefault(user, []).extend(items)
    expected = []
    for user in sorted(events):
        for centre in range(len(events[user])):
            near = events[user][max(0, centre - window // 2) : centre + window // 2 + 1]
            expected.append([1.0 if item in near else 0.0 for item in ITEMS])

    rows = table([items for _, items in baskets], [user for user, _ in baskets])
    assert graph.event_windows(rows, INDEX, window).toarray().tolist() == expected


def test_the_graph_is_the_normalised_count_matrix() -> None:
    """With room for all neighbours, Â equals D^-½ A D^-½ computed densely."""
    incidence = graph.basket_windows(table([["a", "b"], ["a", "b", "c"], ["c", "d"], ["a"]]), INDEX)

    found = graph.cooccurrence_graph(incidence, 10).toarray()

    np.testing.assert_allclose(found, normalised(counted(incidence)), atol=1e-12)
    assert not found[4].any()


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_the_cap_keeps_each_items_strongest_edges(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Against a plain loop: top M by count / root of window counts, an edge kept if either end keeps it."""
    monkeypatch.setattr(graph, "_BLOCK", block)
    random = np.random.default_rng(0)
    incidence = scipy.sparse.csr_array((random.random((60, 12)) < 0.3).astype(float))
    counts, sizes = counted(incidence), incidence.sum(axis=0)
    kept = np.zeros_like(counts, dtype=bool)
    for item in range(12):
        strength = counts[item] / np.sqrt(sizes[item] * sizes)
        for other in sorted(np.flatnonzero(counts[item]), key=lambda other: (-strength[other], other))[:3]:
            kept[item, other] = kept[other, item] = True

    found = graph.cooccurrence_graph(incidence, 3).toarray()

    np.testing.assert_allclose(found, normalised(np.where(kept, counts, 0)), atol=1e-12)


@given(st.floats(0.01, 1), st.integers(0, 8))
def test_smoothing_weights_are_a_falling_distribution(alpha: float, steps: int) -> None:
    """β sums to 1 and each step weighs (1-α) times the one before."""
    weights = graph.smoothing_weights(alpha, steps)

    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[1:], (1 - alpha) * weights[:-1], atol=1e-12)


def test_without_edges_or_steps_the_vectors_stay() -> None:
    """H_align is X, brought to unit length, when the graph is empty or there are no steps."""
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    empty = graph.cooccurrence_graph(graph.basket_windows(table([["a"]]), INDEX), 5)
    full = graph.cooccurrence_graph(graph.basket_windows(table([ITEMS]), INDEX), 5)

    np.testing.assert_allclose(graph.smooth(vectors, empty, alpha=0.3, steps=3), units, rtol=1e-6)
    np.testing.assert_allclose(graph.smooth(vectors, full, alpha=0.3, steps=0), units, rtol=1e-6)
    np.testing.assert_allclose(graph.smooth(vectors, full, alpha=1.0, steps=3), units, rtol=1e-6)


def test_smoothing_agrees_with_the_recursion() -> None:
    """H(k) = (1-α) Â H(k-1) + α X and H_align = Σ β_k H(k), computed densely; an isolated item keeps its vector."""
    vectors = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    edges = graph.cooccurrence_graph(graph.basket_windows(table([["a", "b"], ["b", "c", "d"]]), INDEX), 5)
    content = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    states = [content]
    for _ in range(2):
        states.append(0.7 * edges.toarray() @ states[-1] + 0.3 * content)
    shares = np.array([0.3, 0.3 * 0.7, 0.3 * 0.49])
    expected = sum(share * state for share, state in zip(shares / shares.sum(), states, strict=True))
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)

    found = graph.smooth(vectors, edges, alpha=0.3, steps=2)

    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found[4], content[4], rtol=1e-6)


def test_a_vector_of_zeros_borrows_from_its_neighbours_only() -> None:
    """An item without text gets its neighbours' direction; without neighbours it stays zero, and nothing is nan."""
    vectors = np.array([[1, 0], [0, 0], [0, 1], [0, 0], [1, 1]], dtype=np.float32)
    edges = graph.cooccurrence_graph(graph.basket_windows(table([["a", "b"]]), INDEX), 5)
    found = graph.smooth(vectors, edges, alpha=0.5, steps=1)

    np.testing.assert_allclose(found[1], [1, 0], atol=1e-6)
    assert found[3].tolist() == [0, 0]


def test_the_config_chooses_the_windows() -> None:
    """Single-item baskets co-occur by events, not by baskets."""
    rows = table([["a"], ["b"], ["a"], ["b"]])
    by_basket = graph.item_graph(rows, ITEMS, windows="baskets", window=5, max_neighbours=20)
    by_event = graph.item_graph(rows, ITEMS, windows="events", window=3, max_neighbours=20)

    assert by_basket.nnz == 0
    assert by_event.toarray()[0, 1] == pytest.approx(1)
