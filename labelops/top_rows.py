"""Predictions of which only the probable classes are written down.

With 20 000 classes a row of probabilities is 80 kB, of which a handful of numbers says all there
is. A row here lists its k most probable classes; what is left is spread evenly over the others, so
every class has a probability, and whatever is said of such rows is what would be said of them
written out.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from labelops.ragged import offsets, owners, spans

# N items, K classes, M listed probabilities, Q questions


@dataclass(frozen=True)
class TopRows:
    """Rows of probabilities, of which some are listed.

    Attributes
    ----------
    start : the listed ones of item i are start[i]…start[i + 1] − 1; int64, shape (N + 1,).
    ids : their classes, ascending within an item, int64, shape (M,).
    values : their probabilities, float32 or float64, shape (M,).
    rest : probability of each single class that is not listed, of the same type, shape (N,).
    n_classes : K.
    """

    start: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    rest: np.ndarray
    n_classes: int

    def __len__(self) -> int:
        return len(self.rest)

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return len(self.rest), self.n_classes

    @property
    def dtype(self) -> np.dtype:
        """Type of the probabilities."""
        dtype: np.dtype = self.values.dtype
        return dtype

    @property
    def n_listed(self) -> np.ndarray:
        """Number of classes that each item lists, int64, shape (N,)."""
        return np.diff(self.start)

    @property
    def row(self) -> np.ndarray:
        """Item of each listed probability, int64, shape (M,)."""
        return owners(self.start)

    def __getitem__(self, rows: slice | np.ndarray) -> "TopRows":
        """Return some of the items."""
        chosen = np.arange(len(self))[rows]
        sizes = self.n_listed[chosen]
        _, at = spans(self.start[chosen], sizes)
        return TopRows(
            offsets(sizes), self.ids[at], self.values[at], self.rest[chosen], self.n_classes
        )

    def find(self, row: np.ndarray, class_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where some classes of some items are listed, and whether they are.

        Returns
        -------
        Positions (of anything where it is not listed), int64, and bool; shape (Q,) each.
        """
        if not len(self.ids):
            return np.zeros(len(row), np.int64), np.zeros(len(row), bool)
        keys = self.row * self.n_classes + self.ids
        wanted = row.astype(np.int64) * self.n_classes + class_id
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return at, keys[at] == wanted

    def at(self, row: np.ndarray, class_id: np.ndarray) -> np.ndarray:
        """Return the probabilities of some classes of some items; shape (Q,)."""
        at, is_listed = self.find(row, class_id)
        rest = self.rest[row]
        return np.asarray(np.where(is_listed, self.values[at], rest) if len(self.values) else rest)

    def largest(self) -> np.ndarray:
        """Return the largest probability of each row; shape (N,)."""
        has_rest = self.n_listed < self.n_classes
        rest = np.where(has_rest, self.rest, self.dtype.type(-np.inf))
        return np.asarray(np.maximum(largest_of(self.values, self.start), rest))

    def dense(self) -> np.ndarray:
        """Return the rows written out, shape (N, K).

        Examples
        --------
        >>> rows = TopRows(
        ...     np.array([0, 2]), np.array([0, 3]), np.array([0.5, 0.25]), np.array([0.125]), 4)
        >>> rows.dense().tolist()
        [[0.5, 0.125, 0.125, 0.25]]
        """
        whole = np.repeat(self.rest[:, None], self.n_classes, axis=1)
        whole[self.row, self.ids] = self.values
        return whole


def no_rows(n_classes: int, dtype: np.dtype) -> TopRows:
    """Return no items."""
    none, empty = np.zeros(0, np.int64), np.zeros(0, dtype)
    return TopRows(np.zeros(1, np.int64), none, empty, empty, n_classes)


Probs: TypeAlias = np.ndarray | TopRows
"""Rows of probabilities: written out, shape (N, K), or the probable ones of each."""


def largest_of(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the largest value of each run, −∞ of an empty one.

    Examples
    --------
    >>> largest_of(np.array([1.0, 3.0, 2.0]), np.array([0, 2, 2, 3])).tolist()
    [3.0, -inf, 2.0]
    """
    maxima = np.full(len(start) - 1, -np.inf, values.dtype)
    some = np.flatnonzero(np.diff(start))
    if some.size:
        maxima[some] = np.maximum.reduceat(values, start[some])
    return maxima


def at(probs: Probs, row: np.ndarray, class_id: np.ndarray) -> np.ndarray:
    """Return what some items, of either kind of rows, have of some classes; shape (Q,)."""
    if isinstance(probs, TopRows):
        return probs.at(row, class_id)
    return np.asarray(probs[row, class_id])


def largest(probs: Probs) -> np.ndarray:
    """Return the largest probability of each row, of either kind; shape (N,)."""
    if isinstance(probs, TopRows):
        return probs.largest()
    return np.asarray(probs.max(axis=1, initial=-np.inf))


def fill_tail(
    tail: np.ndarray, n_listed: np.ndarray, n_classes: int, dtype: np.dtype
) -> np.ndarray:
    """Return what each class that is not listed has of the probability of all of them.

    Divided in double precision and rounded once to the type of the probabilities; 0 where every
    class is listed.

    Examples
    --------
    >>> fill_tail(np.array([0.3, 0.0]), np.array([1, 4]), 4, np.dtype(np.float32)).tolist()
    [0.10000000149011612, 0.0]
    """
    others = n_classes - n_listed
    share = np.maximum(tail.astype(np.float64), 0.0) / np.maximum(others, 1)
    return np.where(others > 0, share, 0.0).astype(dtype)
