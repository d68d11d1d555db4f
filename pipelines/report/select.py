"""The few rows worth showing out of all rows, found shard by shard in bounded memory."""

from collections import Counter

import numpy as np

from pipelines.storage.frame import Frame

Place = tuple[int, int]
"""Shard, and row among its live items."""


class Shortlist:
    """The first items of every group by (``key``, `item_hash`), and how many there are of each.

    A total order: what is held in the end is the same for every way of cutting the data into
    shards.

    Parameters
    ----------
    n_groups
        Number of groups.
    each
        Items kept of each.
    """

    def __init__(self, n_groups: int, each: int) -> None:
        self.each = each
        self.count = np.zeros(n_groups, np.int64)
        self.rows: dict[str, np.ndarray] = {}
        """What is kept, in order; ``shard`` and ``row`` say where an item is."""

    def add(self, frame: Frame, row: np.ndarray, group: np.ndarray, key: np.ndarray) -> None:
        """Take in rows of a shard, of which `item_hash` can be read."""
        np.add.at(self.count, group, 1)
        rows = {
            "group": group.astype(np.int64),
            "key": key.astype(np.float64),
            "hash": frame.array("item_hash")[row],
            "shard": np.full(len(row), frame.index, np.int64),
            "row": row,
        }
        merged = {
            name: np.concatenate([self.rows[name], values]) if self.rows else values
            for name, values in rows.items()
        }
        order = np.lexsort((merged["hash"], merged["key"], merged["group"]))
        group = merged["group"][order]
        first = np.searchsorted(group, group, side="left")
        kept = order[np.arange(order.size) - first < self.each]
        self.rows = {name: values[kept] for name, values in merged.items()}

    def of(self, group: int) -> dict[Place, float]:
        """Return where the first items of a group are, with their keys, in order."""
        if not self.rows:
            return {}
        mask = self.rows["group"] == group
        shard, row, key = (self.rows[name][mask].tolist() for name in ("shard", "row", "key"))
        return dict(zip(zip(shard, row, strict=True), key, strict=True))


def by_count(n: np.ndarray, most: int) -> list[int]:
    """Return the groups of which there are most, without empty ones; ties by their numbers."""
    return [int(group) for group in np.argsort(-n, kind="stable") if n[group]][:most]


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
