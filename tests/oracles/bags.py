"""Labels of bags by listing all of them, and counting in logarithms."""

import itertools

import numpy as np


def labelings(n: int) -> np.ndarray:
    """All y ∈ {0, 1}ⁿ, shape (2ⁿ, n)."""
    return np.array(list(itertools.product([0, 1], repeat=n)), float).reshape(2**n, n)


def log_sum(log_weight: np.ndarray) -> float:
    top = log_weight.max()
    return top if np.isinf(top) else top + np.log(np.exp(log_weight - top).sum())


def listed_posterior(y: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
    """P(y_i = 1) from the weights of all labelings."""
    return np.exp(log_weight - log_sum(log_weight)) @ y


def listed_bag(q: np.ndarray, log_f: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Beliefs, messages as the spec defines them, log E f(Σ y)."""
    y = labelings(len(q))
    log_weight = y @ q + log_f[y.sum(1).astype(int)]
    messages = np.empty(len(q))
    for i in range(len(q)):
        others = labelings(len(q) - 1)
        base, s = others @ np.delete(q, i), others.sum(1).astype(int)
        messages[i] = log_sum(base + log_f[s + 1]) - log_sum(base + log_f[s])
    return listed_posterior(y, log_weight), messages, log_sum(log_weight) - log_sum(y @ q)


def listed_graph(h, start, log_f, edges) -> np.ndarray:
    """P(y_i = 1) under items, bags and edges; edges are (i, j, w)."""
    y = labelings(len(h))
    log_weight = y @ h
    for b, potential in enumerate(log_f):
        log_weight = log_weight + potential[y[:, start[b] : start[b + 1]].sum(1).astype(int)]
    for i, j, w in edges:
        log_weight = log_weight - w * (y[:, i] - y[:, j]) ** 2
    return listed_posterior(y, log_weight)


def log_domain_bag(q: np.ndarray, log_f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beliefs and messages by the recursion of the spec in logarithms, without any tilt."""
    n = len(q)
    forward = np.full((n + 1, n + 1), -np.inf)
    forward[0, 0] = 0
    for i in range(n):
        forward[i + 1] = forward[i]
        forward[i + 1, 1:] = np.logaddexp(forward[i, 1:], q[i] + forward[i, :-1])
    backward, messages = log_f.astype(float), np.empty(n)
    for i in reversed(range(n)):
        messages[i] = log_sum(forward[i, :-1] + backward[1:]) - log_sum(forward[i] + backward)
        backward[:-1] = np.logaddexp(backward[:-1], q[i] + backward[1:])
    return 1 / (1 + np.exp(-(q + messages))), messages


def longdouble_bag(q: np.ndarray, log_f: np.ndarray, theta: float) -> np.ndarray:
    """Beliefs by the same recursion in extended precision (64 bits of mantissa on x86)."""
    n = len(q)
    t = q.astype(np.longdouble) + np.longdouble(theta)
    p, not_p = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(t))
    log_g = log_f - np.longdouble(theta) * np.arange(n + 1)
    backward = np.exp(log_g - log_g.max())
    forward = np.zeros((n + 1, n + 1), np.longdouble)
    forward[0, 0] = 1
    for i in range(n):
        forward[i + 1] = not_p[i] * forward[i]
        forward[i + 1, 1:] += p[i] * forward[i, :-1]
    beliefs = np.empty(n)
    for i in reversed(range(n)):
        up = p[i] * (forward[i, :-1] * backward[1:]).sum()
        beliefs[i] = up / (up + not_p[i] * (forward[i] * backward).sum())
        backward[:-1] = not_p[i] * backward[:-1] + p[i] * backward[1:]
        backward[-1] *= not_p[i]
    return beliefs
