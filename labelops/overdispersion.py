"""P-values that allow for a model which is a little wrong everywhere.

A model that is off by a little makes every large bag improbable, for a count of thousands has a
small relative std. What is worth a look are the bags that are improbable beside the others. So
p-values are turned into the deviations of a normal variable, how much those of a typical bag exceed
what chance allows is measured, and all are divided by it ("genomic control").
"""

# B bags or other tests

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

TYPICAL = 0.4549364231195724
"""Median of the square of a standard normal variable."""


def deviations(log_tails: np.ndarray) -> np.ndarray:
    """Return the normal deviation with the same upper tail, 0 for tails of one half or more.

    Tails are log-probabilities of what was seen or something more extreme, on its side, shape (B,).

    Examples
    --------
    >>> deviations(np.log([0.5, 0.158655254, 1.0])).round(6).tolist()
    [0.0, 1.0, 0.0]
    """
    inside = np.minimum(np.asarray(log_tails, np.float64), np.log(0.5))
    return np.asarray(np.maximum(-ndtri_exp(inside), 0.0))


def dispersion(log_tails: np.ndarray) -> float:
    """Return by how much variances exceed what the model allows: median of z² / 0.455, at least 1.

    Tails are the smaller of the two of each test, as logarithms, shape (B,).

    Notes
    -----
    The median does not notice the few that are wrong for a reason of their own. Below 1 p-values
    are too large already, as those of small counts are. Infinite if half of the tests or more are
    impossible: the others then are as nothing beside them.

    References
    ----------
    Devlin, Roeder: Genomic control for association studies. Biometrics 55, 1999.

    Examples
    --------
    >>> dispersion(np.array([])), dispersion(np.log([0.2, 0.4, 0.5]))
    (1.0, 1.0)
    """
    if len(log_tails) == 0:
        return 1.0
    return max(1.0, float(np.median(deviations(log_tails) ** 2)) / TYPICAL)


def widened_p_values(log_tails: np.ndarray, *, dispersion: float) -> np.ndarray:
    """Return two-sided p-values under a variance that is larger by a factor.

    p = 2 Φ(−z / √φ); of tails that are already one half or more, 1. What is impossible stays so,
    whatever the factor: 0. Tails and φ ≥ 1 are those of `dispersion`.

    Examples
    --------
    >>> widened_p_values(np.log([0.025, 0.5]), dispersion=1.0).round(6).tolist()
    [0.05, 1.0]
    >>> widened_p_values(np.log([0.025]), dispersion=4.0).round(4).tolist()
    [0.3271]
    """
    z = deviations(log_tails)
    finite = np.where(np.isinf(z), 0.0, z)
    p = np.minimum(1.0, 2 * np.exp(log_ndtr(-finite / np.sqrt(dispersion))))
    return np.where(np.isinf(z), 0.0, p)
