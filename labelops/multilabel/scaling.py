"""Bring a model's log-odds to what is given: a slope and a shift for every class.

A model trained on given labels should say of each cell how probable it is to be given. Where it is
too sure for a class, that looks as if labels of the class were missing or wrong; so it is mended
first, as far as out-of-sample cells of the class tell.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

# M cells, K classes

PRIOR_CELLS = 10.0
"""Every class is held to the pooled slope and shift with so much: twice it is the precision."""

MAX_STEPS = 50

TOLERANCE = 1e-10
"""Of a class's loss; a step that would lower it by less is not made."""


class Scaling(NamedTuple):
    """Calibrated log-odds are slope · log-odds + shift; float64, shape (K,) each."""

    slope: np.ndarray
    shift: np.ndarray


def fit_scaling(
    log_odds: np.ndarray,
    is_given: np.ndarray,
    class_id: np.ndarray,
    weight: np.ndarray,
    *,
    n_classes: int,
    prior_cells: float = PRIOR_CELLS,
) -> Scaling:
    """Fit slopes and shifts to given states, those of all classes together first.

    Σ_m −w_m log p(z_m | a_c l_m + b_c) + λ Σ_c ((a_c − a)² + (b_c − b)²), with a, b the
    ones that fit all cells best, held to 1 and 0 in the same way.

    Parameters
    ----------
    log_odds
        Of out-of-sample probabilities, finite, shape (M,).
    is_given
        Whether the class was said to be present, shape (M,).
    class_id
        Shape (M,).
    weight
        How many cells each one stands for; only their proportions count. Shape (M,).
    n_classes
        K.
    prior_cells
        λ.

    Notes
    -----
    Convex; Newton steps, halved where they would not help. O(M) a step.

    References
    ----------
    Platt: Probabilistic outputs for support vector machines. Advances in Large Margin Classifiers,
    1999.

    Examples
    --------
    >>> log_odds = np.repeat([-3.0, 3.0], 4000)  # too sure: right three times in four
    >>> is_given = np.concatenate([np.tile([1, 0, 0, 0], 1000), np.tile([0, 1, 1, 1], 1000)]) > 0
    >>> one = np.zeros(8000, np.int64)
    >>> scaling = fit_scaling(log_odds, is_given, one, np.ones(8000), n_classes=1)
    >>> scaling.slope.round(3).tolist(), (np.log(3) / 3).round(3).item()
    ([0.366], 0.366)
    """
    weight = weight * (len(weight) / weight.sum()) if len(weight) else weight
    start = np.array([[1.0, 0.0]])
    one = np.zeros(len(class_id), np.int64)
    pooled = _newton(log_odds, is_given, one, weight, start, prior_cells)
    priors = np.repeat(pooled, n_classes, axis=0)
    coefficients = _newton(log_odds, is_given, class_id, weight, priors, prior_cells)
    return Scaling(coefficients[:, 0].copy(), coefficients[:, 1].copy())


def _newton(
    x: np.ndarray,
    z: np.ndarray,
    group: np.ndarray,
    w: np.ndarray,
    prior: np.ndarray,
    prior_cells: float,
) -> np.ndarray:
    """Return slope and shift of every group, begun and held at a prior; shape (G, 2)."""
    n_groups, at = len(prior), prior.copy()

    def add(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, minlength=n_groups)

    def loss(at: np.ndarray) -> np.ndarray:
        s = at[group, 0] * x + at[group, 1]
        cells = add(w * np.logaddexp(0.0, np.where(z, -s, s)))
        return np.asarray(cells + prior_cells * np.square(at - prior).sum(axis=1))

    value = loss(at)
    for _ in range(MAX_STEPS):
        p = expit(at[group, 0] * x + at[group, 1])
        error, curve = w * (p - z), w * p * (1 - p)
        slope = np.stack([add(error * x), add(error)], axis=1) + 2 * prior_cells * (at - prior)
        aa = add(curve * x * x) + 2 * prior_cells
        ab, bb = add(curve * x), add(curve) + 2 * prior_cells
        both = aa * bb - ab * ab
        step = np.stack(
            [bb * slope[:, 0] - ab * slope[:, 1], aa * slope[:, 1] - ab * slope[:, 0]], axis=1
        )
        step /= both[:, None]
        # By so much a step lowers the loss; below that all differences are rounding.
        enough = TOLERANCE * (1 + np.abs(value))
        if ((slope * step).sum(axis=1) / 2 <= enough).all():
            break
        size = np.ones(n_groups)
        for _ in range(30):
            tried = loss(at - size[:, None] * step)
            worse = tried > value + enough
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        better = tried <= value + enough
        at = np.where(better[:, None], at - size[:, None] * step, at)
        value = np.where(better, tried, value)
    return at


def scaled(log_odds: np.ndarray, class_id: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Return calibrated log-odds of cells; float64, shape (M,)."""
    return np.asarray(scaling.slope[class_id] * log_odds + scaling.shift[class_id])
