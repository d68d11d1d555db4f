"""Joint counts of many classes, of which most pairs have no item.

K × K numbers are 3 GB for 20 000 classes, however few items there are. Here only the pairs that
occur are held, and every function says what its namesake in `joint`, `latent` or `prune` says, with
the same bits: operations and their order are the same, and sums of floats are taken along the tree
of `numpy.sum`, zeros left out.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from labelops.confident import joint as dense
from labelops.confident.joint import TINY
from labelops.confident.latent import MAX_NOISE_RATE, Latent, prior_of
from labelops.confident.prune import check_settings
from labelops.pairwise import row_sums
from labelops.ragged import owners

# K classes, P pairs with items

DENSE_CLASSES = 1024
"""Up to so many classes all pairs are held: 8 MB a matrix, and faster than lists of pairs."""


class PairCounts(NamedTuple):
    """How often ordered pairs of classes occur; of those that do.

    Attributes
    ----------
    key : given class · K + guess, ascending, int64, shape (P,).
    n : items, above 0, int64, shape (P,).
    """

    key: np.ndarray
    n: np.ndarray


def count(given: np.ndarray, guess: np.ndarray, *, n_classes: int) -> PairCounts:
    """Count items by given class and confident guess; those without a guess (−1) are left out.

    Examples
    --------
    >>> count(np.array([0, 2, 0, 1]), np.array([2, 2, 2, -1]), n_classes=3)
    PairCounts(key=array([2, 8]), n=array([2, 1]))
    """
    has_guess = guess >= 0
    key = given[has_guess].astype(np.int64) * n_classes + guess[has_guess]
    return PairCounts(*np.unique(key, return_counts=True))


def add(a: PairCounts, b: PairCounts) -> PairCounts:
    """Add the counts of two sets of items; exact, in any order.

    Examples
    --------
    >>> a = PairCounts(np.array([2, 8]), np.array([2, 1]))
    >>> add(a, PairCounts(np.array([8]), np.array([5])))
    PairCounts(key=array([2, 8]), n=array([2, 6]))
    """
    key = np.concatenate([a.key, b.key])
    # Two ascending runs, which a stable sort merges.
    order = np.argsort(key, kind="stable")
    key, n = key[order], np.concatenate([a.n, b.n])[order]
    if not len(key):
        return PairCounts(key, n)
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    return PairCounts(key[first], np.add.reduceat(n, first))


def matrix(pairs: PairCounts, n_classes: int) -> sparse.csr_array:
    """Return counts as a matrix, int64, shape (K, K), rows = given."""
    given, guess = np.divmod(pairs.key, n_classes)
    return _matrix(pairs.n, given, guess, n_classes)


def _matrix(
    values: np.ndarray, row: np.ndarray, column: np.ndarray, n_classes: int
) -> sparse.csr_array:
    """Return a matrix of entries that are in the order of rows and columns."""
    start = np.searchsorted(row, np.arange(n_classes + 1))
    return sparse.csr_array((values, column, start), shape=(n_classes, n_classes))


def entries(joint: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and value of the entries, in this order; ids in int64."""
    return owners(joint.indptr), joint.indices.astype(np.int64), joint.data


