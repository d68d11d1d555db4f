"""Linear students by loops in double precision: gradients by hand, optimisers as published.

SGD with Nesterov momentum as in Sutskever et al. (ICML 2013) with the momentum of the library,
AdamW as in Loshchilov, Hutter (ICLR 2019), algorithm 2; the average of weights by its definition.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np


def rate(step: int, n_steps: int) -> float:
    """Five per cent of the steps upwards, then half a cosine."""
    warm = max(1, round(0.05 * n_steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step + 1 - warm) / (n_steps + 1 - warm))) / 2


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def gradient(
    theta: np.ndarray, x: np.ndarray, q: np.ndarray, w: np.ndarray, *, lists: bool
) -> np.ndarray:
    """Of the mean over items of w_i times the loss; theta is (D + 1, K), the last row the bias."""
    total = np.zeros_like(theta)
    for i in range(len(x)):
        one = np.append(x[i], 1.0)
        z = one @ theta
        if lists:
            known = q[i] != -1
            d = np.where(known, 1 / (1 + np.exp(-z)) - q[i], 0.0) / len(z)
        else:
            d = softmax(z) * q[i].sum() - q[i]
        total += w[i] * np.outer(one, d)
    return total / len(x)


def train(
    theta: np.ndarray,
    x: np.ndarray,
    q: np.ndarray,
    w: np.ndarray,
    order: Sequence[np.ndarray],
    *,
    lists: bool = False,
    adamw: bool = False,
    learning_rate: float,
    weight_decay: float,
    most: float | None = None,
    decay: float | None = None,
    more: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last weights and their average; `order` has the items of every step.

    `more` is what the gradient has besides, by weights and step.
    """
    theta, w = theta.astype(float), w / w[w > 0].mean()
    average, m, v = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    for t, rows in enumerate(order):
        lr = learning_rate * rate(t, len(order))
        g = gradient(theta, x[rows].astype(float), q[rows].astype(float), w[rows], lists=lists)
        if more is not None:
            g = g + more(theta, t)
        if most is not None:
            g = g * min(1.0, most / np.sqrt((g**2).sum()))
        if adamw:
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
            theta = theta - lr * weight_decay * theta - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
        else:
            g = g + weight_decay * theta
            m = 0.9 * m + g
            theta = theta - lr * (g + 0.9 * m)
        if decay is not None:
            d = min(decay, (1 + t) / (10 + t))
            average = d * average + (1 - d) * theta
    return theta, average
