"""Selection in pairs of classes over rows of probabilities, compiled.

Does what `labelops.confident.engines.ReadablePairs` says, without writing every (row, class) out,
and finds the same bits.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from labelops.confident.engines import Rows
from labelops.confident.keys import float_of_keys, order_keys
from labelops.confident.selection import (
    Elements,
    Selection,
    concatenate,
    no_elements,
    shifts,
)
from labelops.fast.jit import compiled
from labelops.top_rows import Probs

# N rows, K classes, G groups with a quota, S of them open


class _Leads(NamedTuple):
    """Room for p_y − p_j of one row, for every class j, and for its keys; both in two types."""

    value: np.ndarray
    bits: np.ndarray
    signed_key: np.ndarray
    key: np.ndarray


class _Open(NamedTuple):
    """What is not decided: bounds and slots of pairs, (K, K); keys and hashes of slots, (S,)."""

    low: np.ndarray
    high: np.ndarray
    slots: np.ndarray
    key_low: np.ndarray
    hash_low: np.ndarray
    hash_high: np.ndarray
    tied: np.ndarray
    leads: _Leads


@compiled()
def _count_first(probs, given, cells, nowhere, scale, n_digits, below, counts):  # type: ignore[no-untyped-def]
    n_classes = probs.shape[1]
    half = np.int32(scale)
    cell = np.empty(n_classes, np.int32)
    for i in range(len(probs)):
        y = np.int64(given[i])
        p = probs[i, y]
        n_ahead = np.int32(0)
        for j in range(n_classes):
            n_ahead += np.int32(probs[i, j] > p)
        for j in range(n_classes):
            # A product with a power of two is exact, and so is the floor of it.
            x = p - probs[i, j]
            digit = max(np.int32(np.floor(x * scale)) + half, np.int32(0))
            behind = cells[y, j] + n_digits if n_ahead > 0 else nowhere
            cell[j] = cells[y, j] + digit if x < below and digit < n_digits else behind
        for j in range(n_classes):
            counts[cell[j]] += 1


@compiled()
def _count(probs, given, hashes, opened, shift, counts):  # type: ignore[no-untyped-def]
    low, high, slots, key_low, hash_low, hash_high, tied, leads = opened
    lead, keys = leads.value, leads.key
    n_classes = probs.shape[1]
    for i in range(len(probs)):
        y = np.int64(given[i])
        if _n_between(probs, i, y, low, high) == 0:
            continue
        _lead_keys(probs, i, y, leads)
        for j in range(n_classes):
            if not (low[y, j] <= lead[j] and lead[j] <= high[y, j]):
                continue
            slot = slots[y, j]
            if not tied[slot]:
                counts[slot, np.uint64(keys[j] - key_low[slot]) >> shift[slot]] += 1
            elif hash_low[slot] <= hashes[i] and hashes[i] <= hash_high[slot]:
                counts[slot, (hashes[i] - hash_low[slot]) >> shift[slot]] += 1


@compiled()
def _collect(probs, given, hashes, opened, out):  # type: ignore[no-untyped-def]
    low, high, slots, _, hash_low, hash_high, tied, leads = opened
    out_slot, out_key, out_hash = out
    lead, keys = leads.value, leads.key
    n = 0
    for i in range(len(probs)):
        y = np.int64(given[i])
        if _n_between(probs, i, y, low, high) == 0:
            continue
        _lead_keys(probs, i, y, leads)
        for j in range(probs.shape[1]):
            if not (low[y, j] <= lead[j] and lead[j] <= high[y, j]):
                continue
            slot = slots[y, j]
            if not tied[slot] or (hash_low[slot] <= hashes[i] and hashes[i] <= hash_high[slot]):
                if n < len(out_slot):
                    out_slot[n], out_key[n], out_hash[n] = slot, keys[j], hashes[i]
                n += 1
    return n


@compiled()
def _n_between(probs, i, y, low, high):  # type: ignore[no-untyped-def]
    n, p = np.int32(0), probs[i, y]
    for j in range(probs.shape[1]):
        x = p - probs[i, j]
        n += np.int32((low[y, j] <= x) & (x <= high[y, j]))
    return n


@compiled()
def _lead_keys(probs, i, y, leads):  # type: ignore[no-untyped-def]
    """Write what `order_keys(p_y − p_j)` gives, for every class j."""
    lead, bits, keys, _ = leads
    p, signed = probs[i, y], keys.dtype.type
    sign_shift, top = signed(8 * keys.itemsize - 1), signed(np.iinfo(keys.dtype).min)
    for j in range(probs.shape[1]):
        lead[j] = p - probs[i, j] + probs.dtype.type(0)
    for j in range(probs.shape[1]):
        # All bits of a negative number are turned round, of another one only the sign.
        keys[j] = bits[j] ^ ((bits[j] >> sign_shift) | top)


@compiled()
def _take(probs, given, hashes, cuts, hash_cuts, taken):  # type: ignore[no-untyped-def]
    for i in range(len(probs)):
        y = np.int64(given[i])
        p = probs[i, y]
        before, at = np.int32(0), np.int32(0)
        for j in range(probs.shape[1]):
            x = p - probs[i, j]
            before += np.int32(x < cuts[y, j])
            at += np.int32(x == cuts[y, j])
        if before == 0 and at > 0:
            for j in range(probs.shape[1]):
                if p - probs[i, j] == cuts[y, j] and hashes[i] < hash_cuts[y, j]:
                    before += np.int32(1)
        taken[i] = before > 0


class PairCuts:
    """Selection in pairs of classes over rows of probabilities, block by block.

    Does what `labelops.confident.selection` does with the elements that
    `labelops.confident.engines.ReadablePairs` lists, without listing them.
    """

    def __init__(self, selection: Selection, *, n_classes: int, dtype: np.dtype) -> None:
        self.selection = selection
        self.dtype = np.dtype(dtype)
        # The diagonal stands for whole classes.
        self._pairs = np.flatnonzero(selection.groups % (n_classes + 1) != 0)
        self._at = np.divmod(selection.groups[self._pairs], n_classes)
        self._shape = (n_classes, n_classes)

    def _table(self, of_slot: np.ndarray, absent: float) -> np.ndarray:
        """Return a matrix over pairs of what stands at their slots."""
        table = np.full(self._shape, absent, of_slot.dtype)
        table[self._at] = of_slot[self._pairs]
        return table

    def _values(self, keys: np.ndarray) -> np.ndarray:
        """Return the floats of keys; infinite where the key is before or behind all."""
        unsigned = np.uint32 if self.dtype == np.float32 else np.uint64
        last = np.uint64(order_keys(np.array([np.inf], self.dtype))[0])
        values = float_of_keys(np.minimum(keys, last).astype(unsigned), self.dtype)
        return np.where(np.isnan(values), self.dtype.type(-np.inf), values)

    def _open(self) -> _Open:
        s, signed = self.selection, np.int32 if self.dtype == np.float32 else np.int64
        unsigned = np.uint32 if self.dtype == np.float32 else np.uint64
        slots = s.open_slots
        is_open = np.zeros(len(s.groups), bool)
        is_open[slots] = True
        position = np.zeros(len(s.groups), np.int32)
        position[slots] = np.arange(len(slots))
        low = np.where(is_open, self._values(s.key_low), self.dtype.type(np.inf))
        # −0.0 has a key of its own, which no element has, but is not less than 0.0.
        zero = order_keys(np.zeros(1, self.dtype))[0]
        key_high = np.where(s.key_high == zero - np.uint64(1), zero - np.uint64(2), s.key_high)
        high = np.where(is_open, self._values(key_high), self.dtype.type(-np.inf))
        lead, keys = np.empty(self._shape[0], self.dtype), np.empty(self._shape[0], signed)
        return _Open(
            self._table(low, np.inf),
            self._table(high, -np.inf),
            self._table(position, 0),
            s.key_low[slots].astype(unsigned),
            s.hash_low[slots],
            s.hash_high[slots],
            s.key_low[slots] == s.key_high[slots],
            _Leads(lead, lead.view(signed), keys, keys.view(unsigned)),
        )

    def count_first(
        self, blocks: Iterable[Rows], *, bits: int, n_bins: int, below: float
    ) -> np.ndarray:
        """Count as `ReadablePairs.count_first`."""
        n_groups, width = len(self.selection.groups), n_bins + 1
        # What has no quota is counted where nobody looks.
        cells = self._table((np.arange(n_groups) * width).astype(np.int32), n_groups * width)
        nowhere = np.int32(n_groups * width)
        counts = np.zeros((n_groups + 1) * width, np.int64)
        scale, limit = self.dtype.type(2.0 ** (bits - 1)), self.dtype.type(below)
        n_digits = np.int32(n_bins)
        for probs, given, _ in blocks:
            _count_first(probs, given, cells, nowhere, scale, n_digits, limit, counts)
        return counts.reshape(-1, width)[:n_groups]

    def count(self, blocks: Iterable[Rows], *, bits: int) -> np.ndarray:
        """Count as `selection.count`."""
        opened = self._open()
        counts = np.zeros((len(opened.tied), 1 << bits), np.int64)
        shift, _ = shifts(self.selection, bits)
        for probs, given, hashes in blocks:
            _count(probs, given, hashes, opened, shift, counts)
        return counts

    def collect(self, blocks: Iterable[Rows]) -> Elements:
        """Collect as `selection.collect`."""
        opened = self._open()
        parts: list[Elements] = [no_elements()]
        for probs, given, hashes in blocks:
            size = 1 << 14
            while True:
                out = Elements(
                    np.empty(size, np.int64), np.empty(size, np.uint64), np.empty(size, np.uint64)
                )
                n = _collect(probs, given, hashes, opened, out)
                if n <= size:
                    break
                size = n
            parts.append(Elements(*(part[:n].copy() for part in out)))
        slot, key, hashes = concatenate(parts)
        return Elements(self.selection.groups[self.selection.open_slots[slot]], key, hashes)

    def take(self, probs: Probs, given: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return whether a row is taken in any of its pairs; bool, shape (N,)."""
        taken = np.empty(len(probs), np.bool_)
        _take(probs, given, hashes, *self._cuts, taken)
        return taken

    @cached_property
    def _cuts(self) -> tuple[np.ndarray, np.ndarray]:
        cuts = self._table(self._values(self.selection.key_low), -np.inf)
        return cuts, self._table(self.selection.hash_low, 0)
