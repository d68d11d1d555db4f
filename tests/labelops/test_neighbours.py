"""Oracles: scikit-learn's brute force, cleanlab's Datalab, planted copies and outliers."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from labelops.duplicates import (
    Copies,
    convincing_edges,
    digest_rows,
    group_copies,
    growth,
    has_conflict,
    near_edges,
    near_limit,
    sets_of,
)
from labelops.fast.neighbours import find_neighbours
from labelops.neighbours import (
    distance,
    metric_for,
    nearest,
    outlier_limit,
    outlier_scores,
    prepare,
    with_copies,
)


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    # Hash-like order: the index takes the first rows as a sample.
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), y[order]


@pytest.mark.parametrize(("n_dims", "metric"), [(2, "euclidean"), (3, "euclidean"), (8, "cosine")])
def test_nearest__agrees_with_scikit_learn(n_dims, metric):
    x = np.random.default_rng(n_dims).normal(size=(300, n_dims))
    assert metric_for(n_dims) == metric
    want, at = (
        NearestNeighbors(n_neighbors=10, metric=metric, algorithm="brute").fit(x).kneighbors()
    )
    neighbours = nearest(x)
    np.testing.assert_array_equal(neighbours.indices, at)
    np.testing.assert_allclose(neighbours.distances, want, atol=1e-12)


@pytest.mark.parametrize(
    ("metric", "n_dims"), [("euclidean", 1), ("euclidean", 3), ("cosine", 7), ("cosine", 64)]
)
def test_find_neighbours__equals_comparing_all_pairs(metric, n_dims):
    x = np.random.default_rng(n_dims).normal(size=(500, n_dims)).astype(np.float32)
    fast = find_neighbours(x, k=10, metric=metric)
    slow = nearest(x, k=10, metric=metric)
    np.testing.assert_array_equal(fast.neighbours.indices, slow.indices)
    # Sums in another order: some units in the last place.
    np.testing.assert_allclose(fast.neighbours.distances, slow.distances, rtol=1e-12, atol=1e-16)
    assert fast.recall == 1


def test_find_neighbours__is_symmetric_and_exact_on_pictures_with_ties():
    x = digits()[0][:600]
    x[3] = 0
    x[7] = x[8]
    fast = find_neighbours(x, k=10, metric="cosine").neighbours
    slow = nearest(x, k=10, metric="cosine")
    np.testing.assert_allclose(fast.distances, slow.distances, rtol=1e-12, atol=1e-16)
    assert fast.distances[7, 0] == 0
    assert fast.indices[7, 0] == 8
    assert (fast.distances[3] == 1).all()
    both = {(i, j): d for i in range(600) for j, d in zip(*[f[i] for f in fast], strict=True)}
    assert all(both[j, i] == d for (i, j), d in both.items() if (j, i) in both)


def test_find_neighbours__fewer_items_than_neighbours():
    x = np.eye(4, dtype=np.float32)[:3]
    neighbours = find_neighbours(x, k=10, metric="cosine").neighbours
    assert (neighbours.indices[:, 2:] == -1).all()
    assert (np.sort(neighbours.indices[:, :2], axis=1) == [[1, 2], [0, 2], [0, 1]]).all()
    assert np.isinf(neighbours.distances[:, 2:]).all()
    one = find_neighbours(x[:1], k=10, metric="cosine").neighbours
    assert (one.indices == -1).all()


@pytest.mark.parametrize("n_dims", [16, 96])
def test_find_neighbours__inverted_file_measures_its_recall(n_dims):
    rng = np.random.default_rng(n_dims)
    centres = rng.normal(size=(40, n_dims))
    x = (centres[rng.integers(0, 40, 6000)] + 0.3 * rng.normal(size=(6000, n_dims))).astype("f4")
    x[4000:4050] = x[:50] * np.float32(1.0001) + np.float32(1e-5)
    search = find_neighbours(x, k=10, metric="cosine", flat_limit=1000)
    twice = find_neighbours(x, k=10, metric="cosine", flat_limit=1000, n_threads=3)
    np.testing.assert_array_equal(search.neighbours.indices, twice.neighbours.indices)
    np.testing.assert_array_equal(search.neighbours.distances, twice.neighbours.distances)
    rows = np.arange(200)
    at = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(x)
    true = at.kneighbors(x[rows], return_distance=False)
    hits = [
        len(np.intersect1d(true[i][true[i] != i][:10], search.neighbours.indices[i])) for i in rows
    ]
    assert search.recall == pytest.approx(np.mean(hits) / 10, abs=0.01)
    assert search.recall > 0.5
    # What matters most is nearest: copies lie in the same cell.
    assert (search.neighbours.indices[:50, 0] == np.arange(4000, 4050)).mean() > 0.95


def test_distance__is_symmetric_and_exactly_zero_between_equal_vectors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000, 37)).astype(np.float32)
    pa, pb = prepare(a, metric="cosine"), prepare(b, metric="cosine")
    np.testing.assert_array_equal(
        distance(pa, pb, metric="cosine"), distance(pb, pa, metric="cosine")
    )
    assert (distance(pa, pa.copy(), metric="cosine") == 0).all()
    cos = np.sum(a.astype(float) * b, axis=1) / np.linalg.norm(a.astype(float), axis=1)
    cos /= np.linalg.norm(b.astype(float), axis=1)
    np.testing.assert_allclose(distance(pa, pb, metric="cosine"), 1 - cos, atol=1e-12)


def test_distance__of_a_zero_vector_is_one_to_all_others_and_zero_to_itself():
    z = prepare(np.array([[0.0, 0, 0, 0], [1, 2, 3, 4]]), metric="cosine")
    assert distance(z[0], z[1], metric="cosine") == 1
    assert distance(z[0], z[0], metric="cosine") == 0


@pytest.mark.parametrize("seed", range(5))
def test_with_copies__equals_brute_force_over_all_items(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(25, 5))
    which = np.concatenate([np.arange(25), rng.integers(0, 6, 30)])
    items = vectors[which]
    k = 10
    copies = group_copies(digest_rows(items))
    reps = items[copies.first]
    neighbours = nearest(reps, k=k)
    often = np.bincount(copies.vector_of_item)
    own = with_copies(neighbours, often, k=k)[copies.vector_of_item]
    some = with_copies(neighbours, often, k=k, rows=slice(3, 9))
    np.testing.assert_array_equal(some, with_copies(neighbours, often, k=k)[3:9])
    np.testing.assert_array_equal(own, nearest(items, k=k).distances)


def test_outliers_and_near_duplicates__are_those_of_cleanlab_on_digits():
    Datalab = pytest.importorskip("cleanlab").Datalab
    x, y = digits()
    # Planted: copies, a nearly equal pair, noise.
    x[10], x[11] = x[500], x[501] + np.float32(0.01)
    x[20] = np.random.default_rng(0).permutation(x[20])
    lab = Datalab(data={"y": y}, label_name="y", verbosity=0)
    lab.find_issues(
        features=x.astype(np.float64), issue_types={"outlier": {}, "near_duplicate": {}}
    )
    theirs = lab.get_issues()
    neighbours = find_neighbours(x, k=10, metric="cosine").neighbours
    mean = neighbours.distances.mean(axis=1)
    # Theirs are from 1 − ⟨a, b⟩.
    np.testing.assert_allclose(outlier_scores(mean), theirs["outlier_score"], atol=1e-9)
    np.testing.assert_array_equal(mean > outlier_limit(mean), theirs["is_outlier_issue"])
    assert theirs["is_outlier_issue"].sum() > 10

    copies = group_copies(digest_rows(x))
    assert len(copies.first) == len(x) - 1
    unique = find_neighbours(x[copies.first], k=10, metric="cosine").neighbours
    first = with_copies(unique, np.bincount(copies.vector_of_item), k=1)[copies.vector_of_item]
    sets = sets_of(copies, near_edges(unique, limit=near_limit(first[:, 0])))
    np.testing.assert_array_equal(sets >= 0, theirs["is_near_duplicate_issue"])
    assert sets[[10, 500, 11, 501]].tolist() == [10, 10, 11, 11]


def conflicts(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    copies = group_copies(digest_rows(x))
    unique = find_neighbours(x[copies.first], k=10, metric="cosine").neighbours
    first = with_copies(unique, np.bincount(copies.vector_of_item), k=1)[copies.vector_of_item]
    limit = near_limit(first[:, 0])
    return has_conflict(sets_of(copies, convincing_edges(unique, limit=limit)), y)


def test_conflicts__none_on_digits_and_all_that_are_planted():
    x, y = digits()
    assert not conflicts(x, y).any()
    rng = np.random.default_rng(1)
    planted, wrong = np.arange(0, 60), (y[1000:1060] + 1) % 10
    x[planted], y[planted] = x[1000:1060], wrong
    # A third exact, a third brighter, a third with noise far below the grain of the data.
    x[20:40] *= np.float32(1.2)
    x[40:60] += rng.normal(0, 0.1, (20, 64)).astype(np.float32)
    assert np.flatnonzero(conflicts(x, y)).tolist() == [*range(60), *range(1000, 1060)]


def test_conflicts__dense_region_has_none():
    # Low-contrast items: a fifth of the data lies a hundred times closer together than the rest.
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 32))
    x[:400] = 1 + 0.001 * rng.normal(size=(400, 32))
    y = rng.integers(0, 10, 2000)
    copies = group_copies(digest_rows(x))
    unique = find_neighbours(x, k=10, metric="cosine").neighbours
    limit = near_limit(unique.distances[:, 0])
    assert has_conflict(sets_of(copies, near_edges(unique, limit=limit)), y)[:400].mean() > 0.9
    assert not conflicts(x, y).any()


@pytest.mark.parametrize("n_dims", [2, 4, 6, 12])
def test_conflicts__hardly_one_by_chance_in_few_dimensions(n_dims):
    rng = np.random.default_rng(n_dims)
    x = rng.normal(size=(3000, n_dims)).astype(np.float32)
    neighbours = find_neighbours(x, k=10, metric=metric_for(n_dims)).neighbours
    # Directions in n dimensions are a surface of n − 1, and 1 − cos grows with the angle squared.
    want = n_dims if n_dims <= 3 else (n_dims - 1) / 2
    assert growth(neighbours) == pytest.approx(want, rel=0.25)
    edges = convincing_edges(neighbours, limit=near_limit(neighbours.distances[:, 0]))
    # 0.3 expected at most.
    assert len(edges.a) <= 2


def test_copies__more_of_them_than_neighbours_are_one_set():
    x = np.random.default_rng(3).normal(size=(60, 8))
    x[5:45] = x[5]
    copies = group_copies(digest_rows(x))
    sets = sets_of(copies, near_edges(nearest(x[copies.first]), limit=0.0))
    assert (sets[5:45] == 5).all()
    assert (np.delete(sets, np.arange(5, 45)) == -1).all()


def test_digest_rows__minus_zero_is_zero():
    digests = digest_rows(np.array([[0.0, 1.0], [-0.0, 1.0]]))
    assert (digests[0] == digests[1]).all()


def test_sets__of_nobody():
    copies = group_copies(digest_rows(np.zeros((0, 3))))
    neighbours = find_neighbours(np.zeros((0, 4), np.float32), k=10, metric="cosine").neighbours
    assert isinstance(copies, Copies)
    assert len(sets_of(copies, near_edges(neighbours, limit=1.0))) == 0
    assert len(outlier_scores(np.zeros(0))) == 0
    assert outlier_limit(np.zeros(0)) == np.inf
