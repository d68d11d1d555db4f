"""The first so many of each group, over any number of shards, exactly and in bounded memory.

Every element has a group, a key (smaller comes first) and the hash of its item, which no other
element of its group has; hashes break ties. Each group has a quota. What is sought is a *cut* for
each group: exactly as many elements lie before it as the quota says.

Cuts are found by narrowing: every pass over the shards counts the open elements of each group in a
number of bins, and the bin in which the quota is reached is what stays open. A group whose quota is
reached exactly at the edge of a bin is done. When few elements are open they are collected and
sorted. Counts add up exactly, so neither shards nor their order matter.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from labelops.confident.keys import MAX_KEY, order_keys

# E elements, G groups with a quota, D bins

CELLS = 1 << 19
"""Aim for so many counts (4 MB) in a summary."""

POWERS = np.uint64(1) << np.arange(64, dtype=np.uint64)

MAX_BITS = 12
MIN_BITS = 3

COLLECT = 1 << 19
"""So many open elements (12 MB) are collected instead of counted once more."""


class Selection(NamedTuple):
    """What is known of the cuts.

    Attributes
    ----------
    groups : ids of the groups with a quota, ascending, int64, shape (G,).
    room : how many of a group's open elements are still to be taken, int64, shape (G,).
    n_open : how many elements are open; 0 for a group that is done, int64, shape (G,).
    key_low, key_high : open elements have a key within these, uint64, shape (G,).
    hash_low, hash_high : and, once only one key is left, a hash within these, uint64, shape (G,).

    Elements before (key_low, hash_low) are taken.
    """

    groups: np.ndarray
    room: np.ndarray
    n_open: np.ndarray
    key_low: np.ndarray
    key_high: np.ndarray
    hash_low: np.ndarray
    hash_high: np.ndarray

    @property
    def total_open(self) -> int:
        """Number of open elements of all groups."""
        return int(self.n_open.sum())

    @property
    def open_slots(self) -> np.ndarray:
        """Positions of the groups that are not done."""
        return np.flatnonzero(self.n_open)


class Elements(NamedTuple):
    """Elements: group (int64), key (uint64) and item hash (uint64), each of shape (E,)."""

    group: np.ndarray
    key: np.ndarray
    hash: np.ndarray


def no_elements() -> Elements:
    """Return no elements."""
    return Elements(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64))


def concatenate(parts: Sequence[Elements]) -> Elements:
    """Return the elements of all parts."""
    group, key, hashes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Elements(group, key, hashes)


def n_bits(n_groups: int) -> int:
    """Return how many binary digits of the keys a pass can count for so many groups."""
    return int(np.clip((CELLS // max(n_groups, 1)).bit_length() - 1, MIN_BITS, MAX_BITS))


def max_passes(n_groups: int, key_bits: int) -> int:
    """Return how many narrowing passes can be needed at most, after the first."""
    bits = n_bits(n_groups)
    return -(-key_bits // bits) + -(-64 // bits)


def whole_range(dtype: np.dtype, bits: int) -> np.ndarray:
    """Return the edges of the first pass's bins: differences at multiples of 2^(1−bits).

    Floats are densest around zero, where few cuts lie; equal steps get closer at once. Bin d is
    from edge d up to, not including, edge d + 1; the first and the last are open to values below −1
    and above 1.

    Returns
    -------
    uint64, ascending, shape (2^bits + 2,).
    """
    steps = 1 << bits
    edges = order_keys((np.arange(steps + 1) * (2.0 / steps) - 1.0).astype(dtype))
    edges[0] = 0
    return np.append(edges, MAX_KEY)


def start(quotas: np.ndarray, edges: np.ndarray) -> Selection:
    """Return the selection of which only the quotas of all groups are known; 0 takes nothing.

    Edges are those of `whole_range`, perhaps with more; elements outside are not seen.
    """
    groups = np.flatnonzero(quotas > 0).astype(np.int64)
    return start_groups(groups, quotas[groups], edges)


def start_groups(groups: np.ndarray, quotas: np.ndarray, edges: np.ndarray) -> Selection:
    """Do what `start` does, of groups with a quota alone: ascending ids, and how many to take."""
    n = len(groups)
    return Selection(
        groups=groups.astype(np.int64),
        room=quotas.astype(np.int64),
        n_open=np.full(n, -1, np.int64),
        key_low=np.full(n, edges[0], np.uint64),
        key_high=np.full(n, edges[-1] - np.uint64(1), np.uint64),
        hash_low=np.zeros(n, np.uint64),
        hash_high=np.full(n, MAX_KEY, np.uint64),
    )


def find_slots(selection: Selection, group: np.ndarray) -> np.ndarray:
    """Return the position of each element's group in the selection, −1 for groups without quota."""
    if not len(selection.groups):
        return np.full(len(group), -1, np.int64)
    slot = np.minimum(np.searchsorted(selection.groups, group), len(selection.groups) - 1)
    return np.asarray(np.where(selection.groups[slot] == group, slot, -1))


