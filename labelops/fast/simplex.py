"""Rows that are no probabilities, and what stands at the given label, in one pass."""

import numpy as np

from labelops.fast.jit import compiled


# The last bits of sums do not matter, so they may be added in any order; NaN and infinity do.
@compiled(fastmath=("nsz", "reassoc"))
def _check(probs, given, tolerance, bad, p_given):  # type: ignore[no-untyped-def]
    for i in range(len(probs)):
        total = 0.0
        n_negative = np.int32(0)
        for j in range(probs.shape[1]):
            p = probs[i, j]
            total += np.float64(p)
            n_negative += p < 0
        bad[i] = not (abs(total - 1.0) <= tolerance) or n_negative > 0
        p_given[i] = probs[i, given[i]]


def check_rows(
    probs: np.ndarray, given: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `labelops.simplex.bad_rows` does, and the probabilities at the given labels.

    Rows are float32 or float64, shape (N, K), class ids in 0…K−1; sums may be `tolerance` from 1.

    Returns
    -------
    int64, shape (M,), and floats of the type of `probs`, shape (N,).

    Examples
    --------
    >>> bad, p_given = check_rows(np.array([[.5, .5], [2., 1.]]), np.array([0, 1]), tolerance=1e-3)
    >>> bad.tolist(), p_given.tolist()
    ([1], [0.5, 1.0])
    """
    bad = np.zeros(len(probs), np.bool_)
    p_given = np.empty(len(probs), probs.dtype)
    _check(probs, given, tolerance, bad, p_given)
    return np.flatnonzero(bad), p_given
