"""Counting positives of one bag in a tree of its items: n log n work, and an error that is known.

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

Bags that fit into one block are the forward-backward recursion of
`labelops.proportions.cardinality`, with nothing cut.
"""

from typing import NamedTuple

import numpy as np

from labelops.fast.jit import compiled

# n items of one bag; a node of the tree holds P(its count = low + s) for s = 0 … length − 1

BLOCK = 16
"""Items of a leaf."""

SINGLE = 48
"""Bags up to this size are one block."""

LOW, LENGTH, AT = 0, 1, 2


class Sides(NamedTuple):
    """P(y_i = 1) and P(y_i = 0) of the items of a bag, and room for E[g | y_i] of either."""

    p: np.ndarray
    not_p: np.ndarray
    with_it: np.ndarray
    without: np.ndarray


class Block(NamedTuple):
    """Room for the recursion over one block."""

    forward: np.ndarray
    back: np.ndarray


class Room(NamedTuple):
    """Room for the nodes of a tree, and for one block."""

    pmf: np.ndarray
    outside: np.ndarray
    inner: np.ndarray
    padded: np.ndarray
    nodes: np.ndarray
    block: Block


@compiled()
def tree_room(size):  # type: ignore[no-untyped-def]
    """Return room for bags of up to `size` items."""
    n_blocks = (size + BLOCK - 1) // BLOCK
    n_levels = 1
    while 1 << (n_levels - 1) < n_blocks:
        n_levels += 1
    side = max(BLOCK, min(size, SINGLE)) + 2
    return Room(
        np.empty((n_levels + 1) * (size + n_blocks + 1)),
        np.empty(size + n_blocks + 1),
        np.empty(size + n_blocks + 1),
        np.zeros(2 * size + 16),
        np.empty((3, 2 * n_blocks + n_levels + 1), np.int64),
        Block(np.zeros((side, side)), np.empty(side)),
    )


@compiled()
def _block_pmf(p, not_p, first, n, pmf, at):  # type: ignore[no-untyped-def]
    pmf[at] = 1.0
    for i in range(n):
        a, b = p[first + i], not_p[first + i]
        pmf[at + i + 1] = a * pmf[at + i]
        for s in range(i, 0, -1):
            pmf[at + s] = b * pmf[at + s] + a * pmf[at + s - 1]
        pmf[at] *= b


@compiled()
def _block_marginals(sides, first, n, low, length, outside, at, block):  # type: ignore[no-untyped-def]
    """Do the forward-backward recursion, outside[at + s] being g(low + s); return E g."""
    p, not_p, with_it, without = sides
    forward, back = block
    top = low + length - 1
    for s in range(low):
        back[s] = 0.0
    for s in range(length):
        back[low + s] = outside[at + s]
    forward[0, 0] = 1.0
    for i in range(n - 1):
        a, b = p[first + i], not_p[first + i]
        forward[i, i + 1] = 0.0
        forward[i + 1, 0] = b * forward[i, 0]
        for s in range(1, min(i + 1, top) + 1):
            forward[i + 1, s] = b * forward[i, s] + a * forward[i, s - 1]
    for i in range(n - 1, -1, -1):
        # Sums of the two are interleaved, so that neither waits for itself.
        with_sum, without_sum = 0.0, 0.0
        last = min(i, top - 1)
        for s in range(last + 1):
            with_sum += forward[i, s] * back[s + 1]
            without_sum += forward[i, s] * back[s]
        if last < min(i, top):
            without_sum += forward[i, top] * back[top]
        with_it[first + i], without[first + i] = with_sum, without_sum
        a, b = p[first + i], not_p[first + i]
        for s in range(last + 1):
            back[s] = b * back[s] + a * back[s + 1]
        if last < min(i, top):
            back[top] *= b
    return back[0]


@compiled()
def _convolve(values, x, n_x, y, n_y, out):  # type: ignore[no-untyped-def]
    # values[out …] = values[x …] * values[y …], four of the shorter's terms at a time.
    if n_x > n_y:
        x, n_x, y, n_y = y, n_y, x, n_x
    for i in range(n_x + n_y - 1):
        values[out + i] = 0.0
    j = 0
    while j + 4 <= n_x and n_y >= 4:
        a, b, c, d = values[x + j], values[x + j + 1], values[x + j + 2], values[x + j + 3]
        to = out + j
        values[to] += a * values[y]
        values[to + 1] += a * values[y + 1] + b * values[y]
        values[to + 2] += a * values[y + 2] + b * values[y + 1] + c * values[y]
        for i in range(3, n_y):
            values[to + i] += (a * values[y + i] + b * values[y + i - 1]) + (
                c * values[y + i - 2] + d * values[y + i - 3]
            )
        end = y + n_y
        to += n_y
        values[to] += b * values[end - 1] + c * values[end - 2] + d * values[end - 3]
        values[to + 1] += c * values[end - 1] + d * values[end - 2]
        values[to + 2] += d * values[end - 1]
        j += 4
    while j < n_x:
        a = values[x + j]
        for i in range(n_y):
            values[out + j + i] += a * values[y + i]
        j += 1


@compiled()
def _correlate(values, x, n_x, padded, out, at, n_out):  # type: ignore[no-untyped-def]
    # out[at + i] = Σ_j values[x + j] padded[i + j]
    for i in range(n_out):
        out[at + i] = 0.0
    j = 0
    while j + 4 <= n_x:
        a, b, c, d = values[x + j], values[x + j + 1], values[x + j + 2], values[x + j + 3]
        for i in range(n_out):
            k = i + j
            out[at + i] += (a * padded[k] + b * padded[k + 1]) + (
                c * padded[k + 2] + d * padded[k + 3]
            )
        j += 4
    while j < n_x:
        a = values[x + j]
        for i in range(n_out):
            out[at + i] += a * padded[i + j]
        j += 1


