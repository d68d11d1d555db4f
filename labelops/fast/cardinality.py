"""Posteriors of the items of bags, compiled: what `labelops.proportions.cardinality` defines.

Bags beyond `SINGLE` items are worked on as a tree, as `labelops.fast.tree` explains, with tails cut
off that together change no belief by more than a requested accuracy. What was cut is known when a
bag is done; should it be too much, the bag is done again with nothing cut.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from labelops.fast.jit import compiled
from labelops.fast.tree import Room, Sides, tree_marginals, tree_room
from labelops.proportions.cardinality import REACH, Marginals, check_bags
from labelops.proportions.counts import Counts

# N items, B bags, n items of one bag

ACCURACY = 1e-12
"""Most that a belief may be off for tails that were cut."""

CHUNK_ITEMS = 1 << 14
"""Items that a thread takes at a time."""

ENOUGH = 1e-3
"""A tilt is good enough when the expected count is so near: any tilt gives the same marginals."""

MOST_STEPS = 1200
"""Halving the range of a double takes 1 075 steps to its last bit; a tilt is found in some five."""


class Bounded(NamedTuple):
    """Marginals and how far they can be off.

    Attributes
    ----------
    marginals : as `labelops.proportions.cardinality.marginals` defines them. A message is as good
        as its belief: of one that is within the bound of 0 or 1 it says no more than that, and
        beyond ±700 it may be infinite.
    bound : most that a belief of a bag can be off for what was cut, float64, shape (B,); 0 where
        nothing was.
    """

    marginals: Marginals
    bound: np.ndarray


class BagRoom(NamedTuple):
    """Room to work on one bag: its items whose log-odds are finite, and g."""

    q: np.ndarray
    item: np.ndarray
    g: np.ndarray
    sides: Sides
    tree: Room


@compiled()
def sigmoid(x):  # type: ignore[no-untyped-def]
    """Return 1 / (1 + e^−x), accurate also where it is tiny."""
    if x >= 0:
        return 1 / (1 + np.exp(-x))
    e = np.exp(x)
    return e / (1 + e)


@compiled()
def _log_sigmoid(x):  # type: ignore[no-untyped-def]
    return -np.log1p(np.exp(-x)) if x >= 0 else x - np.log1p(np.exp(x))


@compiled()
def _tilt(q, n, low, high, centre, strength):  # type: ignore[no-untyped-def]
    # Newton's steps between bounds that close in. Without a strength they are made in the logit of
    # the expected share, which is nearly linear in θ.
    least, most = np.inf, -np.inf
    for i in range(n):
        least, most = min(least, q[i]), max(most, q[i])
    # At these a count of 0 and of n are expected, up to a millionth of `ENOUGH`.
    a, b = -most - np.log(n) - 20, -least + np.log(n) + 20
    theta = min(max(0.0, a), b)
    for _ in range(MOST_STEPS):
        expected, slope = 0.0, 0.0
        for i in range(n):
            p = sigmoid(q[i] + theta)
            expected += p
            slope += p * (1 - p)
        if strength > 0:
            best = centre - theta / (2 * strength)
            if low < best < high:
                slope += 1 / (2 * strength)
            best = min(max(best, np.float64(low)), np.float64(high))
        elif theta == 0:
            best = min(max(expected, np.float64(low)), np.float64(high))
        else:
            best = np.float64(low if theta > 0 else high)
        excess = expected - best
        if abs(excess) <= ENOUGH:
            return theta
        if excess > 0:
            b = theta
        else:
            a = theta
        # Between items that are far apart nothing says how far; a step of infinity is halved.
        step = np.inf
        if slope > 0 and strength == 0 and 0 < expected < n and 0 < best < n:
            step = np.log(best / (n - best)) - np.log(expected / (n - expected))
            step *= expected * (n - expected) / (n * slope)
        elif slope > 0:
            step = -excess / slope
        following = theta + step
        if not (a < following < b):
            following = a / 2 + b / 2
        theta = following
    return theta


@compiled()
def bag_marginals(log_odds, start, counts, b, accuracy, room, out):  # type: ignore[no-untyped-def]
    """Write beliefs and messages of one bag; return the log evidence and the error's bound."""
    q, item, g, sides, tree = room
    p, not_p, with_it, without = sides
    beliefs, messages, _ = out
    strength = counts.strength[b]
    n, n_sure = 0, 0
    for i in range(start[b], start[b + 1]):
        if np.isinf(log_odds[i]):
            is_positive = log_odds[i] > 0
            n_sure += is_positive
            beliefs[i] = 1.0 if is_positive else 0.0
            messages[i] = 0.0
        else:
            q[n], item[n] = log_odds[i], i
            n += 1
    low, high = max(counts.low[b] - n_sure, 0), min(counts.high[b] - n_sure, n)
    centre = counts.centre[b] - n_sure
    if low == n or high == 0:
        evidence = -strength * (low - centre) ** 2 if low == n else -strength * centre**2
        for j in range(n):
            beliefs[item[j]] = 1.0 if low == n else 0.0
            messages[item[j]] = np.inf if low == n else -np.inf
            evidence += _log_sigmoid(q[j] if low == n else -q[j])
        return evidence, 0.0
    if low == 0 and high == n and strength == 0:
        for j in range(n):
            beliefs[item[j]] = sigmoid(q[j])
            messages[item[j]] = 0.0
        return 0.0, 0.0

    theta = _tilt(q, n, low, high, centre, strength)
    gained, variance = 0.0, 0.0
    for j in range(n):
        t = q[j] + theta
        gained += _log_sigmoid(-q[j]) - _log_sigmoid(-t)
        t = min(max(t, -REACH), REACH)
        p[j], not_p[j] = sigmoid(t), sigmoid(-t)
        variance += p[j] * not_p[j]
    shift = -np.inf
    for s in range(low, high + 1):
        g[s] = -strength * (s - centre) ** 2 - theta * s
        shift = max(shift, g[s])
    for s in range(low, high + 1):
        g[s] = np.exp(g[s] - shift)
    total, cut = tree_marginals(sides, n, low, high, g, accuracy, variance, tree)
    if cut > accuracy * total:
        total, cut = tree_marginals(sides, n, low, high, g, 0.0, variance, tree)
    for j in range(n):
        weight = p[j] * with_it[j]
        beliefs[item[j]] = weight / (weight + not_p[j] * without[j])
        messages[item[j]] = theta + np.log(with_it[j] / without[j])
    return gained + shift + np.log(total), cut / total


