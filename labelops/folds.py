"""Folds from the hash of the item's id: stratified, and the same however the data is cut.

Items of a class are laid out by their hash, cut into many narrow bins, and whole bins are dealt to
folds. Counts per class and bin are all that has to be known about the data, and they add up.
"""

import numpy as np

# N items, K classes, B bins, F folds

MIN_BINS, MAX_BINS = 64, 1024
TABLE_CELLS = 1 << 22
"""Classes × bins stay below it, so that the counts of one shard are at most 32 MiB."""


def n_bins(n_classes: int) -> int:
    """Return how many bins the hashes of a class are counted in.

    Examples
    --------
    >>> n_bins(10), n_bins(10_000), n_bins(1_000_000)
    (1024, 419, 64)
    """
    return int(np.clip(TABLE_CELLS // max(n_classes, 1), MIN_BINS, MAX_BINS))


def _bin_of(item_hash: np.ndarray, bins: int) -> np.ndarray:
    # The upper 32 bits times the number of bins: equal parts for any number, not only powers of 2.
    upper = item_hash >> np.uint64(32)
    return np.asarray((upper * np.uint64(bins)) >> np.uint64(32)).astype(np.int64)


def summarize(given: np.ndarray, item_hash: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Count the items of each class (ids in 0…K−1) by the leading bits of their hash (uint64).

    Returns
    -------
    int64, shape (K, B) with B = `n_bins(K)`. Counts of two shards add up to those of both.

    Examples
    --------
    >>> counts = summarize(np.array([0, 1, 1]), np.array([0, 0, 2**64 - 1], np.uint64), n_classes=2)
    >>> counts.shape, counts[:, [0, -1]].tolist()
    ((2, 1024), [[1, 0], [1, 1]])
    """
    bins = n_bins(n_classes)
    cell = given.astype(np.int64) * bins + _bin_of(item_hash, bins)
    counts = np.bincount(cell, minlength=n_classes * bins)
    return counts.reshape(n_classes, bins).astype(np.int64)


def finish(counts: np.ndarray, *, n_folds: int) -> np.ndarray:
    """Deal the bins of every class to folds.

    A bin whose middle item is the j-th of the n_k items of class k goes to fold ⌊j F / n_k⌋, moved
    round by k so that classes with fewer items than folds do not all land in the same ones.

    `counts` are the merged ones of `summarize`, shape (K, B), 2 ≤ F ≤ 127.

    Returns
    -------
    int8, shape (K, B): the fold of each class and bin.

    Raises
    ------
    ValueError
        If the number of folds is out of range.

    Notes
    -----
    A fold has n_k / F items of class k, give or take the items in one bin. Integers only.

    Examples
    --------
    >>> finish(np.array([[1, 1, 1, 1], [1, 1, 1, 1]]), n_folds=2).tolist()
    [[0, 0, 1, 1], [1, 1, 0, 0]]
    """
    if not 2 <= n_folds <= 127:
        raise ValueError(
            f"n_folds must be between 2 and 127, got {n_folds}; out-of-sample predictions need "
            "at least two folds"
        )
    totals = counts.sum(axis=1, keepdims=True)
    twice_middle = 2 * np.cumsum(counts, axis=1) - counts
    fold = twice_middle * n_folds // np.maximum(2 * totals, 1)
    # An empty bin at the very end would come out as fold F.
    fold = np.minimum(fold, n_folds - 1) + np.arange(len(counts))[:, None]
    return np.asarray(fold % n_folds).astype(np.int8)


def assign(given: np.ndarray, item_hash: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Return the fold of each item, given what `finish` gave; int8, shape (N,), in 0…F−1.

    Examples
    --------
    >>> assign(np.array([0, 0]), np.array([0, 2**63], np.uint64), np.array([[0, 1]], np.int8))
    array([0, 1], dtype=int8)
    """
    return np.asarray(fold_of[given, _bin_of(item_hash, fold_of.shape[1])])
