"""Labels of more than two classes that agree with neighbours and with the class counts of bags.

P(y) ∝ exp(Σ_i h_{i y_i} − Σ_(i,j) w_ij [y_i ≠ y_j]) · Π_b [class k occurs c_bk times in b].

Belief propagation as in `labelops.proportions.propagate`, with log-probabilities up to a constant
in place of log-odds: a sweep

1. asks each item j for its message to each neighbour i, from what j believed without i:
   m_k = log(e^−w Σ_l e^{a_l} + (1 − e^−w) e^{a_k}), of mean 0 over classes, damped;
2. adds them up, q_i = h_i + Σ_j m_ji;
3. lets the counts of each bag answer, undamped (`labelops.proportions.classes`).

For two classes that is what `propagate` does, message by message. Rows of the beliefs sum to one
and those of a bag to its counts after every sweep. Exact on trees if all bags are counted exactly;
else an approximation that tends to be too sure of itself.

This is the definition; `labelops.fast.class_propagate` does the same compiled.
"""

# N items, B bags, K classes, E edges

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from labelops.proportions.classes import ClassPosterior, class_posterior
from labelops.proportions.components import Convergence, Swept, sweep_until_settled
from labelops.proportions.edges import Edges, Inbox, inbox_of
from labelops.proportions.propagate import CLIP, check_settings
from labelops.proportions.transport import checked_classes
from labelops.ragged import offsets, owners


class PropagatedClasses(NamedTuple):
    """What neighbours and counts together say of all items.

    Attributes
    ----------
    beliefs : P(y_i = k), float64, shape (N, K).
    logits : q, what an item and its neighbours say before the counts do, shape (N, K).
    is_exact : whether the counts of a bag had their say exactly, see
        `labelops.proportions.classes.ClassPosterior`, shape (B,).
    convergence : of each component.
    """

    beliefs: np.ndarray
    logits: np.ndarray
    is_exact: np.ndarray
    convergence: Convergence


Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], ClassPosterior]
"""From logits, starts and counts of bags to the posterior: `class_posterior` or a faster one."""


class Delivered(NamedTuple):
    """What some items received.

    Attributes
    ----------
    received : sum of their messages, shape (items, K).
    change : the largest change of a log-odds in a message to each, before damping, shape (items,).
    """

    received: np.ndarray
    change: np.ndarray


Deliver = Callable[[np.ndarray, np.ndarray, np.ndarray, Inbox, np.ndarray], Delivered]
"""Renews the messages to some items in place; see `deliver`."""


