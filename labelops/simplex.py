"""Rows that should be probabilities: which are not, and what is wrong with them."""

import numpy as np

# N items, K classes

SUM_TOLERANCE = 1e-3
"""Rows in half precision stay within it; logits, shares in percent and dropped classes do not."""


def bad_rows(probs: np.ndarray) -> np.ndarray:
    """Return the rows that are no probabilities, ascending, of floats of shape (N, K).

    Returns
    -------
    int64, shape (M,): rows with NaN, an infinity, a negative value, or another sum than 1.

    Examples
    --------
    >>> bad_rows(np.array([[.5, .5], [.5, .6], [1.5, -.5], [np.nan, 1.]])).tolist()
    [1, 2, 3]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        sums = probs.sum(axis=1, dtype=np.float64)
        # Written so that NaN is bad: it is neither near 1 nor negative.
        good = (np.abs(sums - 1) <= SUM_TOLERANCE) & ~(probs < 0).any(axis=1)
    return np.flatnonzero(~good)


def what_is_wrong(row: np.ndarray) -> str:
    """Say what keeps a row from being probabilities, with the kind before the colon.

    Examples
    --------
    >>> what_is_wrong(np.array([2.5, -1.]))
    'probabilities negative: class 1 has -1. Were logits passed instead of probabilities?'
    >>> what_is_wrong(np.array([.5, np.nan]))
    'probabilities not finite: class 1 has nan'
    >>> what_is_wrong(np.array([.75, .75]))[:63]
    'probabilities do not sum to 1: they sum to 1.5000. Were logits '
    """
    hint = "Were logits passed instead of probabilities?"
    values = row.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        return f"probabilities not finite: class {broken[0]} has {values[broken[0]]}"
    negative = np.flatnonzero(values < 0)
    if negative.size:
        k = negative[0]
        return f"probabilities negative: class {k} has {values[k]:.4g}. {hint}"
    return f"probabilities do not sum to 1: they sum to {values.sum():.4f}. {hint}"
