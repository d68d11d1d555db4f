"""P(given | true) of many classes: the pairs that occur, and the floor that all others stand on."""

# N items, K classes, P pairs, C candidates

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from labelops.belief import PRIOR, Noise, noise_at
from labelops.confident.sparse_joint import at, entries
from labelops.ragged import spans


@dataclass(frozen=True)
class SparseNoise:
    """A noise matrix of which most entries are the floor of their column.

    Attributes
    ----------
    floor : what stands in column b where no pair is listed, float64, shape (K,).
    listed : the pairs that occur, float64, shape (K, K), rows = given.
    """

    floor: np.ndarray
    listed: sparse.csr_array

    def __getitem__(self, given: np.ndarray, /) -> np.ndarray:
        """Return P(given_i | ·) of some items, shape (N, K)."""
        rows = np.repeat(self.floor[None, :], len(given), axis=0)
        first = self.listed.indptr[given]
        n = self.listed.indptr[given + np.ones(len(given), np.int64)] - first
        row, entry = spans(first.astype(np.int64), n)
        rows[row, self.listed.indices[entry]] = self.listed.data[entry]
        return rows

    def spread(self, true: np.ndarray) -> np.ndarray:
        """Return P(· | true_i) of some items, shape (N, K)."""
        columns = np.repeat(self.floor[true][:, None], len(self.floor), axis=1)
        by_column = self._by_column
        first = by_column.indptr[true]
        n = by_column.indptr[true + np.ones(len(true), np.int64)] - first
        row, entry = spans(first.astype(np.int64), n)
        columns[row, by_column.indices[entry]] = by_column.data[entry]
        return columns

    @cached_property
    def _by_column(self) -> sparse.csc_array:
        return sparse.csc_array(self.listed)

    def at(self, given: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Return P(given | true) of some pairs; shapes are alike."""
        p_listed = at(self.listed, given.ravel().astype(np.int64), true.ravel().astype(np.int64))
        return np.where(p_listed > 0, p_listed, self.floor[true.ravel()]).reshape(true.shape)

    @cached_property
    def row_sums(self) -> np.ndarray:
        """Σ_b P(given = a | true = b) for every a, float64, shape (K,)."""
        row, column, values = entries(self.listed)
        raised = np.bincount(row, values - self.floor[column], minlength=len(self.floor))
        return np.asarray(self.floor.sum() + raised)

    def likeliest(self, n: int) -> np.ndarray:
        """Return for every given class the n true classes that make it most probable.

        Returns
        -------
        Class ids, int64, shape (K, min(n, K)); most probable first, ties by smaller id.

        Notes
        -----
        Time and memory as K · n and the number of pairs. Among the 2 n highest floors there are
        always enough: where pairs are listed for more than n of them, these pairs are themselves at
        least as high.
        """
        n_classes = len(self.floor)
        n = min(n, n_classes)
        row, column, values = entries(self.listed)
        order = np.lexsort((column, -values, row))
        rank = np.arange(len(order)) - self.listed.indptr[row]
        first = order[rank < n]
        high = np.argsort(-self.floor, kind="stable")[: 2 * n]
        given = np.repeat(np.arange(n_classes), len(high))
        true = np.tile(high, n_classes)
        unlisted = at(self.listed, given, true) == 0
        given = np.concatenate([row[first], given[unlisted]])
        true = np.concatenate([column[first], true[unlisted]])
        value = np.concatenate([values[first], self.floor[true[len(first) :]]])
        order = np.lexsort((true, -value, given))
        given, true = given[order], true[order]
        rank = np.arange(len(given)) - np.searchsorted(given, given)
        return np.asarray(true[rank < n].reshape(n_classes, n))


def sparse_noise_at(rate: np.ndarray, joint: sparse.csr_array) -> SparseNoise:
    """Return what `labelops.belief.noise_at` does, of a joint that lists pairs that occur.

    Sums of columns are rounded otherwise than dense ones: by some 10⁻¹⁶.

    Examples
    --------
    >>> joint = sparse.csr_array(np.array([[9, 1, 0], [2, 5, 0], [0, 0, 8]]))
    >>> noise = sparse_noise_at(np.array([0.1, 0.3, 0.1]), joint)
    >>> noise[np.array([1])].round(3).tolist()
    [[0.083, 0.7, 0.05]]
    """
    n_classes = len(rate)
    row, column, values = entries(joint)
    row, column, values = (x[row != column] for x in (row, column, values))
    total = np.bincount(column, values, minlength=n_classes) + PRIOR * (n_classes - 1)
    unit = rate / np.maximum(total, PRIOR)
    every = np.arange(n_classes)
    own = 1 - rate if n_classes > 1 else np.ones(1)
    listed = sparse.coo_array(
        (
            np.concatenate([(values + PRIOR) * unit[column], own]),
            (np.concatenate([row, every]), np.concatenate([column, every])),
        ),
        shape=joint.shape,
    )
    return SparseNoise(PRIOR * unit, sparse.csr_array(listed))


def noise_of_rate(rate: np.ndarray, joint: np.ndarray | sparse.csr_array) -> Noise:
    """Return P(given | true), dense or sparse as the joint comes."""
    if isinstance(joint, sparse.csr_array):
        return sparse_noise_at(rate, joint)
    return noise_at(rate, joint)
