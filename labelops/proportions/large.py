"""Posteriors in a large bag, with work that grows with n log n and an error that is known.

Items are leaves of a binary tree. Upwards, each node gets the distribution of its own count, the
convolution of its two halves'. Downwards, each node learns what g the count of all others makes of
its own: O(s) = E g(s + count of the others), the correlation of what its parent sees with the
distribution of its sibling. A leaf of a few items is then a little bag with g = O.

After the tilt all that matters of a node with variance V lies within some √V of its mean; tails are
cut off. Let T be the labelings in which no node's count falls into a cut tail. All that is computed
is exactly the posterior given T, so

    |belief − exact| ≤ P(not T | count) ≤ P(not T) · max g / E g ≤ cut / total,

with `cut` the sum of what was cut anywhere and `total` the E g that came out. Both are numbers at
hand when the bag is done, so the bound needs no assumption and no constant. For an exact count the
posterior given T still has exactly k positives, so the beliefs sum to k. Convolutions are direct:
all terms are positive, and nothing cancels as it would in a Fourier transform.

A node of m items has O(√(m log 1/ε)) counts left, a convolution costs their square, O(m log 1/ε),
and so does every level of the tree together: O(n log n log 1/ε) in all.
"""

# n items of one bag

from typing import NamedTuple

import numpy as np

from labelops.proportions.cardinality import (
    Counted,
    Marginals,
    bag_marginals,
    forward_backward,
    sigmoid,
)

ACCURACY = 1e-12
"""Most that a belief may be off for tails that were cut."""

LEAF = 16


class Bounded(NamedTuple):
    """Marginals and how far they can be off.

    Attributes
    ----------
    marginals : as `labelops.proportions.cardinality.marginals` defines them. A message is as good
        as its belief: of one that is within the bound of 0 or 1 it says no more than that.
    bound : most that a belief of a bag can be off for what was cut, float64, shape (B,); 0 where
        nothing was.
    """

    marginals: Marginals
    bound: np.ndarray


class _Node(NamedTuple):
    """Some items: P(their count = low + s) for s = 0 …, and the two halves they are made of."""

    first: int
    last: int
    low: int
    pmf: np.ndarray
    halves: "tuple[_Node, _Node] | None"
    cut: float


def large_bag_marginals(
    log_odds: np.ndarray, log_f: np.ndarray, *, accuracy: float = ACCURACY
) -> Bounded:
    """Do what `labelops.proportions.cardinality.bag_marginals` does, in a tree.

    Parameters
    ----------
    log_odds, log_f
        As there.
    accuracy
        Most that a belief may be off, beside rounding. If more was cut, it is done again without.

    Examples
    --------
    >>> q, log_f = np.linspace(-3, 3, 100), np.full(101, -np.inf)
    >>> log_f[30] = 0
    >>> found = large_bag_marginals(q, log_f)
    >>> exact = bag_marginals(q, log_f)
    >>> bool(np.abs(found.marginals.beliefs - exact.beliefs).max() < 1e-12)
    True
    """
    bound = 0.0

    def count(tilted: np.ndarray, g: np.ndarray) -> Counted:
        nonlocal bound
        counted, cut = count_in_tree(tilted, g, accuracy=accuracy)
        if cut > accuracy * counted.total:
            counted, cut = count_in_tree(tilted, g, accuracy=0.0)
        bound = cut / counted.total
        return counted

    found = bag_marginals(log_odds, log_f, count=count)
    return Bounded(found, np.array([bound]))


def count_in_tree(tilted: np.ndarray, g: np.ndarray, *, accuracy: float) -> tuple[Counted, float]:
    """Count as `labelops.proportions.cardinality.count_directly` does; and return what was cut.

    Parameters
    ----------
    tilted, g
        As there; the largest g is 1.
    accuracy
        What is cut shall be about this share of E g; 0 for nothing.
    """
    n = len(tilted)
    p, not_p = sigmoid(tilted), sigmoid(-tilted)
    # E g is at least about the height of the mode; what may be cut is shared by all nodes' tails.
    mode = 0.25 / np.sqrt(2 * np.pi * (p @ not_p + 0.25))
    allowed = accuracy * mode / (4 * (n // LEAF + 1))
    root = _grow(p, not_p, 0, n, allowed)
    with_it, without = np.empty(n), np.empty(n)
    _descend(root, g[root.low : root.low + len(root.pmf)], p, not_p, with_it, without)
    total = float(root.pmf @ g[root.low : root.low + len(root.pmf)])
    return Counted(with_it, without, total), root.cut


def _grow(p: np.ndarray, not_p: np.ndarray, first: int, last: int, allowed: float) -> _Node:
    if last - first <= LEAF:
        pmf = np.ones(1)
        for i in range(first, last):
            pmf = np.convolve(pmf, [not_p[i], p[i]])
        return _trim(_Node(first, last, 0, pmf, None, 0.0), allowed)
    middle = first + (last - first) // 2
    a = _grow(p, not_p, first, middle, allowed)
    b = _grow(p, not_p, middle, last, allowed)
    pmf = np.convolve(a.pmf, b.pmf)
    return _trim(_Node(first, last, a.low + b.low, pmf, (a, b), a.cut + b.cut), allowed)


def _trim(node: _Node, allowed: float) -> _Node:
    """Cut both tails as long as each loses at most the allowed mass, but not all."""
    up, down = np.cumsum(node.pmf), np.cumsum(node.pmf[::-1])
    a = min(int(np.searchsorted(up, allowed, side="right")), len(up) - 1)
    b = min(int(np.searchsorted(down, allowed, side="right")), len(up) - 1 - a)
    lost = (up[a - 1] if a else 0.0) + (down[b - 1] if b else 0.0)
    kept = node.pmf[a : len(up) - b]
    return node._replace(low=node.low + a, pmf=kept, cut=node.cut + float(lost))


def _descend(
    node: _Node,
    seen: np.ndarray,
    p: np.ndarray,
    not_p: np.ndarray,
    with_it: np.ndarray,
    without: np.ndarray,
) -> None:
    """Write E[g | y_i] of a node's items, which see `seen` at the counts that it kept."""
    if node.halves is None:
        items = slice(node.first, node.last)
        g = np.concatenate([np.zeros(node.low), seen])
        counted = forward_backward(p[items], not_p[items], g)
        with_it[items], without[items] = counted.with_it, counted.without
        return
    a, b = node.halves
    # At a count that the node has cut off, nothing is seen.
    wide = np.zeros(len(a.pmf) + len(b.pmf) - 1)
    wide[node.low - a.low - b.low :][: len(seen)] = seen
    _descend(a, np.correlate(wide, b.pmf), p, not_p, with_it, without)
    _descend(b, np.correlate(wide, a.pmf), p, not_p, with_it, without)