def _open(selection: Selection, elements: Elements) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of the open elements, and their slots."""
    slot = find_slots(selection, elements.group)
    at = np.flatnonzero(slot >= 0)
    slot = slot[at]
    key, low, high = elements.key[at], selection.key_low[slot], selection.key_high[slot]
    inside = (selection.n_open[slot] != 0) & (key >= low) & (key <= high)
    tied = low == high
    hashes = elements.hash[at]
    inside &= ~tied | ((hashes >= selection.hash_low[slot]) & (hashes <= selection.hash_high[slot]))
    return at[inside], slot[inside]


def count_first(selection: Selection, edges: np.ndarray, elements: Elements) -> np.ndarray:
    """Count elements between the edges; int64, shape (G, D)."""
    n_bins = len(edges) - 1
    at, slot = _open(selection, elements)
    digit = np.searchsorted(edges, elements.key[at], side="right") - 1
    cells = np.bincount(slot * n_bins + digit, minlength=len(selection.groups) * n_bins)
    return cells.astype(np.int64).reshape(-1, n_bins)


def narrow_first(
    selection: Selection, edges: np.ndarray, counts: np.ndarray
) -> tuple[Selection, np.ndarray]:
    """Go on to the bin in which each quota is reached.

    Returns
    -------
    The narrower selection, and which groups have fewer elements between the edges than their quota
    (bool, shape (G,)); of those everything is taken, also beyond the edges.
    """
    is_short = counts.sum(axis=1) < selection.room
    lows, highs = edges[:-1], edges[1:] - np.uint64(1)
    narrowed = _narrow(
        selection,
        np.arange(len(selection.groups)),
        counts,
        lambda digit: (lows[digit], highs[digit]),
        np.zeros(len(selection.groups), bool),
    )
    return _take_all(narrowed, is_short), is_short


def replace(selection: Selection, other: Selection) -> Selection:
    """Return the selection with what another one knows of some of its groups."""
    slot = find_slots(selection, other.groups)
    fields = selection._asdict()
    for name, values in other._asdict().items():
        if name != "groups":
            fields[name] = fields[name].copy()
            fields[name][slot] = values
    return Selection(**fields)


def _take_all(selection: Selection, which: np.ndarray) -> Selection:
    """Return the selection with some groups done, every element taken."""
    return selection._replace(
        room=np.where(which, 0, selection.room),
        n_open=np.where(which, 0, selection.n_open),
        key_low=np.where(which, MAX_KEY, selection.key_low),
        key_high=np.where(which, MAX_KEY, selection.key_high),
        hash_low=np.where(which, MAX_KEY, selection.hash_low),
    )


def shifts(selection: Selection, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much to shift the open groups' keys (or hashes) to get a digit, and which tie.

    Returns
    -------
    uint64 and bool, shape (number of open slots,).
    """
    slots = selection.open_slots
    tied = selection.key_low[slots] == selection.key_high[slots]
    width = np.where(
        tied,
        selection.hash_high[slots] - selection.hash_low[slots],
        selection.key_high[slots] - selection.key_low[slots],
    )
    n_digits = np.searchsorted(POWERS, width, side="right")
    return np.maximum(n_digits - bits, 0).astype(np.uint64), tied


def count(selection: Selection, bits: int, elements: Elements) -> np.ndarray:
    """Count the open elements by their next digit; int64, shape (number of open slots, 2^bits)."""
    shift, tied = shifts(selection, bits)
    slots = selection.open_slots
    row_of_slot = np.full(len(selection.groups), -1, np.int64)
    row_of_slot[slots] = np.arange(len(slots))
    at, slot = _open(selection, elements)
    row = row_of_slot[slot]
    distance = np.where(
        tied[row],
        elements.hash[at] - selection.hash_low[slot],
        elements.key[at] - selection.key_low[slot],
    )
    cell = row * (1 << bits) + (distance >> shift[row]).astype(np.int64)
    counts = np.bincount(cell, minlength=len(slots) << bits)
    return counts.astype(np.int64).reshape(len(slots), 1 << bits)


