"""The few rows worth showing out of all rows, found shard by shard in bounded memory."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

Rows = dict[str, np.ndarray]
"""Columns of equal length; ``shard`` and ``row`` say where an item is."""


class Smallest:
    """The n smallest rows of every group by (``key``, ``hash``): a total order.

    What is held in the end is the same for every way of cutting the data into shards.

    Parameters
    ----------
    n
        Rows kept in each group.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.rows: Rows = {}

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take in rows with at least the columns ``group``, ``key`` and ``hash``."""
        merged = {
            name: np.concatenate([self.rows[name], values]) if self.rows else np.asarray(values)
            for name, values in rows.items()
        }
        order = np.lexsort((merged["hash"], merged["key"], merged["group"]))
        group = merged["group"][order]
        first = np.searchsorted(group, group, side="left")
        kept = order[np.arange(order.size) - first < self.n]
        self.rows = {name: values[kept] for name, values in merged.items()}

    def of(self, group: int) -> Rows:
        """Rows of one group, smallest first."""
        if not self.rows:
            return {}
        mask = self.rows["group"] == group
        return {name: values[mask] for name, values in self.rows.items()}


class Groups:
    """All groups that occur, each with the largest ``key`` of its rows."""

    def __init__(self) -> None:
        self.ids = np.empty(0, np.uint64)
        self.keys = np.empty(0, np.float64)

    def add(self, ids: np.ndarray, keys: np.ndarray) -> None:
        """Take in rows: the group of each, and its key."""
        merged_ids, merged = np.concatenate([self.ids, ids]), np.concatenate([self.keys, keys])
        order = np.lexsort((-merged, merged_ids))
        self.ids, first = np.unique(merged_ids[order], return_index=True)
        self.keys = merged[order][first]

    def smallest(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the n groups of smallest keys, with the keys; ties by the groups' ids."""
        order = np.lexsort((self.ids, self.keys))[:n]
        return self.ids[order], self.keys[order]


def count_pairs(a: np.ndarray, b: np.ndarray) -> Counter[tuple[int, int]]:
    """How often each pair of class ids occurs; holds only pairs that do."""
    pairs, counts = np.unique(np.stack([a, b], axis=1).astype(np.int64), axis=0, return_counts=True)
    listed = zip(pairs.tolist(), counts.tolist(), strict=True)
    return Counter({(first, second): count for (first, second), count in listed})


class Tally:
    """Counts of texts, of which a run may have too many to hold.

    Parameters
    ----------
    most
        So many different texts are told apart; the rest is counted together.
    """

    def __init__(self, most: int = 2000) -> None:
        self.most = most
        self.counts: Counter[str] = Counter()
        self.others = 0

    def add(self, text: str, count: int) -> None:
        """Count a text."""
        if text in self.counts or len(self.counts) < self.most:
            self.counts[text] += count
        else:
            self.others += count

    def ranked(self, most: int) -> tuple[tuple[str, int], ...]:
        """Texts with their counts, most frequent first; beyond ``most`` they are summed."""
        order = sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))
        rest = self.others + sum(count for _, count in order[most:])
        return (*order[:most], *([("all others", rest)] if rest else []))
