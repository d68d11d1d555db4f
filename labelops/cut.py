"""Which items come first, up to a limit: exact over any number of shards, in bounded memory.

Every item has a 64-bit key, the smaller the sooner it is taken: 32 bits of how sure we are, 32
bits of the hash of its id, so that ties are broken alike everywhere. The key at which the limit is
reached is found digit by digit from the left: each pass over the shards counts one digit of the
keys that share what is known so far, and counts add up exactly.
"""

from typing import NamedTuple

import numpy as np

DIGIT_BITS = 13
"""Five passes for 64 bits, with 64 kB of counts each."""

N_DIGITS = 1 << DIGIT_BITS

MAX_PASSES = -(-64 // DIGIT_BITS)


class Cut(NamedTuple):
    """Where the limit falls, as far as it is known.

    Attributes
    ----------
    prefix : leading bits of the key at the limit, right-aligned.
    known_bits : how many of its bits are known.
    room : how many items with that prefix can still be taken.
    is_all : the limit is not reached; every item is taken.
    """

    prefix: int
    known_bits: int
    room: int
    is_all: bool

    @property
    def is_final(self) -> bool:
        """Whether nothing more need be known."""
        return self.is_all or self.known_bits == 64 or self.room == 0


def open_cut(limit: int) -> Cut:
    """Return a cut of which only the limit is known."""
    return Cut(prefix=0, known_bits=0, room=limit, is_all=False)


def sure_first(doubt: np.ndarray, item_hash: np.ndarray) -> np.ndarray:
    """Return keys that order items by doubt, then by the hash of their id.

    Parameters
    ----------
    doubt
        Non-negative numbers; compared in single precision. The bits of non-negative floats are
        ordered as the floats are.
    item_hash
        uint64, shape (N,).

    Returns
    -------
    uint64, shape (N,).

    Examples
    --------
    >>> hashes = np.array([0, 2, 1], np.uint64) << np.uint64(32)
    >>> keys = sure_first(np.array([0.5, 0.1, 0.1]), hashes)
    >>> np.argsort(keys).tolist()
    [2, 1, 0]
    """
    # Adding zero turns −0.0, whose bits are the largest, into 0.0.
    bits = (np.maximum(doubt, 0).astype(np.float32) + np.float32(0)).view(np.uint32)
    return np.asarray((bits.astype(np.uint64) << np.uint64(32)) | (item_hash >> np.uint64(32)))


def count_digits(keys: np.ndarray, cut: Cut) -> np.ndarray:
    """Count the next digit of the keys that share the known bits.

    Returns
    -------
    int64, shape (8192,); zeros when the cut is final. Counts of shards are added.
    """
    if cut.is_final:
        return np.zeros(N_DIGITS, np.int64)
    if cut.known_bits:
        keys = keys[(keys >> np.uint64(64 - cut.known_bits)) == np.uint64(cut.prefix)]
    shift = 64 - cut.known_bits - _width(cut)
    digits = (keys >> np.uint64(shift)) & np.uint64((1 << _width(cut)) - 1)
    return np.bincount(digits.astype(np.int64), minlength=N_DIGITS)


def narrow(cut: Cut, counts: np.ndarray) -> Cut:
    """Return the cut with one digit more.

    Parameters
    ----------
    cut
        What was known.
    counts
        Sum of `count_digits` over all shards.

    Examples
    --------
    >>> keys = np.arange(10, dtype=np.uint64)
    >>> cut = open_cut(3)
    >>> while not cut.is_final:
    ...     cut = narrow(cut, count_digits(keys, cut))
    >>> keys[is_taken(keys, cut)].tolist()
    [0, 1, 2]
    """
    if cut.is_final:
        return cut
    total = np.cumsum(counts)
    if cut.known_bits == 0 and int(total[-1]) <= cut.room:
        return cut._replace(is_all=True)
    # More keys share the prefix than there is room, so such a digit exists.
    digit = int(np.searchsorted(total, cut.room, side="right"))
    before = int(total[digit - 1]) if digit else 0
    return Cut(
        prefix=(cut.prefix << _width(cut)) | digit,
        known_bits=cut.known_bits + _width(cut),
        room=cut.room - before,
        is_all=False,
    )


def is_taken(keys: np.ndarray, cut: Cut) -> np.ndarray:
    """Return which items come before the cut.

    Never more than the limit: of items with equal keys at the limit none is taken.
    """
    if cut.is_all:
        return np.ones(len(keys), bool)
    if cut.known_bits == 0:
        return np.zeros(len(keys), bool)
    return np.asarray((keys >> np.uint64(64 - cut.known_bits)) < np.uint64(cut.prefix))


def _width(cut: Cut) -> int:
    return min(DIGIT_BITS, 64 - cut.known_bits)


def pack(cut: Cut) -> np.ndarray:
    """Return a cut as four uint64, for storing."""
    return np.array([cut.prefix, cut.known_bits, cut.room, cut.is_all], np.uint64)


def unpack(values: np.ndarray) -> Cut:
    """Return the cut that `pack` packed."""
    prefix, known_bits, room, is_all = (int(value) for value in values)
    return Cut(prefix=prefix, known_bits=known_bits, room=room, is_all=bool(is_all))