def propagate_classes(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    edges: Edges,
    *,
    damping: float = 0.5,
    tolerance: float = 1e-4,
    max_sweeps: int = 300,
    answer: Answer | None = None,
    deliver_to: Deliver | None = None,
) -> PropagatedClasses:
    """Return beliefs in the classes of all items, given neighbours and class counts of bags.

    Parameters
    ----------
    logits
        h, what is known of each item by itself, ordered by bag; 0 for nothing, shape (N, K).
    start, counts
        Bags and their class counts, as for `labelops.proportions.classes.class_posterior`.
    edges, damping, tolerance, max_sweeps
        As for `labelops.proportions.propagate.propagate`; the change of a message is that of its
        largest log-odds.
    answer, deliver_to
        Who does the work; by default `class_posterior` and `deliver`.

    Raises
    ------
    ValueError
        If arrays do not fit together, or counts do not add up to their bags.

    Notes
    -----
    A sweep takes O(E K), and for the bags what `class_posterior` says.

    Examples
    --------
    >>> edge = Edges(np.array([0]), np.array([3]), np.array([1.0]))
    >>> h = np.array([0.4, -0.2, 1.0, 0.0, -0.5, 0.3])
    >>> h = np.stack([np.zeros(6), h], axis=1)
    >>> propagated = propagate_classes(h, np.array([0, 3, 6]), np.array([[2, 1], [1, 2]]), edge)
    >>> propagated.beliefs[:3, 1].round(4).tolist()
    [0.3823, 0.143, 0.4747]
    """
    h, start, _ = checked_classes("propagate_classes", logits, start, counts)
    check_settings(damping=damping, tolerance=tolerance, max_sweeps=max_sweeps)
    answer, deliver_to = answer or class_posterior, deliver_to or deliver
    n_items, n_classes = h.shape
    sizes, whole = np.diff(start), np.asarray(counts)
    inbox = inbox_of(edges, n_items=n_items)
    bag_of_item = owners(start)
    message = np.zeros((len(inbox.source), n_classes))
    total, q = _clipped(h), h.copy()
    beliefs, is_exact = np.empty_like(h), np.empty(len(sizes), bool)

    def sweep(bags: np.ndarray, held: np.ndarray) -> Swept:
        items = np.flatnonzero(np.isin(bag_of_item, bags))
        change = np.zeros(len(sizes))
        received, changes = deliver_to(items, message, total, inbox, np.repeat(held, sizes[bags]))
        np.maximum.at(change, bag_of_item[items], changes)
        q[items] = h[items] + received
        cut = offsets(sizes[bags])
        posterior = answer(q[items], cut, whole[bags])
        beliefs[items], is_exact[bags] = posterior.beliefs, posterior.is_exact
        with np.errstate(divide="ignore"):
            total[items] = _clipped(np.log(posterior.beliefs))
        off = np.abs(np.add.reduceat(posterior.beliefs, cut[:-1], axis=0) - whole[bags])
        return Swept(change[bags], off.max(axis=1))

    convergence = sweep_until_settled(
        sweep, start, edges, damping=damping, tolerance=tolerance, max_sweeps=max_sweeps
    )
    return PropagatedClasses(beliefs, q, is_exact, convergence)


def deliver(
    items: np.ndarray, message: np.ndarray, total: np.ndarray, inbox: Inbox, damping: np.ndarray
) -> Delivered:
    """Renew the messages to some items (whole components of bags) in place, all from the old ones.

    Parameters
    ----------
    message
        m, of mean 0 over classes, ordered as in `Inbox`, shape (2 E, K).
    total
        What items believe, as log-probabilities up to a constant, shape (N, K).
    damping
        Share of the old message that is kept of those to each of these items, shape (items,).
    """
    target = owners(inbox.start)
    at = np.flatnonzero(np.isin(target, items))
    cavity = total[inbox.source[at]] - message[inbox.reverse[at]]
    wanted = potts_message(inbox.weight[at], cavity)
    moved = wanted - message[at]
    old = np.zeros(len(total))
    old[items] = damping
    old = old[target[at], None]
    message[at] = old * message[at] + (1 - old) * wanted
    received, change = np.zeros_like(total), np.zeros(len(total))
    np.add.at(received, target[at], message[at])
    np.maximum.at(change, target[at], moved.max(axis=1, initial=-np.inf) - moved.min(axis=1))
    return Delivered(received[items], change[items])


def potts_message(weight: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """Return what edges pass on: log(e^−w Σ_l e^{a_l} + (1 − e^−w) e^{a_k}), of mean 0.

    w ≥ 0, shape (M,); a is of the sender without the receiver, shape (M, K).

    Examples
    --------
    >>> m = potts_message(np.array([1.0]), np.array([[0.0, 100.0]]))
    >>> float(m[0, 1] - m[0, 0])
    1.0
    """
    a = cavity - cavity.max(axis=1, keepdims=True, initial=-np.inf)
    e, other = np.exp(a), np.exp(-weight)[:, None]
    with np.errstate(divide="ignore"):
        m = np.log(other * e.sum(axis=1, keepdims=True) - np.expm1(-weight)[:, None] * e)
    return np.asarray(m - m.mean(axis=1, keepdims=True))


def _clipped(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities of which none is more than `CLIP` below the largest."""
    top = logits.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(np.maximum(logits - top, -CLIP))
