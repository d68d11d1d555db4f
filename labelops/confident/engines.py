"""Who does the two loops over rows of probabilities: what is asked of them, and a readable one."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from labelops.confident import selection as sel
from labelops.confident.filters import elements_at, pairs_of
from labelops.confident.keys import order_keys
from labelops.confident.scan import Scan, scan_rows
from labelops.confident.selection import Elements, Selection
from labelops.confident.top_scan import scan_top
from labelops.top_rows import Probs, TopRows, at, largest

# N items, K classes, G groups with a quota

Rows = tuple[Probs, np.ndarray, np.ndarray]
"""Probabilities (of either kind of rows), given classes and hashes of a block of items."""

BLOCK_ELEMENTS = 1 << 20
"""Elements are written out for about so many at a time."""


class Pairs(Protocol):
    """Selection in pairs of classes over blocks of rows; see `labelops.confident.selection`."""

    def count_first(
        self, blocks: Iterable[Rows], *, bits: int, n_bins: int, below: float
    ) -> np.ndarray:
        """Count differences less than `below` in the first bins of the whole range."""

    def count(self, blocks: Iterable[Rows], *, bits: int) -> np.ndarray:
        """Count the open ones by their next digit."""

    def collect(self, blocks: Iterable[Rows]) -> Elements:
        """Return the open ones."""

    def take(self, probs: Probs, given: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return which rows are taken in any of their pairs."""


class Engine(Protocol):
    """Who does the two loops over rows of probabilities."""

    def scan(self, probs: Probs, given: np.ndarray, thresholds: np.ndarray) -> Scan:
        """Look at every row once."""

    def pairs(self, selection: Selection, n_classes: int, dtype: np.dtype) -> Pairs:
        """Return who selects in pairs."""


class ReadablePairs:
    """Selection in pairs of classes, with every (row, other class) written out as an element.

    Time and memory are as the number of pairs with a quota, for the items' given classes.
    """

    def __init__(self, selection: Selection, dtype: np.dtype) -> None:
        self.selection = selection
        self.dtype = dtype

    def _elements(self, block: Rows) -> Iterator[tuple[Rows, np.ndarray, Elements]]:
        """Yield rows of a block in pieces, with their elements and the row of each."""
        probs, given, hashes = block
        n_classes = probs.shape[1]
        for piece in pieces_of(self.selection.groups, n_classes, given):
            rows = (probs[piece], given[piece], hashes[piece])
            row, group = pairs_of(self.selection.groups, n_classes, rows[1])
            yield rows, row, elements_at(row, group, *rows)

    def count_first(
        self, blocks: Iterable[Rows], *, bits: int, n_bins: int, below: float
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
        for block in blocks:
            for (probs, given, _), row, elements in self._elements(block):
                is_near = elements.key < limit
                near = Elements(*(column[is_near] for column in elements))
                counts[:, :n_bins] += sel.count_first(self.selection, edges, near)[:, :n_bins]
                is_led = largest(probs) > at(probs, np.arange(len(given)), given)
                is_behind = (~is_near | (elements.key >= edges[n_bins])) & is_led[row]
                slots = sel.find_slots(self.selection, elements.group[is_behind])
                counts[:, n_bins] += np.bincount(slots, minlength=len(counts))
        return counts

    def count(self, blocks: Iterable[Rows], *, bits: int) -> np.ndarray:
        """Count as `selection.count`."""
        counts = np.zeros((len(self.selection.open_slots), 1 << bits), np.int64)
        for block in blocks:
            for _, _, elements in self._elements(block):
                counts += sel.count(self.selection, bits, elements)
        return counts

    def collect(self, blocks: Iterable[Rows]) -> Elements:
        """Collect as `selection.collect`."""
        open_ones = [
            sel.collect(self.selection, elements)
            for block in blocks
            for _, _, elements in self._elements(block)
        ]
        return sel.concatenate([sel.no_elements(), *open_ones])

    def take(self, probs: Probs, given: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return whether a row is taken in any of its pairs; bool, shape (N,)."""
        parts = [np.zeros(0, bool)]
        for (_, own, _), row, elements in self._elements((probs, given, hashes)):
            taken = np.zeros(len(own), bool)
            taken[row[sel.is_taken(self.selection, elements)]] = True
            parts.append(taken)
        return np.concatenate(parts)


def pieces_of(groups: np.ndarray, n_classes: int, given: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows with about as many elements each as are written out at a time."""
    per_class = np.bincount(groups // n_classes, minlength=n_classes)
    total = np.cumsum(per_class[given])
    start = 0
    while start < len(given):
        done = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, done + BLOCK_ELEMENTS, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


class ReadableEngine:
    """The definition, in NumPy."""

    def scan(self, probs: Probs, given: np.ndarray, thresholds: np.ndarray) -> Scan:
        """Do `labelops.confident.scan.scan_rows`, or `labelops.confident.top_scan.scan_top`."""
        if isinstance(probs, TopRows):
            return scan_top(probs, given, thresholds)
        return scan_rows(probs, given, thresholds)

    def pairs(self, selection: Selection, n_classes: int, dtype: np.dtype) -> Pairs:
        """Return a `ReadablePairs`."""
        return ReadablePairs(selection, dtype)
