"""Columns of a table as numbers: what is missing is filled and said, categories get one each.

What is learned of the columns comes from a sample and from no label, so that folds need none of
their own.
"""

# N items, n of them in the sample, P numeric and Q categorical columns, D numbers an item

from typing import NamedTuple

import numpy as np

MAX_CATEGORIES = 50
"""So many categories of a column get a number of their own, the most frequent ones; all others,
also those that the sample does not have, share one."""

MISSING = np.uint64(0)
"""Stands for the category that is not there."""


class Encoding(NamedTuple):
    """How columns become numbers.

    Attributes
    ----------
    median : what is put in place of a missing number, float64, shape (P,).
    has_gaps : whether a number says that one was missing, bool, shape (P,).
    category : hashes of the categories of all columns, uint64.
    start : where those of each column begin, int64, shape (Q + 1,).
    """

    median: np.ndarray
    has_gaps: np.ndarray
    category: np.ndarray
    start: np.ndarray

    @property
    def width(self) -> int:
        """D: numbers, gaps, and of each categorical column its categories and one for others."""
        return (
            len(self.median) + int(self.has_gaps.sum()) + len(self.category) + len(self.start) - 1
        )

    @property
    def column(self) -> np.ndarray:
        """Which column each number is of, numbers first, then categories; int64, shape (D,)."""
        n_numbers = len(self.median)
        categories = n_numbers + np.arange(len(self.start) - 1)
        return np.concatenate(
            [
                np.arange(n_numbers),
                np.flatnonzero(self.has_gaps),
                np.repeat(categories, np.diff(self.start) + 1),
            ]
        )


def learn(numbers: np.ndarray, categories: np.ndarray) -> Encoding:
    """Learn an encoding from a sample, in which the order of items does not matter.

    Parameters
    ----------
    numbers
        float64, shape (n, P); what is not finite is missing.
    categories
        Hashes, uint64, shape (n, Q); `MISSING` where there is none.

    Examples
    --------
    >>> encoding = learn(np.array([[1.0], [np.nan], [3.0]]), np.array([[7], [7], [9]], np.uint64))
    >>> encoding.median.tolist(), encoding.has_gaps.tolist(), encoding.category.tolist()
    ([2.0], [True], [7, 9])
    >>> encoding.width, encoding.column.tolist()
    (5, [0, 0, 1, 1, 1])
    """
    is_there = np.isfinite(numbers)
    median = np.zeros(numbers.shape[1])
    for p in range(numbers.shape[1]):
        known = numbers[is_there[:, p], p]
        median[p] = np.median(known) if len(known) else 0.0
    kept = [_frequent(column) for column in categories.T]
    sizes = [len(values) for values in kept]
    return Encoding(
        median=median,
        has_gaps=~is_there.all(axis=0),
        category=np.concatenate([np.zeros(0, np.uint64), *kept]),
        start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def _frequent(values: np.ndarray) -> np.ndarray:
    """Return the most frequent categories, ascending; ties by hash."""
    found, n = np.unique(values, return_counts=True)
    return np.sort(found[np.lexsort((found, -n))[:MAX_CATEGORIES]])


def encode(encoding: Encoding, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Return D numbers an item, float32, shape (N, D), from columns as for `learn`.

    Examples
    --------
    >>> encoding = learn(np.array([[1.0], [np.nan], [3.0]]), np.array([[7], [7], [9]], np.uint64))
    >>> encode(encoding, np.array([[np.nan]]), np.array([[8]], np.uint64)).tolist()
    [[2.0, 1.0, 0.0, 0.0, 1.0]]
    """
    is_there = np.isfinite(numbers)
    limit = np.finfo(np.float32).max
    filled = np.clip(np.where(is_there, numbers, encoding.median), -limit, limit)
    parts = [filled, ~is_there[:, encoding.has_gaps]]
    for q in range(categories.shape[1]):
        known = encoding.category[encoding.start[q] : encoding.start[q + 1]]
        one_each = categories[:, q, None] == known
        parts += [one_each, ~one_each.any(axis=1, keepdims=True)]
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)
