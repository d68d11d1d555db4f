"""Everything that is said about the data set as a whole, from counts of pairs of classes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from labelops.confident import joint as dense
from labelops.confident import latent, sparse_joint
from labelops.confident.intervals import class_intervals, total_interval
from labelops.confident.latent import Matrix

# K classes, P pairs of classes


class Estimates(NamedTuple):
    """Estimates of confident learning. Matrices are dense or sparse, as the counts are.

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

    confident_joint: Matrix
    calibrated_joint: Matrix
    noise_matrix: Matrix
    inverse_noise_matrix: Matrix
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


def estimate(counts: Matrix, n_given: np.ndarray) -> Estimates:
    """Turn counts of (given, confident guess) into estimates.

    Parameters
    ----------
    counts
        From `labelops.confident.joint.count`, or `labelops.confident.sparse_joint.matrix`; int64,
        shape (K, K). The numbers are the same.
    n_given
        Number of items given each class, int64, shape (K,).

    Examples
    --------
    >>> noise = estimate(np.array([[90, 10], [0, 50]]), np.array([150, 50]))
    >>> noise.calibrated_joint.tolist(), noise.n_errors, noise.n_errors_low, noise.n_errors_high
    ([[135, 15], [0, 50]], 15, 7, 25)
    """
    joint: Matrix
    calibrated: Matrix
    if isinstance(counts, sparse.csr_array):
        joint = sparse_joint.confident_joint(counts)
        calibrated = sparse_joint.calibrate(joint, n_given)
        conditionals = sparse_joint.estimate_latent(calibrated, n_given)
    else:
        joint = dense.confident_joint(counts)
        calibrated = dense.calibrate(joint, n_given)
        conditionals = latent.estimate_latent(calibrated, n_given)
    n_items = int(n_given.sum())
    n_wrong = calibrated.sum(axis=1) - calibrated.diagonal()
    n_errors = int(n_wrong.sum())
    ends = class_intervals(counts)
    total = n_errors / max(n_items, 1)
    low, high = total_interval(counts, n_given)
    low, high = min(low, total), max(high, total)
    rate = np.divide(n_wrong, n_given, out=np.full(len(n_given), np.nan), where=n_given > 0)
    return Estimates(
        confident_joint=joint,
        calibrated_joint=calibrated,
        **conditionals._asdict(),
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


def pack(estimates: Estimates) -> dict[str, np.ndarray]:
    """Return estimates as plain arrays, for storing.

    Returns
    -------
    The fields by name. Sparse matrices have one list of pairs in common, `pair_given` and
    `pair_true` (int32, shape (P,)): they are what stands at [given, true], shape (P,), and the
    inverse noise matrix what stands at [true, given].

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[90, 10], [0, 50]]))
    >>> packed = pack(estimate(counts, np.array([150, 50])))
    >>> [packed[name].tolist() for name in ("pair_given", "pair_true", "calibrated_joint")]
    [[0, 0, 1], [0, 1, 1], [135, 15, 50]]
    """
    if not isinstance(estimates.confident_joint, sparse.csr_array):
        return {name: np.asarray(value) for name, value in estimates._asdict().items()}
    assert isinstance(estimates.calibrated_joint, sparse.csr_array)
    n_classes = estimates.confident_joint.shape[0]
    keys = []
    for joint in (estimates.confident_joint, estimates.calibrated_joint):
        row, column, _ = sparse_joint.entries(joint)
        keys.append(row * n_classes + column)
    given, true = np.divmod(np.union1d(*keys), n_classes)
    arrays: dict[str, np.ndarray] = {
        "pair_given": given.astype(np.int32),
        "pair_true": true.astype(np.int32),
    }
    for name, value in estimates._asdict().items():
        if not isinstance(value, sparse.csr_array):
            arrays[name] = np.asarray(value)
        elif name == "inverse_noise_matrix":
            arrays[name] = sparse_joint.at(value, true, given)
        else:
            arrays[name] = sparse_joint.at(value, given, true)
    return arrays


def unpack_matrix(arrays: Mapping[str, np.ndarray], name: str) -> Matrix:
    """Return a matrix of packed estimates, shape (K, K)."""
    values = arrays[name]
    if values.ndim == 2:
        return values
    pair = (arrays["pair_given"], arrays["pair_true"])
    n_classes = len(arrays["prior"])
    matrix = sparse.coo_array(
        (values, pair[::-1] if name == "inverse_noise_matrix" else pair),
        shape=(n_classes, n_classes),
    )
    return sparse.csr_array(matrix)