@compiled()
def _trim(pmf, at, low, length, least, most, allowed):  # type: ignore[no-untyped-def]
    # Counts outside [least, most] are impossible given the bag's count, so leaving them out costs
    # nothing; each tail beyond that may lose a mass of `allowed`.
    a, b = max(0, least - low), min(length - 1, most - low)
    cut_low, cut_high = 0.0, 0.0
    while a < b and cut_low + pmf[at + a] <= allowed:
        cut_low += pmf[at + a]
        a += 1
    while a < b and cut_high + pmf[at + b] <= allowed:
        cut_high += pmf[at + b]
        b -= 1
    return a, b, cut_low + cut_high


@compiled()
def tree_marginals(sides, n, low, high, g, accuracy, variance, room):  # type: ignore[no-untyped-def]
    """Write E[g | y_i = 1], E[g | y_i = 0]; return E g and the probability of what was cut.

    `g` holds g(s) for low ≤ s ≤ high, with largest value 1. With `accuracy` 0 nothing is cut.
    """
    if n <= SINGLE:
        return _block_marginals(sides, 0, n, low, high - low + 1, g, low, room.block), 0.0

    pmf, outside, inner, padded, nodes, block = room
    n_blocks = (n + BLOCK - 1) // BLOCK
    # E g is about this; what may be cut is shared by the tails of all nodes.
    allowed = accuracy * 0.25 / np.sqrt(6.3 * (variance + 0.25)) / (4 * n_blocks)
    end, cut = 0, 0.0
    for k in range(n_blocks):
        size = min(BLOCK, n - k * BLOCK)
        _block_pmf(sides.p, sides.not_p, k * BLOCK, size, pmf, end)
        a, b, lost = _trim(pmf, end, 0, size + 1, low - (n - size), high, allowed)
        cut += lost
        nodes[LOW, k], nodes[LENGTH, k], nodes[AT, k] = a, b - a + 1, end + a
        end += b + 1

    # Upwards: node k of a level is made of nodes 2 k and 2 k + 1 below; an odd one is passed on.
    begin, n_nodes, span = 0, n_blocks, BLOCK
    while n_nodes > 2:
        following, n_half = begin + n_nodes, (n_nodes + 1) // 2
        for k in range(n_half):
            left, to = begin + 2 * k, following + k
            if 2 * k + 1 == n_nodes:
                for row in range(3):
                    nodes[row, to] = nodes[row, left]
                continue
            right = left + 1
            n_left, n_right = nodes[LENGTH, left], nodes[LENGTH, right]
            _convolve(pmf, nodes[AT, left], n_left, nodes[AT, right], n_right, end)
            lowest = nodes[LOW, left] + nodes[LOW, right]
            length = n_left + n_right - 1
            size = min((k + 1) * 2 * span, n) - k * 2 * span
            a, b, lost = _trim(pmf, end, lowest, length, low - (n - size), high, allowed)
            cut += lost
            nodes[LOW, to], nodes[LENGTH, to], nodes[AT, to] = lowest + a, b - a + 1, end + a
            end += b + 1
        begin, n_nodes, span = following, n_half, 2 * span

    # The two below the root see g itself.
    left, right = begin, begin + 1
    lowest = nodes[LOW, left] + nodes[LOW, right]
    highest = lowest + nodes[LENGTH, left] + nodes[LENGTH, right] - 2
    for s in range(lowest, highest + 1):
        padded[s - lowest] = g[s] if low <= s <= high else 0.0
    _see(pmf, nodes, left, right, padded, lowest, outside, 0)
    _see(pmf, nodes, right, left, padded, lowest, outside, nodes[LENGTH, left])
    total = 0.0
    for s in range(nodes[LENGTH, left]):
        total += pmf[nodes[AT, left] + s] * outside[s]

    # Downwards: what a node sees is what its parent sees, and its sibling.
    seen, unseen = outside, inner
    while n_nodes < n_blocks:
        n_below = n_blocks
        below = 0
        while below + n_below < begin:
            below += n_below
            n_below = (n_below + 1) // 2
        at, to = 0, 0
        for k in range(n_nodes):
            node, left = begin + k, below + 2 * k
            length = nodes[LENGTH, node]
            if 2 * k + 1 == n_below:
                for s in range(length):
                    unseen[to + s] = seen[at + s]
                to += length
            else:
                right = left + 1
                n_left, n_right = nodes[LENGTH, left], nodes[LENGTH, right]
                lowest = nodes[LOW, left] + nodes[LOW, right]
                before = nodes[LOW, node] - lowest
                for s in range(before):
                    padded[s] = 0.0
                for s in range(length):
                    padded[before + s] = seen[at + s]
                for s in range(before + length, n_left + n_right - 1):
                    padded[s] = 0.0
                _see(pmf, nodes, left, right, padded, lowest, unseen, to)
                _see(pmf, nodes, right, left, padded, lowest, unseen, to + n_left)
                to += n_left + n_right
            at += length
        seen, unseen = unseen, seen
        begin, n_nodes = below, n_below

    at = 0
    for k in range(n_blocks):
        first, length = k * BLOCK, nodes[LENGTH, k]
        size = min(BLOCK, n - first)
        _block_marginals(sides, first, size, nodes[LOW, k], length, seen, at, block)
        at += length
    return total, cut


@compiled()
def _see(pmf, nodes, node, sibling, padded, lowest, out, at):  # type: ignore[no-untyped-def]
    # padded[s] is what their parent sees at a count of lowest + s.
    _correlate(
        pmf, nodes[AT, sibling], nodes[LENGTH, sibling], padded, out, at, nodes[LENGTH, node]
    )
