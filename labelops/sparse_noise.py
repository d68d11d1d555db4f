"""P(given | true) of many classes: the pairs that occur, and the floor that all others stand on."""

# N items, K classes, P pairs, C candidates

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from labelops.belief import FLOOR, Noise, sound_noise
from labelops.confident.sparse_joint import at, entries
from labelops.ragged import spans


@dataclass(frozen=True)
class SparseNoise:
    """A sound noise matrix, of which most entries are the floor of their column.

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


def sound_sparse_noise(noise: sparse.csr_array) -> SparseNoise:
    """Return a noise matrix that can be divided by, as `labelops.belief.sound_noise` does.

    Of a column in which nothing is listed every row is as probable, as there. Sums of columns are
    rounded otherwise than dense ones: by some 10⁻¹⁶.

    Examples
    --------
    >>> matrix = np.array([[0.9, 0.0], [0.1, 0.0]])
    >>> noise = sound_sparse_noise(sparse.csr_array(matrix))
    >>> noise[np.array([0, 1])].round(3).tolist()
    [[0.9, 0.5], [0.1, 0.5]]
    """
    n_classes = noise.shape[0]
    row, column, values = entries(noise)
    row, column, values = row[values > 0], column[values > 0], values[values > 0]
    values = np.maximum(values, FLOOR)
    n_listed = np.bincount(column, minlength=n_classes)
    total = np.bincount(column, values, minlength=n_classes) + FLOOR * (n_classes - n_listed)
    listed = sparse.coo_array((values / total[column], (row, column)), shape=noise.shape)
    return SparseNoise(FLOOR / total, sparse.csr_array(listed))


def sound(noise: np.ndarray | sparse.csr_array) -> Noise:
    """Return a noise matrix that can be divided by, dense or sparse as it comes."""
    return sound_sparse_noise(noise) if isinstance(noise, sparse.csr_array) else sound_noise(noise)
