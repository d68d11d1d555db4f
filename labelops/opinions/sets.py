"""Opinions of items that may have any number of classes: every cell is a question with two answers.

What is said of one class an item (`labelops.opinions.pool`), for cells: of two classes, present and
absent, the product of opinions is a sum of log-odds.
"""

# H opinions, N items, K classes

import numpy as np
from scipy.special import expit

from labelops.multilabel.labels import UNKNOWN, YES
from labelops.opinions.pool import fit_weights, log_opinions


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
    float64, shape (H,); see `labelops.opinions.pool.fit_weights`.

    Examples
    --------
    >>> knows, guesses = np.full((4, 1), 0.8), np.full((4, 1), 0.5)
    >>> weights = fit_cell_weights(np.stack([knows, guesses]), np.array([[1], [1], [1], [0]]))
    >>> pool_cells(np.stack([knows, guesses]), weights)[0].round(3).tolist()
    [0.75]
    """
    known = states != UNKNOWN
    present = probs[:, known]
    return fit_weights(np.stack([1 - present, present], axis=2), states[known] == YES)


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
    total = np.zeros(probs.shape[1:])
    for weight, opinion in zip(weights, probs, strict=True):
        total += weight * (log_opinions(opinion) - log_opinions(1 - opinion))
    return np.asarray(expit(total))