@compiled()
def make_room(start, bags):  # type: ignore[no-untyped-def]
    """Return room to work on each of some bags."""
    size = 0
    for b in bags:
        size = max(size, start[b + 1] - start[b])
    sides = Sides(np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    item = np.empty(size, np.int64)
    return BagRoom(np.empty(size), item, np.empty(size + 1), sides, tree_room(size))


@compiled()
def _marginals(log_odds, start, counts, bags, accuracy, out, bound):  # type: ignore[no-untyped-def]
    """Write the marginals of some bags, one after the other."""
    room = make_room(start, bags)
    for b in bags:
        out.log_evidence[b], bound[b] = bag_marginals(
            log_odds, start, counts, b, accuracy, room, out
        )


def chunks(start: np.ndarray) -> list[tuple[int, int]]:
    """Cut bags into runs of about `CHUNK_ITEMS` items.

    Examples
    --------
    >>> chunks(np.array([0, CHUNK_ITEMS, CHUNK_ITEMS + 1, CHUNK_ITEMS + 2]))
    [(0, 1), (1, 3)]
    """
    n_bags, edge = len(start) - 1, [0]
    while edge[-1] < n_bags:
        reach = start[edge[-1]] + CHUNK_ITEMS
        edge.append(max(edge[-1] + 1, int(np.searchsorted(start, reach, side="right")) - 1))
    return list(pairwise(edge))


def bounded_marginals(
    log_odds: np.ndarray,
    start: np.ndarray,
    counts: Counts,
    *,
    accuracy: float = ACCURACY,
    n_threads: int = 2,
) -> Bounded:
    """Do what `marginals` does, and say how far off each bag's beliefs can be."""
    q, start = check_bags(log_odds, start, counts)
    if not accuracy >= 0:
        raise ValueError(f"marginals: accuracy must be at least 0, got {accuracy}")
    n_bags = len(start) - 1
    out = Marginals(np.empty(len(q)), np.empty(len(q)), np.empty(n_bags))
    bound = np.empty(n_bags)

    def work(chunk: tuple[int, int]) -> None:
        _marginals(q, start, counts, np.arange(*chunk), accuracy, out, bound)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, chunks(start)))
    return Bounded(out, bound)


def marginals(
    log_odds: np.ndarray,
    start: np.ndarray,
    counts: Counts,
    *,
    accuracy: float = ACCURACY,
    n_threads: int = 2,
) -> Marginals:
    """Do what `labelops.proportions.cardinality.marginals` does, faster.

    Parameters
    ----------
    accuracy
        Most that a belief may be off, beside rounding; 0 for nothing cut off.
    n_threads
        Bags worked on side by side; the answer does not depend on it.

    Notes
    -----
    O(n log n) time for a bag of n at a given accuracy, O(n²) at 0; in either case only positive
    numbers are added and multiplied. The beliefs of a bag with an exact count sum to it up to
    rounding, whatever was cut.

    Examples
    --------
    >>> from labelops.proportions.counts import hard_counts
    >>> q = np.array([0.5, -1.0, 2.0, 0.3])
    >>> marginals(q, np.array([0, 4]), hard_counts(np.array([2]))).beliefs.round(6).tolist()
    [0.532363, 0.135493, 0.881978, 0.450166]
    """
    return bounded_marginals(
        log_odds, start, counts, accuracy=accuracy, n_threads=n_threads
    ).marginals
