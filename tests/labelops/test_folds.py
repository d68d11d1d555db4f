"""Oracles: counting by brute force, and the balance that scikit-learn's StratifiedKFold reaches."""

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from labelops.folds import assign, finish, n_bins, summarize
from labelops.hashing import hash_integers


def folds_of(labels: np.ndarray, hashes: np.ndarray, n_classes: int, n_folds: int) -> np.ndarray:
    counts = summarize(labels, hashes, n_classes=n_classes)
    return assign(labels, hashes, finish(counts, n_folds=n_folds))


def items(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    skewed = rng.dirichlet(np.full(n_classes, 0.5))
    return rng.choice(n_classes, n, p=skewed), hash_integers(np.arange(n))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_folds__every_class_is_balanced_but_for_one_bin(n_folds: int, seed: int) -> None:
    labels, hashes = items(seed, 20_000, 12)
    fold = folds_of(labels, hashes, 12, n_folds)
    fullest = summarize(labels, hashes, n_classes=12).max(axis=1)
    for k in range(12):
        sizes = np.bincount(fold[labels == k], minlength=n_folds)
        assert np.abs(sizes - sizes.sum() / n_folds).max() <= fullest[k] + 1


@pytest.mark.parametrize("seed", range(3))
def test_folds__are_nearly_as_balanced_as_stratified_k_fold(seed: int) -> None:
    labels, hashes = items(seed, 5_000, 8)
    fold = folds_of(labels, hashes, 8, 5)
    rare = np.bincount(labels, minlength=8) < 5
    use = ~rare[labels]
    theirs = np.empty(use.sum(), np.int64)
    split = StratifiedKFold(5, shuffle=True, random_state=seed)
    for f, (_, test) in enumerate(split.split(np.zeros(use.sum()), labels[use])):
        theirs[test] = f
    for k in np.flatnonzero(~rare):
        ours_n = np.bincount(fold[labels == k], minlength=5)
        theirs_n = np.bincount(theirs[labels[use] == k], minlength=5)
        # Theirs differ by one item at most; ours by the items that share a bin with a boundary.
        assert np.abs(np.sort(ours_n) - np.sort(theirs_n)).max() <= 0.01 * ours_n.sum() + 2


def test_folds__classes_of_one_item_are_spread_over_all_folds() -> None:
    labels = np.arange(1_000)
    fold = folds_of(labels, hash_integers(labels), 1_000, 5)
    assert np.bincount(fold).tolist() == [200] * 5


@for_all(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 6))
def test_folds__do_not_depend_on_order_or_shards(seed: int, n: int, shards: int) -> None:
    rng = np.random.default_rng(seed)
    labels, hashes = rng.integers(0, 3, n), rng.integers(0, 2**64, n, dtype=np.uint64)
    whole = folds_of(labels, hashes, 3, 4)
    order = rng.permutation(n)
    parts = np.array_split(order, shards)
    counts = sum(summarize(labels[part], hashes[part], n_classes=3) for part in parts)
    assert np.array_equal(counts, summarize(labels, hashes, n_classes=3))
    fold_of = finish(np.asarray(counts), n_folds=4)
    for part in parts:
        assert np.array_equal(assign(labels[part], hashes[part], fold_of), whole[part])


def test_folds__summary_counts_what_a_loop_counts() -> None:
    labels, hashes = items(5, 500, 3)
    expected = np.zeros((3, n_bins(3)), np.int64)
    for label, item_hash in zip(labels.tolist(), hashes.tolist(), strict=True):
        expected[label, (item_hash >> 32) * n_bins(3) // 2**32] += 1
    assert np.array_equal(summarize(labels, hashes, n_classes=3), expected)


@pytest.mark.parametrize("extreme", [0, 2**64 - 1, 2**63])
def test_folds__extreme_hashes_have_a_fold(extreme: int) -> None:
    fold = folds_of(np.zeros(1, np.int64), np.array([extreme], np.uint64), 1, 5)
    assert 0 <= fold[0] < 5


def test_folds__no_items_have_no_folds() -> None:
    none = np.empty(0, np.int64)
    assert folds_of(none, none.astype(np.uint64), 3, 5).shape == (0,)


@pytest.mark.parametrize("n_folds", [0, 1, 128])
def test_folds__a_number_out_of_range_is_refused(n_folds: int) -> None:
    with pytest.raises(ValueError, match=f"^n_folds must be between 2 and 127, got {n_folds}; out"):
        finish(np.ones((2, 64), np.int64), n_folds=n_folds)
