"""Log-odds and log-probabilities of the classes of items."""

# N items, K classes

import numpy as np


def as_logits(log_odds: np.ndarray) -> np.ndarray:
    """Return log-probabilities from log-odds of the second class, or of each against the rest.

    Of more than two classes each is believed by itself, log σ(q_k), and they share what there is.

    Parameters
    ----------
    log_odds
        Of the second of two classes, shape (N, 1); or of each class against all others, shape
        (N, K).

    Examples
    --------
    >>> as_logits(np.array([[0.0]])).round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    q = np.concatenate([-log_odds, log_odds], axis=1) if log_odds.shape[1] == 1 else log_odds
    logits = -np.logaddexp(0.0, -q)
    return normalised(logits)


def normalised(logits: np.ndarray) -> np.ndarray:
    """Return logits with a constant taken off each row, so that they are log-probabilities."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return np.asarray(logits - top - total)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, rows sum to one."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
