"""Labels of items that agree with their neighbours and with the counts of their bags.

P(y) ∝ exp(Σ_i h_i y_i − Σ_(i,j) w_ij (y_i − y_j)²) · Π_b f_b(Σ_{i ∈ b} y_i), y ∈ {0, 1}ᴺ.

Sum-product belief propagation with one exact factor a bag; with a count written as pairs of items
instead, as in published code, it does not converge. All messages are log-odds. A sweep

1. asks each item j for its message to each neighbour i, from what j believed without i:
   m = log(e^−w + e^a) − log(1 + e^{a − w}), |m| ≤ w, damped;
2. adds them up, q_i = h_i + Σ_j m_ji;
3. lets each bag's count answer, undamped (`labelops.proportions.cardinality`).

Counts come last, so beliefs sum to them after every sweep. On trees the result is exact; on other
graphs it is an approximation that tends to be too sure of itself.

This is the definition; `labelops.fast.propagate` does the same compiled.
"""

# N items, B bags, E edges

from typing import NamedTuple

import numpy as np

from labelops.proportions.cardinality import check_bags, marginals
from labelops.proportions.components import Convergence, Swept, sweep_until_settled
from labelops.proportions.counts import Counts
from labelops.proportions.edges import Edges, inbox_of
from labelops.ragged import offsets, owners

CLIP = 30.0
"""Beliefs speak to neighbours no louder than these log-odds."""


class Propagated(NamedTuple):
    """What neighbours and counts together say of all items.

    Attributes
    ----------
    beliefs : P(y_i = 1), float64, shape (N,).
    log_odds : q, what an item and its neighbours say before the count does, shape (N,).
    log_evidence : of each bag's count under q, shape (B,); see
        `labelops.proportions.cardinality.Marginals`.
    convergence : of each component; beliefs of one that did not converge are those of its last
        sweep.
    """

    beliefs: np.ndarray
    log_odds: np.ndarray
    log_evidence: np.ndarray
    convergence: Convergence


def propagate(
    log_odds: np.ndarray,
    start: np.ndarray,
    counts: Counts,
    edges: Edges,
    *,
    damping: float = 0.5,
    tolerance: float = 1e-4,
    max_sweeps: int = 300,
) -> Propagated:
    """Return beliefs in the labels of all items, given neighbours and the counts of bags.

    Parameters
    ----------
    log_odds
        h, what is known of each item by itself, ordered by bag; 0 for nothing, shape (N,).
    start, counts
        Where bags begin, and what their counts are, as for
        `labelops.proportions.cardinality.marginals`. An item without a known count is a bag by
        itself, of `labelops.proportions.counts.free_counts`.
    edges
        From `labelops.proportions.edges`.
    damping
        Share of the old message that is kept, 0 ≤ damping < 1. Where a component does not settle
        it goes up by itself, see `labelops.proportions.components`.
    tolerance
        A component has converged when no message is further than this from the undamped one.
    max_sweeps
        When to give up.

    Raises
    ------
    ValueError
        If arrays do not fit together, or a count is impossible.

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam, Raghuveer: Learning from label proportions: bootstrapping
    supervised learners via belief propagation. ICLR 2024 (the model; there with pairs for counts).
    Yedidia, Freeman, Weiss: Understanding belief propagation and its generalizations. 2003.

    Notes
    -----
    A sweep takes O(E + Σ_b n_b²) here, O(E + Σ_b n_b log n_b) compiled.

    Examples
    --------
    >>> from labelops.proportions.counts import hard_counts
    >>> h = np.array([0.4, -0.2, 1.0, 0.0, -0.5, 0.3])
    >>> edge = Edges(np.array([0]), np.array([3]), np.array([1.0]))
    >>> counts = hard_counts(np.array([1, 2]))
    >>> propagated = propagate(h, np.array([0, 3, 6]), counts, edge, tolerance=1e-13)
    >>> propagated.beliefs.round(6).tolist()
    [0.382309, 0.14298, 0.474711, 0.620271, 0.572029, 0.8077]
    """
    h, start = check_bags(log_odds, start, counts)
    check_settings(damping=damping, tolerance=tolerance, max_sweeps=max_sweeps)
    inbox = inbox_of(edges, n_items=len(h))
    target, bag_of_item = owners(inbox.start), owners(start)
    message, total = np.zeros(len(target)), np.clip(h, -CLIP, CLIP)
    q, beliefs, log_evidence = h.copy(), np.empty(len(h)), np.empty(len(start) - 1)

    def sweep(bags: np.ndarray, held: np.ndarray) -> Swept:
        is_swept = np.isin(bag_of_item, bags)
        at = np.flatnonzero(is_swept[target])
        cavity = total[inbox.source[at]] - message[inbox.reverse[at]]
        wanted = edge_message(inbox.weight[at], cavity)
        worst = np.zeros(len(start) - 1)
        np.maximum.at(worst, bag_of_item[target[at]], np.abs(wanted - message[at]))
        old = np.zeros(len(start) - 1)
        old[bags] = held
        old = old[bag_of_item[target[at]]]
        message[at] = old * message[at] + (1 - old) * wanted
        items = np.flatnonzero(is_swept)
        q[items] = (h + np.bincount(target, message, len(h)))[items]
        some = Counts(*(column[bags] for column in counts))
        posterior = marginals(q[items], offsets(np.diff(start)[bags]), some)
        beliefs[items], log_evidence[bags] = posterior.beliefs, posterior.log_evidence
        total[items] = np.clip(q[items] + posterior.messages, -CLIP, CLIP)
        expected = np.bincount(bag_of_item[items], posterior.beliefs, len(worst))[bags]
        return Swept(worst[bags], np.maximum(some.low - expected, expected - some.high))

    convergence = sweep_until_settled(
        sweep, start, edges, damping=damping, tolerance=tolerance, max_sweeps=max_sweeps
    )
    return Propagated(beliefs, q, log_evidence, convergence)


def edge_message(weight: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """Return what an edge passes on: m = log(e^−w + e^a) − log(1 + e^{a − w}).

    w ≥ 0; a are the log-odds of the sender without the receiver.

    Examples
    --------
    >>> edge_message(np.array([1.0, 1.0, 0.0]), np.array([0.0, 100.0, 5.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return np.asarray(np.logaddexp(-weight, cavity) - np.logaddexp(0, cavity - weight))


def check_settings(*, damping: float, tolerance: float, max_sweeps: int) -> None:
    """Refuse settings with which sweeps would go nowhere."""
    if not 0 <= damping < 1:
        raise ValueError(f"propagate: damping must be at least 0 and below 1, got {damping}")
    if not tolerance > 0:
        raise ValueError(f"propagate: tolerance must be above 0, got {tolerance}")
    if max_sweeps < 1:
        raise ValueError(f"propagate: max_sweeps must be at least 1, got {max_sweeps}")
