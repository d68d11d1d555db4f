"""Exact posterior of every item of a bag, given independent log-odds and what its count is.

P(y) ∝ exp(Σ_i q_i y_i) · f(Σ_i y_i), y ∈ {0, 1}ⁿ, for every bag by itself. Its marginals come from
counting forwards and backwards over the items. The count would underflow in large bags, so log-odds
are tilted first: adding θ to each and taking θ off per positive changes nothing, and θ can be
chosen so that the bag expects just the count that it most likely has.

This is the definition; `labelops.fast.cardinality` does the same compiled.
"""

# N items, B bags, n items of one bag

from typing import NamedTuple

import numpy as np

from labelops.proportions.counts import Counts, log_potential
from labelops.ragged import offsets

REACH = 700.0
"""Tilted log-odds beyond it are as good as certain; exp(−700) is not 0 yet."""


class Marginals(NamedTuple):
    """What the bags' counts say of their items.

    Attributes
    ----------
    beliefs : P(y_i = 1 | log-odds, count), float64, shape (N,).
    messages : μ_i, by how much the count moves the log-odds of item i: logit(belief) = q + μ,
        float64, shape (N,). −∞ or +∞ where the count leaves no choice; 0 for an item whose
        own log-odds are infinite.
    log_evidence : log E f(Σ y) under independent items with P(y_i = 1) = σ(q_i), float64,
        shape (B,). For an exact count that is log P(Σ y = k), the log-likelihood of the bag.
    """

    beliefs: np.ndarray
    messages: np.ndarray
    log_evidence: np.ndarray


class Counted(NamedTuple):
    """Counts of independent items, weighted by g.

    Attributes
    ----------
    with_it, without : E[g(Σ y) | y_i = 1] and E[g(Σ y) | y_i = 0], float64, shape (n,).
    total : E g(Σ y).
    """

    with_it: np.ndarray
    without: np.ndarray
    total: float


def marginals(log_odds: np.ndarray, start: np.ndarray, counts: Counts) -> Marginals:
    """Return the exact posterior of every item given its bag's count.

    Parameters
    ----------
    log_odds
        q, of each item by itself, ordered by bag; may be ±∞, shape (N,).
    start
        Where bags begin: bag b has the items start[b] … start[b + 1] − 1. int64, shape (B + 1,).
    counts
        What is known of each bag's count.

    Raises
    ------
    ValueError
        If arrays do not fit together, log-odds are NaN, or no count of a bag is possible: bounds
        outside its size, or items that are certain contradict it.

    Notes
    -----
    O(n · min(high, n − low)) time and memory for a bag of n. Only positive numbers are added and
    multiplied, so what is lost to rounding is a few n units in the last place of a belief.

    References
    ----------
    Gail, Lubin, Rubinstein: Likelihood calculations for matched case-control studies and survival
    studies with tied death times. Biometrika 68, 1981 (the recursion).
    Tarlow, Swersky, Zemel, Adams, Frey: Fast exact inference for recursive cardinality models. UAI
    2012.

    Examples
    --------
    >>> from labelops.proportions.counts import hard_counts
    >>> q = np.array([0.5, -1.0, 2.0, 0.3])
    >>> marginals(q, np.array([0, 4]), hard_counts(np.array([2]))).beliefs.round(6).tolist()
    [0.532363, 0.135493, 0.881978, 0.450166]
    """
    q, start = check_bags(log_odds, start, counts)
    posterior = Marginals(np.empty(len(q)), np.empty(len(q)), np.empty(len(start) - 1))
    for b in range(len(start) - 1):
        items = slice(start[b], start[b + 1])
        one = bag_marginals(q[items], log_potential(counts, b, start[b + 1] - start[b]))
        posterior.beliefs[items], posterior.messages[items] = one.beliefs, one.messages
        posterior.log_evidence[b] = one.log_evidence[0]
    return posterior


