"""Temperature scaling: one number that makes a model's confidence fit how often it is right."""

import numpy as np

from labelops.calibration import log_safe

# N items, K classes

MIN_TEMPERATURE, MAX_TEMPERATURE = 1 / 64, 64.0
"""Beyond, the labels say nothing more: all right pulls T to 0, all at random to infinity."""

BLOCK_CELLS = 1 << 22


def _slopes(log_probs: np.ndarray, given: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return the first two derivatives of the mean NLL by s = 1 / T, added up block by block.

    NLL = Σ_i [ log Σ_k exp(s z_ik) − s z_i,given ] / N. With q = softmax(s z): first = E_q[z] −
    z_given, second = Var_q[z] ≥ 0, so it is convex in s.
    """
    first = second = 0.0
    rows = max(1, BLOCK_CELLS // log_probs.shape[1])
    for start in range(0, len(given), rows):
        z = log_probs[start : start + rows].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        at = z[np.arange(len(z)), given[start : start + rows]]
        q = np.exp(inverse * z)
        total = q.sum(axis=1)
        mean = (q * z).sum(axis=1) / total
        square = (q * z * z).sum(axis=1) / total
        first += float((mean - at).sum())
        second += float((square - mean * mean).sum())
    return first / len(given), second / len(given)


def fit_temperature(log_probs: np.ndarray, given: np.ndarray) -> float:
    """Return the temperature T at which softmax(z / T) is likeliest to give the labels.

    Parameters
    ----------
    log_probs
        Logits or log-probabilities z, shape (N, K); finite.
    given
        Class ids, shape (N,).

    Returns
    -------
    float
        T in [1/64, 64]; 1 if there are no items, or only one class.

    Raises
    ------
    ValueError
        If a value of `log_probs` is not finite.

    Notes
    -----
    Convex in s = 1 / T: Newton steps inside a shrinking bracket, in float64; the same rows in the
    same order give the same T. Labels with errors calibrate to the labels as they are given, errors
    included.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks. ICML 2017, section 4.2.

    Examples
    --------
    >>> log_probs = np.log([[.9, .1]] * 4)
    >>> round(fit_temperature(log_probs, np.array([0, 0, 0, 1])), 3)
    2.0
    """
    if not np.isfinite(log_probs).all():
        row = int(np.flatnonzero(~np.isfinite(log_probs).all(axis=1))[0])
        raise ValueError(
            f"log_probs must be finite; row {row} is not. Take the logarithm with "
            "labelops.calibration.log_safe"
        )
    if len(given) == 0 or log_probs.shape[1] < 2:
        return 1.0
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if _slopes(log_probs, given, low)[0] >= 0:
        # Where every row is constant all temperatures are alike.
        return 1.0 if (log_probs == log_probs[:, :1]).all() else MAX_TEMPERATURE
    if _slopes(log_probs, given, high)[0] <= 0:
        return MIN_TEMPERATURE
    inverse = 1.0
    for _ in range(100):
        first, second = _slopes(log_probs, given, inverse)
        if first > 0:
            high = inverse
        else:
            low = inverse
        target = inverse - (first / second if second > 0 else np.inf)
        if not low < target < high:
            target = 0.5 * (low + high)
        if abs(target - inverse) <= 1e-10 * inverse:
            return 1 / target
        inverse = target
    return 1 / inverse


def apply_temperature(probs: np.ndarray, *, temperature: float) -> np.ndarray:
    """Return softmax(log p / T), rows in float64.

    Parameters
    ----------
    probs
        Rows sum to 1, shape (N, K).
    temperature
        T > 0.

    Returns
    -------
    float64, shape (N, K); rows sum to 1.

    Examples
    --------
    >>> apply_temperature(np.array([[.9, .1]]), temperature=2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    z = log_safe(probs) / temperature
    z -= z.max(axis=1, keepdims=True)
    q = np.exp(z)
    return np.asarray(q / q.sum(axis=1, keepdims=True))
