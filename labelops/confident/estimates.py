"""Everything that is said about the data set as a whole, from K × K counts."""

from typing import NamedTuple

import numpy as np

from labelops.confident.intervals import class_intervals, total_interval
from labelops.confident.joint import calibrate, confident_joint
from labelops.confident.latent import estimate_latent

# K classes


class Estimates(NamedTuple):
    """Estimates of confident learning.

    Attributes
    ----------
    confident_joint : items confidently counted, rows = given, columns = true; int64, shape (K, K).
    calibrated_joint : the same scaled to all items; int64, shape (K, K).
    noise_matrix : P(given = a | true = b) at [a, b], shape (K, K).
    inverse_noise_matrix : P(true = b | given = a) at [b, a], shape (K, K).
    prior : P(true = b), shape (K,).
    noise_rate : share of wrong labels among the items given each class; NaN for a class without
        items. Shape (K,).
    noise_rate_low, noise_rate_high : its 95 % interval, shape (K,).
    total_noise_rate, total_noise_rate_low, total_noise_rate_high : the same over all items;
        scalars.
    n_errors, n_errors_low, n_errors_high : the same as numbers of items; scalars.
    """

    confident_joint: np.ndarray
    calibrated_joint: np.ndarray
    noise_matrix: np.ndarray
    inverse_noise_matrix: np.ndarray
    prior: np.ndarray
    noise_rate: np.ndarray
    noise_rate_low: np.ndarray
    noise_rate_high: np.ndarray
    total_noise_rate: float
    total_noise_rate_low: float
    total_noise_rate_high: float
    n_errors: int
    n_errors_low: int
    n_errors_high: int


def estimate(counts: np.ndarray, n_given: np.ndarray) -> Estimates:
    """Turn counts of (given, confident guess) into estimates.

    Parameters
    ----------
    counts
        From `labelops.confident.joint.count`, int64, shape (K, K).
    n_given
        Number of items given each class, int64, shape (K,).

    Examples
    --------
    >>> found = estimate(np.array([[90, 10], [0, 50]]), np.array([150, 50]))
    >>> found.calibrated_joint.tolist(), found.n_errors, found.n_errors_low, found.n_errors_high
    ([[135, 15], [0, 50]], 15, 7, 25)
    """
    joint = confident_joint(counts)
    calibrated = calibrate(joint, n_given)
    latent = estimate_latent(calibrated, n_given)
    n_items = int(n_given.sum())
    n_wrong = calibrated.sum(axis=1) - calibrated.diagonal()
    n_errors = int(n_wrong.sum())
    ends = class_intervals(counts)
    total = n_errors / max(n_items, 1)
    low, high = total_interval(counts, n_given)
    low, high = min(low, total), max(high, total)
    rate = np.full(len(n_given), np.nan)
    np.divide(n_wrong, n_given, out=rate, where=n_given > 0)
    return Estimates(
        confident_joint=joint,
        calibrated_joint=calibrated,
        noise_matrix=latent.noise_matrix,
        inverse_noise_matrix=latent.inverse_noise_matrix,
        prior=latent.prior,
        noise_rate=rate,
        # Rounding and the one right label that every class is granted can move the estimate of a
        # tiny class out of its interval.
        noise_rate_low=np.fmin(ends.low, rate),
        noise_rate_high=np.fmax(ends.high, rate),
        total_noise_rate=total,
        total_noise_rate_low=low,
        total_noise_rate_high=high,
        n_errors=n_errors,
        n_errors_low=int(np.floor(n_items * low)),
        n_errors_high=int(np.ceil(n_items * high)),
    )