def at(joint: sparse.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return what stands at some places, 0 where nothing is listed.

    Examples
    --------
    >>> joint = sparse.csr_array(np.array([[5, 0], [1, 2]]))
    >>> at(joint, np.array([1, 0]), np.array([0, 1])).tolist()
    [1, 0]
    """
    n_classes = joint.shape[1]
    own_row, own_column, values = entries(joint)
    if not len(values):
        return np.zeros(len(row), joint.dtype)
    keys, wanted = own_row * n_classes + own_column, row * n_classes + column
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.asarray(np.where(keys[place] == wanted, values[place], joint.dtype.type(0)))


def confident_joint(counts: sparse.csr_array) -> sparse.csr_array:
    """Return the counts, with at least one right label for every class."""
    return _with_diagonal(counts, np.maximum(counts.diagonal(), 1))


def _with_diagonal(joint: sparse.csr_array, diagonal: np.ndarray) -> sparse.csr_array:
    """Return a matrix with another diagonal; all of it is listed, zeros too."""
    row, column, values = entries(joint)
    n_classes, off = joint.shape[0], row != column
    classes = np.arange(n_classes)
    row = np.concatenate([row[off], classes])
    column = np.concatenate([column[off], classes])
    order = np.argsort(row * n_classes + column)
    values = np.concatenate([values[off], diagonal])[order]
    return _matrix(values, row[order], column[order], n_classes)


def calibrate(joint: sparse.csr_array, n_given: np.ndarray) -> sparse.csr_array:
    """Scale the confident joint so that it counts all items; int64, shape (K, K)."""
    given, true, values = entries(joint)
    n_classes = joint.shape[0]
    scaled = values / np.maximum(joint.sum(axis=1), TINY)[given] * n_given[given]
    # Summed as the columns lie in memory one after the other.
    order = np.argsort(true * n_classes + given)
    one = np.zeros(len(order), np.int64)
    at = (true * n_classes + given)[order]
    [total] = row_sums(scaled[order], one, at, n_rows=1, length=n_classes**2)
    scaled = scaled / np.maximum(total, TINY) * int(n_given.sum())
    return round_rows(_matrix(scaled, given, true, n_classes))


def round_rows(values: sparse.csr_array) -> sparse.csr_array:
    """Round to integers so that every row keeps its rounded sum; int64, zeros left out.

    Notes
    -----
    Where equal remainders compete, a row is written out: which of them comes first is what
    ``numpy.argsort`` says of all of it.
    """
    n_rows, length = values.shape
    row, column, exact = entries(values)
    wanted = row_sums(exact, row, column, n_rows=n_rows, length=length).round()
    rounded = exact.round()
    more_row, more_column, more = [], [], []
    for r in np.flatnonzero(np.bincount(row, rounded, minlength=n_rows) != wanted).tolist():
        at = slice(values.indptr[r], values.indptr[r + 1])
        if _settle(exact[at], rounded[at], wanted[r]):
            continue
        whole, counts = np.zeros(length), np.zeros(length)
        whole[column[at]], counts[column[at]] = exact[at], rounded[at]
        dense.settle_row(whole, counts, target=wanted[r])
        rounded[at] = counts[column[at]]
        counts[column[at]] = 0
        other = np.flatnonzero(counts)
        more_row.append(np.full(len(other), r))
        more_column.append(other)
        more.append(counts[other])
    row, column = np.concatenate([row, *more_row]), np.concatenate([column, *more_column])
    integers = np.concatenate([rounded, *more]).astype(np.int64)
    order = np.argsort(row * length + column)
    order = order[integers[order] != 0]
    return _matrix(integers[order], row[order], column[order], n_rows)


def _settle(exact: np.ndarray, rounded: np.ndarray, target: float) -> bool:
    """Give a row its sum, in place, where no two equal remainders compete; return whether.

    Entries without a remainder, the zeros among them, are never changed: what is missing is no more
    than half the number of entries that were rounded down.
    """
    missing = int(target - rounded.sum())
    remainder = (exact - rounded) * np.sign(missing)
    order = np.argsort(-remainder, kind="stable")
    n = abs(missing)
    last = remainder[order[n - 1]] if n <= len(order) else 0.0
    following = remainder[order[n]] if n < len(order) else 0.0
    if last <= 0 or last == following:
        return False
    rounded[order[:n]] += np.sign(missing)
    return True


def estimate_latent(joint: sparse.csr_array, n_given: np.ndarray) -> Latent:
    """Divide the calibrated joint by its margins."""
    given, true, values = entries(joint)
    n_classes = joint.shape[0]
    of_true, of_given = joint.sum(axis=0), joint.sum(axis=1)
    noise = values / np.maximum(of_true.astype(np.float64), TINY)[true]
    inverse = values / np.maximum(of_given.astype(np.float64), TINY)[given]
    is_right = given == true
    right_given, right_true = np.zeros(n_classes), np.zeros(n_classes)
    right_given[given[is_right]], right_true[true[is_right]] = inverse[is_right], noise[is_right]
    noise = np.where(is_right, noise, np.clip(noise, 0, MAX_NOISE_RATE))
    inverse = np.where(is_right, inverse, np.clip(inverse, 0, MAX_NOISE_RATE))
    # One follows the rows of the joint, the other its columns, as the dense ones lie in memory.
    by_true = np.bincount(true, noise, minlength=n_classes)
    by_given = row_sums(inverse, given, true, n_rows=n_classes, length=n_classes)
    noise = noise / np.maximum(by_true, TINY)[true]
    inverse = inverse / np.maximum(by_given, TINY)[given]
    return Latent(
        _matrix(noise, given, true, n_classes),
        sparse.csr_array(_matrix(inverse, given, true, n_classes).T),
        prior_of(right_given, right_true, n_given),
    )


def prune_counts(
    joint: sparse.csr_array, *, min_examples: int = 1, frac_noise: float = 1.0
) -> sparse.csr_array:
    """Return how many items of each given class belong to each class, keeping some of every class.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    check_settings(min_examples=min_examples, frac_noise=frac_noise)
    n_classes = joint.shape[0]
    n_noise = np.maximum(np.diff(joint.indptr) - 1.0, 1.0)
    own = joint.diagonal()
    diagonal = np.maximum(own, min_examples)
    given, true, values = entries(_with_diagonal(joint, diagonal))
    is_right = given == true
    counts = np.maximum(values - ((diagonal - own) / n_noise)[given], 0.0)
    counts[is_right] = diagonal
    kept = counts * frac_noise
    kept[is_right] = diagonal
    back = row_sums(counts - kept, given, true, n_rows=n_classes, length=n_classes)
    kept[is_right] = diagonal + back
    # Whole numbers, so that there is nothing to round.
    kept_counts = np.trunc(kept).astype(np.int64)
    some = kept_counts != 0
    return _matrix(kept_counts[some], given[some], true[some], n_classes)
