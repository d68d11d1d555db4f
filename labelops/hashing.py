"""Hashes of item ids: the source of every order and every fold.

An order that comes from the id alone is the same however the data set is cut into shards.
"""

from collections.abc import Sequence

import numpy as np
import xxhash


def hash_integers(ids: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes of integer ids (splitmix64 finaliser); uint64, shape (N,).

    Distinct ids have distinct hashes: the map is a bijection.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators. OOPSLA 2014, figure 16
    (mix64variant13).

    Examples
    --------
    >>> hash_integers(np.array([0, 1]))
    array([16294208416658607535, 10451216379200822465], dtype=uint64)
    """
    x = ids.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def hash_strings(ids: Sequence[str]) -> np.ndarray:
    """Return 64-bit hashes of string ids (XXH3 of their UTF-8 bytes); uint64, shape (N,).

    Two ids collide with probability 2⁻⁶⁴.

    Examples
    --------
    >>> hash_strings(["a"])
    array([16629034431890738719], dtype=uint64)
    """
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(item.encode()) for item in ids), np.uint64, len(ids))


def is_sampled(hashes: np.ndarray, *, wanted: int, total: int) -> np.ndarray:
    """Return which of `total` items are among about so many that are wanted, by their hash; bool.

    Examples
    --------
    >>> is_sampled(np.array([0, 2**63 + 1], np.uint64), wanted=1, total=2).tolist()
    [True, False]
    """
    if wanted >= total:
        return np.ones(len(hashes), bool)
    return np.asarray(hashes <= np.uint64(wanted * 2**64 // total))


def is_drawn(hashes: np.ndarray, *, share: float) -> np.ndarray:
    """Return which hashes belong to a share of all; bool."""
    return np.asarray((hashes >> np.uint64(32)) < np.uint64(round(share * 2**32)))
