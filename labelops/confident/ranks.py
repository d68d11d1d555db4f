"""The order in which a person should look at issues, over any number of shards."""

import numpy as np

from labelops.confident.keys import order_keys

# F issues

ISSUE = np.dtype([("key", np.uint32), ("hash", np.uint64)])
"""Place of an issue in the order: its score as an ordered integer, then the hash of its item."""


def places(scores: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return what issues are sorted by: lower scores first, ties by the hash of the item.

    Parameters
    ----------
    scores
        float32, shape (F,).
    hashes
        uint64, shape (F,).

    Returns
    -------
    Records of type `ISSUE`, shape (F,), in the order given.
    """
    found = np.empty(len(scores), ISSUE)
    found["key"] = order_keys(scores).astype(np.uint32)
    found["hash"] = hashes
    return found


def sort_places(found: np.ndarray) -> np.ndarray:
    """Return places in ascending order."""
    # Sorting one integer is much faster than sorting by two; those that share 64 bits are rare.
    packed = (found["key"].astype(np.uint64) << np.uint64(32)) | (found["hash"] >> np.uint64(32))
    order = np.argsort(packed)
    if np.any(packed[order][1:] == packed[order][:-1]):
        order = np.lexsort((found["hash"], found["key"]))
    return np.asarray(found[order])


def count_before(sorted_places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Count the places that come before each of some others.

    Summed over disjoint sets that make up all issues, plus one, it is the rank.

    Parameters
    ----------
    sorted_places
        From `sort_places`, shape (M,).
    wanted
        Places, shape (F,).

    Returns
    -------
    int64, shape (F,).

    Examples
    --------
    >>> all_of_them = places(np.array([0.5, 0.1, 0.1], np.float32), np.array([0, 2, 1], np.uint64))
    >>> (count_before(sort_places(all_of_them), all_of_them) + 1).tolist()
    [3, 2, 1]
    """
    keys, hashes = np.ascontiguousarray(sorted_places["key"]), sorted_places["hash"]
    # In their order, searches for one after the other stay in the cache.
    order = np.argsort(wanted["key"])
    low, high = np.empty(len(wanted), np.int64), np.empty(len(wanted), np.int64)
    low[order] = np.searchsorted(keys, wanted["key"][order], side="left")
    high[order] = np.searchsorted(keys, wanted["key"][order], side="right")
    # Among equal scores the hash decides: all such places are bisected side by side.
    tied = np.flatnonzero(high > low)
    while tied.size:
        middle = (low[tied] + high[tied]) // 2
        is_before = hashes[middle] < wanted["hash"][tied]
        low[tied] = np.where(is_before, middle + 1, low[tied])
        high[tied] = np.where(is_before, high[tied], middle)
        tied = tied[high[tied] > low[tied]]
    return low


def rank(scores: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return ranks from 1 (lowest score); int64, shape (F,)."""
    found = places(scores, hashes)
    return count_before(sort_places(found), found) + 1
