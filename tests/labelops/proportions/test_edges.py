"""Oracles: pairs by hand and by sets."""

import numpy as np
import pytest

from labelops.proportions import edges as e


def test_neighbours__every_pair_is_there_once_with_its_larger_weight():
    rng = np.random.default_rng(0)
    indices = rng.integers(-1, 30, (30, 4))
    weights = rng.random((30, 4))
    want: dict[tuple[int, int], float] = {}
    for i in range(30):
        for j, w in zip(indices[i], weights[i], strict=True):
            if j >= 0 and j != i:
                pair = (min(i, j), max(i, j))
                want[pair] = max(want.get(pair, 0.0), w)
    edges = e.edges_of_neighbours(indices, weights)
    assert list(zip(edges.first, edges.second, strict=True)) == sorted(want)
    assert edges.weight.tolist() == [want[pair] for pair in sorted(want)]


def test_neighbours__missing_ones_itself_and_weight_nought_make_no_edge():
    indices = np.array([[0, 1], [-1, 0], [1, -1]])
    weights = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    edges = e.edges_of_neighbours(indices, weights)
    assert (edges.first.tolist(), edges.second.tolist(), edges.weight.tolist()) == ([1], [2], [0.5])
    assert len(e.edges_of_neighbours(np.empty((0, 5), int), np.empty((0, 5))).first) == 0


def test_degree__normalised_matrix_has_largest_eigenvalue_of_the_strength():
    # D^−½ W D^−½ has the eigenvalue 1 at √d, which no other exceeds.
    rng = np.random.default_rng(1)
    edges = e.edges_of_neighbours(rng.integers(0, 20, (20, 5)), rng.random((20, 5)) + 0.1)
    scaled = e.normalise_by_degree(edges, n_items=20, strength=3.0)
    matrix = np.zeros((20, 20))
    matrix[scaled.first, scaled.second] = matrix[scaled.second, scaled.first] = scaled.weight
    assert np.linalg.eigvalsh(matrix)[-1] == pytest.approx(3.0)


def test_inbox__lists_both_directions_and_the_way_back():
    rng = np.random.default_rng(2)
    edges = e.edges_of_neighbours(rng.integers(0, 12, (12, 3)), rng.random((12, 3)))
    inbox = e.inbox_of(edges, n_items=12)
    target = np.repeat(np.arange(12), np.diff(inbox.start))
    assert (inbox.source[inbox.reverse] == target).all()
    assert (target[inbox.reverse] == inbox.source).all()
    assert (inbox.weight[inbox.reverse] == inbox.weight).all()
    pairs = set(zip(edges.first, edges.second, strict=True))
    assert len(target) == 2 * len(pairs)
    assert {(min(p), max(p)) for p in zip(target, inbox.source, strict=True)} == pairs


@pytest.mark.parametrize(
    ("first", "second", "weight", "why"),
    [
        ([0], [3], [1.0], "0 ≤ first < second < 3"),
        ([1], [0], [1.0], "first < second"),
        ([1], [1], [1.0], "first < second"),
        ([0, 0], [1, 1], [1.0, 1.0], "twice"),
        ([0], [1], [-1.0], "not negative"),
        ([0], [1], [np.nan], "finite"),
    ],
)
def test_inbox__refuses_edges_that_are_none(first, second, weight, why):
    edges = e.Edges(np.array(first), np.array(second), np.array(weight))
    with pytest.raises(ValueError, match=why):
        e.inbox_of(edges, n_items=3)


def test_neighbours__that_are_no_items_are_refused():
    with pytest.raises(ValueError, match="must be items"):
        e.edges_of_neighbours(np.array([[1], [2]]), np.ones((2, 1)))
    with pytest.raises(ValueError, match="finite"):
        e.edges_of_neighbours(np.array([[1], [0]]), np.full((2, 1), np.nan))
