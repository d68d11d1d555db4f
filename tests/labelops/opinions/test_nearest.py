"""Votes of the nearest references, against scikit-learn's and against a loop."""

import itertools

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from labelops.fast.neighbours import Voters
from labelops.opinions.nearest import N_VOTERS, n_references, refer


def blobs(n: int, n_dims: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of unequal scales, and classes."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, n_classes, n)
    centre = rng.normal(0, 1.5, (n_classes, n_dims))
    scale = rng.uniform(0.1, 30, n_dims)
    x = (centre[given] + rng.normal(size=(n, n_dims))) * scale + 100
    return x.astype(np.float32), given


@pytest.mark.parametrize(("n_dims", "n_classes"), [(1, 2), (5, 3), (40, 10)])
def test_votes_are_those_of_scikit_learn_without_the_item_itself(
    n_dims: int, n_classes: int
) -> None:
    x, given = blobs(300, n_dims, n_classes)
    hashes = np.arange(300, dtype=np.uint64)
    found = Voters(refer(x, given, hashes), n_classes=n_classes).votes(x, hashes)
    exact = x.astype(np.float64)
    ready = (exact - exact.mean(axis=0)) / exact.std(axis=0)
    expected = np.empty((300, n_classes))
    for i in range(300):
        others = np.delete(np.arange(300), i)
        model = KNeighborsClassifier(N_VOTERS, algorithm="brute").fit(ready[others], given[others])
        share = np.zeros(n_classes)
        share[model.classes_] = model.predict_proba(ready[i : i + 1])[0]
        expected[i] = (share * N_VOTERS + 1 / n_classes) / (N_VOTERS + 1)
    assert found == pytest.approx(expected, abs=1e-6)


def test_votes_do_not_depend_on_how_items_are_cut() -> None:
    x, given = blobs(3000, 20, 4)
    hashes = np.arange(3000, dtype=np.uint64)
    voters = Voters(refer(x[:2000], given[:2000], hashes[:2000]), n_classes=4)
    whole = voters.votes(x, hashes)
    cuts = [0, 1, 7, 300, 1999, 3000]
    parts = [voters.votes(x[a:b], hashes[a:b]) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_a_copy_votes_but_not_the_item_itself() -> None:
    x = np.array([[0.0], [0.0], [9.0]])
    votes = Voters(refer(x, np.array([1, 0, 2]), np.arange(3)), n_classes=3).votes(
        x, np.arange(3).astype(np.uint64)
    )
    # Two others each: (1 + 1/3) / 3, and (0 + 1/3) / 3 for its own class.
    assert votes[0] == pytest.approx([4 / 9, 1 / 9, 4 / 9])
    assert votes[1] == pytest.approx([1 / 9, 4 / 9, 4 / 9])


@pytest.mark.parametrize("n", [0, 1])
def test_nobody_to_ask_knows_nothing(n: int) -> None:
    x = np.zeros((n, 3), np.float32)
    hashes = np.arange(n).astype(np.uint64)
    voters = Voters(refer(x, np.zeros(n, np.int64), hashes), n_classes=4)
    assert voters.votes(np.zeros((1, 3)), np.zeros(1, np.uint64)).tolist() == [[0.25] * 4]
    assert voters.votes(x[:0], hashes[:0]).shape == (0, 4)


def test_constant_features_and_large_offsets_are_harmless() -> None:
    x, given = blobs(100, 3, 2)
    odd = np.concatenate([x, np.full((100, 1), 0.1, np.float32), 1e6 + x[:, :1]], axis=1)
    references = refer(odd, given, np.arange(100))
    assert references.std[3] == 1.0
    assert np.isfinite(references.vectors).all()
    assert np.abs(references.vectors[:, 3]).max() < 1e-6


def test_wide_tables_have_fewer_references() -> None:
    assert n_references(10_000) * 10_000 * 4 <= 64 * 2**20
    assert n_references(10**9) == 1
