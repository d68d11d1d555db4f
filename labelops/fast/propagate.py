"""Belief propagation over neighbours and bags, compiled: `labelops.proportions.propagate`."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from labelops.fast.cardinality import ACCURACY, bag_marginals, chunks, make_room
from labelops.fast.jit import compiled
from labelops.proportions.cardinality import Marginals, check_bags
from labelops.proportions.components import Swept, sweep_until_settled
from labelops.proportions.counts import Counts
from labelops.proportions.edges import Edges, inbox_of
from labelops.proportions.propagate import CLIP, Propagated, check_settings
from labelops.ragged import offsets

# N items, B bags, E edges


FAR = 500.0
"""Log-odds of a sender beyond it are as good as certain; exp(−500) is not 0 yet."""


class _Problem(NamedTuple):
    """What stays as it is: bags, and messages ordered as in `labelops.proportions.edges.Inbox`."""

    h: np.ndarray
    start: np.ndarray
    counts: Counts
    accuracy: float
    inbox: np.ndarray
    reverse: np.ndarray
    weakness: np.ndarray


class _State(NamedTuple):
    """What sweeps change; every bag changes what is of its own items."""

    message: np.ndarray
    total: np.ndarray
    q: np.ndarray
    posterior: Marginals
    swept: Swept


@compiled()
def _send(first, last, problem, state, sent):  # type: ignore[no-untyped-def]
    """Write what items ask of their neighbours, at the places of what they got from them.

    With x = e^−|a| and ν = e^−w, the message is ± log((1 + ν x) / (ν + x)).
    """
    inbox, weakness, message = problem.inbox, problem.weakness, state.message
    for i in range(first, last):
        for e in range(inbox[i], inbox[i + 1]):
            a = state.total[i] - message[e]
            x = np.exp(-min(abs(a), FAR))
            m = np.log((1 + weakness[e] * x) / (weakness[e] + x))
            sent[e] = m if a > 0 else -m


@compiled()
def _receive(first, last, problem, state, damping, sent):  # type: ignore[no-untyped-def]
    inbox, message = problem.inbox, state.message
    worst = 0.0
    for i in range(first, last):
        received = 0.0
        for e in range(inbox[i], inbox[i + 1]):
            wanted = sent[problem.reverse[e]]
            worst = max(worst, abs(wanted - message[e]))
            message[e] = damping * message[e] + (1 - damping) * wanted
            received += message[e]
        state.q[i] = problem.h[i] + received
    return worst


@compiled()
def _sweep(bags, damping, problem, state, sent, to_send):  # type: ignore[no-untyped-def]
    start, counts, q = problem.start, problem.counts, state.q
    out, swept = state.posterior, state.swept
    room = make_room(start, bags)
    for at in range(len(bags)):
        b = bags[at]
        first, last = start[b], start[b + 1]
        swept.change[b] = _receive(first, last, problem, state, damping[at], sent)
        out.log_evidence[b], _ = bag_marginals(q, start, counts, b, problem.accuracy, room, out)
        expected = 0.0
        for i in range(first, last):
            expected += out.beliefs[i]
            state.total[i] = min(max(q[i] + out.messages[i], -CLIP), CLIP)
        swept.count_error[b] = max(counts.low[b] - expected, expected - counts.high[b])
        _send(first, last, problem, state, to_send)


def propagate(
    log_odds: np.ndarray,
    start: np.ndarray,
    counts: Counts,
    edges: Edges,
    *,
    damping: float = 0.5,
    tolerance: float = 1e-4,
    max_sweeps: int = 300,
    accuracy: float = ACCURACY,
    n_threads: int = 2,
) -> Propagated:
    """Do what `labelops.proportions.propagate.propagate` does, faster.

    `accuracy` and `n_threads` are those of `labelops.fast.cardinality.marginals`.

    Notes
    -----
    Every sweep reads what was sent in the one before and sends its own, all by the bag whose items
    they are, so neither the order of the bags nor the number of threads matters. Memory: 72 bytes
    an edge, 64 an item.
    """
    h, start = check_bags(log_odds, start, counts)
    check_settings(damping=damping, tolerance=tolerance, max_sweeps=max_sweeps)
    inbox = inbox_of(edges, n_items=len(h))
    problem = _Problem(
        h, start, counts, accuracy, inbox.start, inbox.reverse, np.exp(-inbox.weight)
    )
    del inbox
    n_bags, sizes, n_messages = len(start) - 1, np.diff(start), len(problem.reverse)
    state = _State(
        np.zeros(n_messages),
        np.clip(h, -CLIP, CLIP),
        np.empty(len(h)),
        Marginals(np.empty(len(h)), np.empty(len(h)), np.empty(n_bags)),
        Swept(np.empty(n_bags), np.empty(n_bags)),
    )
    sent, to_send = np.empty(n_messages), np.empty(n_messages)
    _send(0, len(h), problem, state, sent)

    with ThreadPoolExecutor(n_threads) as pool:

        def sweep(bags: np.ndarray, held: np.ndarray) -> Swept:
            nonlocal sent, to_send

            def work(chunk: tuple[int, int]) -> None:
                some = slice(*chunk)
                _sweep(bags[some], held[some], problem, state, sent, to_send)

            list(pool.map(work, chunks(offsets(sizes[bags]))))
            # What bags at rest sent is out of date in one of the two; nobody reads it.
            sent, to_send = to_send, sent
            return Swept(*(values[bags] for values in state.swept))

        convergence = sweep_until_settled(
            sweep, start, edges, damping=damping, tolerance=tolerance, max_sweeps=max_sweeps
        )
    return Propagated(state.posterior.beliefs, state.q, state.posterior.log_evidence, convergence)
