"""Who does the two loops over rows of probabilities: what is asked of them, and a readable one."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from labelops.confident import selection as sel
from labelops.confident.filters import pair_elements
from labelops.confident.keys import order_keys
from labelops.confident.scan import Scan, scan_rows
from labelops.confident.selection import Elements, Selection

# N items, K classes, G groups with a quota

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Probabilities, given classes and hashes of a block of items."""


class Pairs(Protocol):
    """Selection in pairs of classes over blocks of rows; see `labelops.confident.selection`."""

    def count_first(
        self, bits: int, n_bins: int, below: float, blocks: Iterable[Rows]
    ) -> np.ndarray:
        """Count differences less than `below` in the first bins of the whole range."""

    def count(self, bits: int, blocks: Iterable[Rows]) -> np.ndarray:
        """Count the open ones by their next digit."""

    def collect(self, blocks: Iterable[Rows]) -> Elements:
        """Return the open ones."""

    def take(self, probs: np.ndarray, given: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return which rows are taken in any of their pairs."""


class Engine(Protocol):
    """Who does the two loops over rows of probabilities."""

    def scan(self, probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> Scan:
        """Look at every row once."""

    def pairs(self, selection: Selection, n_classes: int, dtype: np.dtype) -> Pairs:
        """Return who selects in pairs."""


class ReadablePairs:
    """Selection in pairs of classes, with every (row, other class) written out as an element.

    Parameters
    ----------
    selection
        What is known of the cuts so far.
    dtype
        Type of the probabilities.
    """

    def __init__(self, selection: Selection, dtype: np.dtype) -> None:
        self.selection = selection
        self.dtype = dtype

    def count_first(
        self, bits: int, n_bins: int, below: float, blocks: Iterable[Rows]
    ) -> np.ndarray:
        """Count differences less than `below` in the first bins of `selection.whole_range(bits)`.

        Returns
        -------
        int64, shape (G, n_bins + 1); the last column counts what lies behind the bins, of rows
        in which another class is more probable than the given one.
        """
        edges = sel.whole_range(self.dtype, bits)
        limit = order_keys(np.array([below], self.dtype))[0]
        counts = np.zeros((len(self.selection.groups), n_bins + 1), np.int64)
        for probs, given, hashes in blocks:
            found = pair_elements(self.selection, probs, given, hashes)
            is_near = found.key < limit
            near = Elements(*(column[is_near] for column in found))
            counts[:, :n_bins] += sel.count_first(self.selection, edges, near)[:, :n_bins]
            is_behind = ~is_near | (found.key >= edges[n_bins])
            is_led = probs.max(axis=1, initial=0.0) > probs[np.arange(len(probs)), given]
            is_behind &= np.isin(found.hash, hashes[is_led])
            slots = sel.find_slots(self.selection, found.group[is_behind])
            counts[:, n_bins] += np.bincount(slots, minlength=len(counts))
        return counts

    def count(self, bits: int, blocks: Iterable[Rows]) -> np.ndarray:
        """Count as `selection.count`."""
        counts = np.zeros((len(self.selection.open_slots), 1 << bits), np.int64)
        for block in blocks:
            counts += sel.count(self.selection, bits, pair_elements(self.selection, *block))
        return counts

    def collect(self, blocks: Iterable[Rows]) -> Elements:
        """Collect as `selection.collect`."""
        found = (sel.collect(self.selection, pair_elements(self.selection, *b)) for b in blocks)
        return sel.concatenate([sel.no_elements(), *found])

    def take(self, probs: np.ndarray, given: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return whether a row is taken in any of its pairs; bool, shape (N,)."""
        elements = pair_elements(self.selection, probs, given, hashes)
        return np.isin(hashes, elements.hash[sel.is_taken(self.selection, elements)])


class ReadableEngine:
    """The definition, in NumPy."""

    def scan(self, probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> Scan:
        """Do `labelops.confident.scan.scan_rows`."""
        return scan_rows(probs, given, thresholds)

    def pairs(self, selection: Selection, n_classes: int, dtype: np.dtype) -> Pairs:
        """Return a `ReadablePairs`."""
        return ReadablePairs(selection, dtype)