def check_bags(
    log_odds: np.ndarray, start: np.ndarray, counts: Counts
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds as float64 and bag starts as int64, if they and the counts fit together."""
    q, begin = np.ascontiguousarray(log_odds, np.float64), np.asarray(start)
    if begin.dtype.kind not in "iu" or begin.ndim != 1 or len(begin) == 0:
        raise ValueError("marginals: start must be integers, one more than there are bags")
    begin = begin.astype(np.int64)
    sizes = np.diff(begin)
    if q.ndim != 1 or begin[0] != 0 or begin[-1] != len(q) or (sizes < 0).any():
        raise ValueError(
            f"marginals: start must rise from 0 to the number of items; got {len(q)} items and "
            f"starts from {begin[0]} to {begin[-1]}. Are items ordered by bag?"
        )
    if {len(column) for column in counts} != {len(sizes)}:
        raise ValueError(f"marginals: {len(sizes)} bags, but counts for {len(counts.low)}")
    if np.isnan(q).any():
        at = int(np.flatnonzero(np.isnan(q))[0])
        raise ValueError(f"marginals: log-odds must not be NaN; item {at} is")
    n_sure, n_left = _sums(q == np.inf, begin), _sums(q != -np.inf, begin)
    impossible = (counts.low > n_left) | (counts.high < n_sure) | (counts.low > counts.high)
    if impossible.any():
        b = int(np.flatnonzero(impossible)[0])
        items = q[begin[b] : begin[b + 1]]
        raise ValueError(
            f"marginals: the count of bag {b} must lie in [{counts.low[b]}, {counts.high[b]}], "
            f"which none of its {len(items)} items' labelings does, {int((items == np.inf).sum())} "
            f"being certainly positive and {int((items == -np.inf).sum())} certainly negative"
        )
    return q, begin


def _sums(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.diff(offsets(values)[start])


def bag_marginals(log_odds: np.ndarray, log_f: np.ndarray) -> Marginals:
    """Return the marginals of one bag; log f(s), s = 0 … n, may be any concave function.

    It has to be finite somewhere that the certain items allow.

    Examples
    --------
    >>> bag_marginals(np.zeros(3), np.array([-np.inf, 0, -np.inf, -np.inf])).beliefs.round(3)
    array([0.333, 0.333, 0.333])
    """
    is_open = np.isfinite(log_odds)
    n_sure, n_open = int((log_odds == np.inf).sum()), int(is_open.sum())
    q, log_f = log_odds[is_open], log_f[n_sure : n_sure + n_open + 1]
    possible = np.flatnonzero(log_f > -np.inf)
    beliefs, messages = (log_odds > 0).astype(np.float64), np.zeros(len(log_odds))
    low, high = possible[0], possible[-1]
    if high == 0 or low == n_open:
        value = 0.0 if high == 0 else 1.0
        beliefs[is_open] = value
        messages[is_open] = np.inf if value else -np.inf
        log_p = -np.logaddexp(0, q if high == 0 else -q)
        return Marginals(beliefs, messages, np.array([log_f[possible[0]] + log_p.sum()]))

    theta = tilt(q, log_f)
    tilted = np.clip(q + theta, -REACH, REACH)
    log_g = log_f - theta * np.arange(n_open + 1)
    shift = log_g.max()
    with_it, without, total = count_directly(tilted, np.exp(log_g - shift))
    p, not_p = sigmoid(tilted), sigmoid(-tilted)
    with np.errstate(divide="ignore"):
        messages[is_open] = theta + np.log(with_it) - np.log(without)
    beliefs[is_open] = p * with_it / (p * with_it + not_p * without)
    gained = np.logaddexp(0, q + theta) - np.logaddexp(0, q)
    return Marginals(beliefs, messages, np.array([gained.sum() + shift + np.log(total)]))


def count_directly(tilted: np.ndarray, g: np.ndarray) -> Counted:
    """Run `forward_backward` over positives, or over negatives where there can be fewer of them.

    Tilted log-odds are finite, shape (n,); g(s) ≥ 0 for s = 0 … n, shape (n + 1,).
    """
    low, high = np.flatnonzero(g)[[0, -1]]
    if len(tilted) - low < high:
        turned = forward_backward(sigmoid(-tilted), sigmoid(tilted), g[::-1][: len(g) - low])
        return Counted(turned.without, turned.with_it, turned.total)
    return forward_backward(sigmoid(tilted), sigmoid(-tilted), g[: high + 1])


def forward_backward(p: np.ndarray, not_p: np.ndarray, g: np.ndarray) -> Counted:
    """Return E[g(Σ y) | y_i = 1] and E[g(Σ y) | y_i = 0] for every i, and E g(Σ y).

    A_0 = δ_0, A_i(s) = (1 − p_i) A_{i−1}(s) + p_i A_{i−1}(s − 1);
    B_n = g, B_{i−1}(s) = (1 − p_i) B_i(s) + p_i B_i(s + 1);
    E[g | y_i = 1] = Σ_s A_{i−1}(s) B_i(s + 1), E[g | y_i = 0] = Σ_s A_{i−1}(s) B_i(s).

    Parameters
    ----------
    p, not_p
        P(y_i = 1) and P(y_i = 0), each exact also where it is tiny, shape (n,).
    g
        g(s) ≥ 0 for s = 0 … top; 0 beyond, shape (top + 1,).
    """
    n, top = len(p), len(g) - 1
    forward = np.zeros((n + 1, top + 1))
    forward[0, 0] = 1
    for i in range(n):
        forward[i + 1] = not_p[i] * forward[i]
        forward[i + 1, 1:] += p[i] * forward[i, :-1]
    with_it, without = np.empty(n), np.empty(n)
    backward = g.astype(np.float64)
    for i in reversed(range(n)):
        with_it[i] = forward[i, :-1] @ backward[1:]
        without[i] = forward[i] @ backward
        backward[:-1] = not_p[i] * backward[:-1] + p[i] * backward[1:]
        backward[-1] *= not_p[i]
    return Counted(with_it, without, float(backward[0]))


def tilt(log_odds: np.ndarray, log_f: np.ndarray) -> float:
    """Return the θ at which a tilted bag expects about the count that it most likely has.

    Σ σ(q_i + θ) = argmax_s [log f(s) − θ s]: the left side rises with θ, the right side falls.

    Notes
    -----
    Any θ gives the same marginals. At this one, the tilted distribution of the count and
    exp(log f − θ s) have their modes next to each other, so nothing that matters underflows.
    """
    possible = np.flatnonzero(log_f > -np.inf)
    low, high = possible[0], possible[-1]
    slope = np.diff(log_f[low : high + 1])

    def excess(theta: float) -> float:
        # The maximum is where the slope of log f falls below θ.
        best = low + np.count_nonzero(slope > theta)
        return float(sigmoid(log_odds + theta).sum() - best)

    a, b = -1.0, 1.0
    while excess(a) > 0:
        a *= 2
    while excess(b) < 0:
        b *= 2
    while b - a > 1e-9 * max(1.0, abs(a), abs(b)):
        middle = (a + b) / 2
        a, b = (middle, b) if excess(middle) < 0 else (a, middle)
    return (a + b) / 2


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + e^−x), accurate also where it is tiny."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1 + e))
