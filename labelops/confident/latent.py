"""What cannot be seen, from the joint: noise rates both ways, and the prior of the truth."""

from typing import NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from labelops.confident.joint import TINY

# K classes

MIN_PRIOR = 1e-6
MAX_NOISE_RATE = 0.9999


Matrix: TypeAlias = np.ndarray | sparse.csr_array
"""K × K numbers: all of them, or for many classes those that are not zero."""


class Latent(NamedTuple):
    """Estimates; all float64.

    Attributes
    ----------
    noise_matrix : P(given = a | true = b) at [a, b]; columns sum to 1, or to 0 where the joint has
        nothing. Shape (K, K).
    inverse_noise_matrix : P(true = b | given = a) at [b, a]; columns likewise. Shape (K, K).
    prior : P(true = b), at least 10⁻⁶ before it is normalised. Shape (K,).
    """

    noise_matrix: Matrix
    inverse_noise_matrix: Matrix
    prior: np.ndarray


def estimate_latent(joint: np.ndarray, n_given: np.ndarray) -> Latent:
    """Divide the joint by its margins.

    P(given = a | true = b) = C[a, b] / Σ_a C[a, b];
    P(true = b | given = a) = C[a, b] / Σ_b C[a, b];
    P(true = b) ∝ P(true = b | given = b) / P(given = b | true = b) · n_b / N,

    with C the calibrated joint, shape (K, K), and n_b the number of items given each class.

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning. JAIR 70, 2021, section 3.1. The prior by counts
    avoids the inverse of a noise matrix that may be nearly singular.

    Examples
    --------
    >>> latent = estimate_latent(np.array([[8, 2], [0, 20]]), np.array([10, 20]))
    >>> latent.inverse_noise_matrix.round(3).tolist(), latent.prior.round(3).tolist()
    ([[0.8, 0.0], [0.2, 1.0]], [0.267, 0.733])
    """
    of_true, of_given = joint.sum(axis=0), joint.sum(axis=1)
    noise = joint / np.maximum(of_true.astype(np.float64), TINY)
    inverse = joint.T / np.maximum(of_given.astype(np.float64), TINY)
    prior = prior_of(inverse.diagonal(), noise.diagonal(), n_given)
    return Latent(_clip_rates(noise), _clip_rates(inverse), prior)


def prior_of(p_true_given: np.ndarray, p_given_true: np.ndarray, n_given: np.ndarray) -> np.ndarray:
    """Return the prior of the truth, from the diagonals of both matrices; shape (K,)."""
    share = n_given / max(float(n_given.sum()), TINY)
    prior = p_true_given / np.maximum(p_given_true, TINY) * share
    prior = np.clip(prior, MIN_PRIOR, 1.0)
    return np.asarray(prior / prior.sum())


def _clip_rates(matrix: np.ndarray) -> np.ndarray:
    """Keep off-diagonal rates below 1; columns then sum to 1 again."""
    clipped = np.clip(matrix, 0, MAX_NOISE_RATE)
    np.fill_diagonal(clipped, matrix.diagonal())
    return np.asarray(clipped / np.maximum(clipped.sum(axis=0), TINY))
