"""The order in which a person should look at issues, over any number of shards."""

from typing import NamedTuple

import numpy as np

from labelops.confident.keys import order_keys

# F issues

ISSUE = np.dtype([("key", np.uint32), ("hash", np.uint64)])
"""Place of an issue in the order: its score as an ordered integer, then the hash of its item."""


LATER = np.uint32(1 << 30)
"""More than the keys of two scores in [0, 1] differ, ties told apart."""

STEPS = 1 << 20
"""Among scores of exactly zero so many probabilities of another class are told apart."""


def places(
    scores: np.ndarray,
    hashes: np.ndarray,
    is_later: np.ndarray | None = None,
    p_other: np.ndarray | None = None,
) -> np.ndarray:
    """Return what issues are sorted by: lower scores (float32) first, ties by the item's hash.

    Parameters
    ----------
    scores, hashes
        In [0, 1], and uint64, shape (F,).
    is_later
        Those come after all others; bool, shape (F,).
    p_other
        How probable another class is. Of scores of exactly zero, where a model says that the given
        class is impossible, those come first that speak most for another one. Shape (F,).

    Returns
    -------
    Records of type `ISSUE`, shape (F,), in the order given.

    Examples
    --------
    >>> zero, hashes = np.zeros(3, np.float32), np.arange(3, dtype=np.uint64)
    >>> np.argsort(places(zero, hashes, p_other=np.array([0.5, 1.0, 0.6]))["key"]).tolist()
    [1, 2, 0]
    """
    issues = np.empty(len(scores), ISSUE)
    keys = order_keys(scores)
    if p_other is not None:
        zero = np.flatnonzero(scores == 0)
        steps = np.clip(p_other[zero].astype(np.float64), 0, 1) * STEPS
        keys[zero] -= np.rint(steps).astype(np.uint64)
    issues["key"] = keys.astype(np.uint32)
    if is_later is not None:
        issues["key"][is_later] += LATER
    issues["hash"] = hashes
    return issues


class Known(NamedTuple):
    """Sorted places of the issues of one part, as little as is needed to count those before others.

    Attributes
    ----------
    key : uint32, ascending, shape (M,).
    tied_hash : hashes of those whose key is not the only one of its value, in order; uint64. Keys
        repeat seldom, and hashes do not compress.
    """

    key: np.ndarray
    tied_hash: np.ndarray


def part_of(hashes: np.ndarray, n_parts: int) -> np.ndarray:
    """Return into which of equal ranges of all hashes each one falls; uint64, shape (F,)."""
    return np.asarray(((hashes >> np.uint64(32)) * np.uint64(n_parts)) >> np.uint64(32))


def know(issues: np.ndarray) -> Known:
    """Sort the places of a part, and keep what counting needs."""
    issues = sort_places(issues)
    key = np.ascontiguousarray(issues["key"])
    return Known(key, issues["hash"][_is_tied(key)])


def _is_tied(key: np.ndarray) -> np.ndarray:
    same = key[1:] == key[:-1]
    return np.append(same, False) | np.append(False, same) if len(key) else np.zeros(0, bool)


def sort_places(issues: np.ndarray) -> np.ndarray:
    """Return places in ascending order."""
    # Sorting one integer is much faster than sorting by two; those that share 64 bits are rare.
    packed = (issues["key"].astype(np.uint64) << np.uint64(32)) | (issues["hash"] >> np.uint64(32))
    order = np.argsort(packed)
    if np.any(packed[order][1:] == packed[order][:-1]):
        order = np.lexsort((issues["hash"], issues["key"]))
    return np.asarray(issues[order])


def count_before(known: Known, wanted: np.ndarray, *, part: int, n_parts: int) -> np.ndarray:
    """Count the issues of a part that come before each of some issues of any part.

    Summed over all parts, plus one, it is the rank.

    Parameters
    ----------
    known
        From `know`, of all issues whose hash falls into the part.
    wanted
        Places of issues, shape (F,).
    part, n_parts
        Which part it is, of how many.

    Returns
    -------
    int64, shape (F,).

    Examples
    --------
    >>> issues = places(np.array([0.5, 0.1, 0.1], np.float32), np.array([0, 2, 1], np.uint64))
    >>> (count_before(know(issues), issues, part=0, n_parts=1) + 1).tolist()
    [3, 2, 1]
    """
    keys = known.key
    # In their order, searches for one after the other stay in the cache.
    order = np.argsort(wanted["key"])
    low, high = np.empty(len(wanted), np.int64), np.empty(len(wanted), np.int64)
    low[order] = np.searchsorted(keys, wanted["key"][order], side="left")
    high[order] = np.searchsorted(keys, wanted["key"][order], side="right")
    # Among equal scores the hash decides. All hashes of an earlier part are smaller, and of a later
    # one larger. Within the part a key alone of its value is the wanted issue's own; among several
    # their places are bisected, all side by side.
    of_part = part_of(wanted["hash"], n_parts)
    low = np.where(of_part > part, high, low)
    tied = np.flatnonzero((of_part == part) & (high - low > 1))
    hashes = np.zeros(len(keys), np.uint64)
    hashes[_is_tied(keys)] = known.tied_hash
    while tied.size:
        middle = (low[tied] + high[tied]) // 2
        is_before = hashes[middle] < wanted["hash"][tied]
        low[tied] = np.where(is_before, middle + 1, low[tied])
        high[tied] = np.where(is_before, high[tied], middle)
        tied = tied[high[tied] > low[tied]]
    return low


def rank(scores: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return ranks from 1 (lowest score); int64, shape (F,)."""
    issues = places(scores, hashes)
    return count_before(know(issues), issues, part=0, n_parts=1) + 1