def narrow(selection: Selection, bits: int, counts: np.ndarray) -> Selection:
    """Go on to the digit at which each quota is reached; counts are those of all shards."""
    slots = selection.open_slots
    shift, tied = shifts(selection, bits)
    base = np.where(tied, selection.hash_low[slots], selection.key_low[slots])
    top = np.where(tied, selection.hash_high[slots], selection.key_high[slots])

    def interval(digit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = base + (digit.astype(np.uint64) << shift)
        span = (np.uint64(1) << shift) - np.uint64(1)
        # The last digit of an interval that is no power of two would reach beyond it.
        return low, low + np.minimum(span, top - low)

    return _narrow(selection, slots, counts, interval, tied)


def _narrow(
    selection: Selection,
    slots: np.ndarray,
    counts: np.ndarray,
    interval: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    tied: np.ndarray,
) -> Selection:
    """Replace each slot's interval by that of the bin where its quota is reached."""
    total = np.cumsum(counts, axis=1)
    room = selection.room[slots]
    # Groups without enough elements go to the last bin.
    digit = np.minimum((total < room[:, None]).sum(axis=1), counts.shape[1] - 1)
    rows = np.arange(len(slots))
    inside = counts[rows, digit]
    left = room - (total[rows, digit] - inside)
    # Reached exactly at the end of the bin: all of it is taken, and the cut is behind it.
    done = left >= inside
    low, high = interval(digit)
    fields = {name: values.copy() for name, values in selection._asdict().items()}
    fields["room"][slots] = np.where(done, 0, left)
    fields["n_open"][slots] = np.where(done, 0, inside)
    behind = np.where(done, high + np.uint64(1), low)
    fields["key_low"][slots[~tied]] = behind[~tied]
    fields["key_high"][slots[~tied]] = np.where(done, behind, high)[~tied]
    fields["hash_low"][slots[tied]] = behind[tied]
    fields["hash_high"][slots[tied]] = high[tied]
    # Behind the largest hash comes the next key; its first hash is 0, to which the sum wrapped.
    last = slots[tied & done & (high == MAX_KEY)]
    fields["key_low"][last] += np.uint64(1)
    fields["key_high"][last] += np.uint64(1)
    return Selection(**fields)


def collect(selection: Selection, elements: Elements) -> Elements:
    """Return the open elements."""
    at, _ = _open(selection, elements)
    return Elements(elements.group[at], elements.key[at], elements.hash[at])


def settle(selection: Selection, elements: Elements) -> Selection:
    """Find the remaining cuts among the collected open elements of all shards, in any order."""
    slot = find_slots(selection, elements.group)
    order = _sort(slot, elements)
    slots = selection.open_slots
    first = np.searchsorted(slot[order], slots)
    # The first one that is not taken: groups that are short were done before.
    cut = order[first + selection.room[slots]]
    fields = {name: values.copy() for name, values in selection._asdict().items()}
    fields["room"][slots] = 0
    fields["n_open"][slots] = 0
    fields["key_low"][slots] = fields["key_high"][slots] = elements.key[cut]
    fields["hash_low"][slots] = fields["hash_high"][slots] = elements.hash[cut]
    return Selection(**fields)


def search(
    selection: Selection,
    count_open: Callable[[Selection, int], np.ndarray],
    collect_open: Callable[[Selection], Elements],
    *,
    most: int = COLLECT,
) -> Selection:
    """Find the cuts of elements in memory: count while more are open than `most`, then sort them.

    `count_open` and `collect_open` do `count` and `collect` on all elements.
    """
    while selection.total_open > most:
        bits = n_bits(len(selection.open_slots))
        selection = narrow(selection, bits, count_open(selection, bits))
    return settle(selection, collect_open(selection)) if selection.total_open else selection


def _sort(slot: np.ndarray, elements: Elements) -> np.ndarray:
    """Return the order by slot, key and hash."""
    if len(slot) and elements.key.max() < 2**32:
        # Sorting one integer is much faster than sorting by three; hashes are for ties.
        packed = (slot.astype(np.uint64) << np.uint64(32)) | elements.key
        order = np.argsort(packed)
        if np.all(packed[order][1:] != packed[order][:-1]):
            return order
    return np.lexsort((elements.hash, elements.key, slot))


def is_taken(selection: Selection, elements: Elements) -> np.ndarray:
    """Return which elements lie before their group's cut; bool, shape (E,)."""
    slot = find_slots(selection, elements.group)
    known = slot >= 0
    key, hashes = elements.key[known], elements.hash[known]
    key_cut, hash_cut = selection.key_low[slot[known]], selection.hash_low[slot[known]]
    taken = np.zeros(len(slot), bool)
    taken[known] = (key < key_cut) | ((key == key_cut) & (hashes < hash_cut))
    return taken
