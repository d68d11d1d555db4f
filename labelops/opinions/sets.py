"""Opinions of items that may have any number of classes: every cell is a question with two answers.

What is said of one class an item (`labelops.opinions.pool`), for cells: of two classes, present and
absent, the product of opinions is a sum of log-odds.
"""

# H opinions, N items, K classes

import numpy as np
from scipy.special import expit

from labelops.multilabel.labels import UNKNOWN, YES
from labelops.opinions.pool import fit_weights, log_opinions

BLOCK_CELLS = 1 << 16
"""Worked on at a time, to stay in the cache."""


def fit_cell_weights(probs: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the weights at which the pool is likeliest to give what is known of cells.

    Parameters
    ----------
    probs
        Out-of-sample probabilities that a class is present, of every opinion, shape (H, N, K).
    states
        1 (yes), 0 (no) or −1 (unknown), shape (N, K).

    Returns
    -------
    float64, shape (H,); see `labelops.opinions.pool.fit_weights`. 1 / H each where all that is
    known is yes, or no: whoever always says so would be right.

    Examples
    --------
    >>> knows, guesses = np.full((4, 1), 0.8), np.full((4, 1), 0.5)
    >>> weights = fit_cell_weights(np.stack([knows, guesses]), np.array([[1], [1], [1], [0]]))
    >>> pool_cells(np.stack([knows, guesses]), weights)[0].round(3).tolist()
    [0.75]
    """
    known = states != UNKNOWN
    present, is_there = probs[:, known], states[known] == YES
    if is_there.all() or not is_there.any():
        return np.full(len(probs), 1 / len(probs))
    return fit_weights(np.stack([1 - present, present], axis=2), is_there)


def pool_cells(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the pooled probability that each class is present, float64, shape (N, K).

    Parameters
    ----------
    probs
        Shape (H, N, K).
    weights
        From `fit_cell_weights`.

    Examples
    --------
    >>> pool_cells(np.array([[[0.8]], [[0.5]]]), np.array([1.0, 1.0])).round(3).tolist()
    [[0.8]]
    """
    # One after the other, so that a row is the same whatever rows are beside it.
    _, n, n_classes = probs.shape
    total, rows = np.zeros((n, n_classes)), max(1, BLOCK_CELLS // max(n_classes, 1))
    for start in range(0, n, rows):
        part = total[start : start + rows]
        for weight, opinion in zip(weights, probs[:, start : start + rows], strict=True):
            part += weight * (log_opinions(opinion) - log_opinions(1 - opinion))
        expit(part, out=part)
    return total
