"""What to believe of a cell: a model, the item's other classes, and how far labels can be trusted.

The given states are explained as true ones that were spoiled at random: of what is present the
share α is missing, and of what was given the share ω is wrong. How present a class is, q, is
logistic in a cell's features. Both are fitted together, so noise is believed in only where nothing
simpler explains the given states: however sure the features, no more than 1 − α of such cells are
given. Confident learning counts every disagreement with a weak model as noise; on real sets with a
tenth of the labels hidden it counted two to ten times as many, and beliefs built on that were sure
and wrong (`benchmarks/multilabel_efficacy.py`).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from labelops.multilabel.surest import leading, surest_first

# M cells, F features

PRIOR_CELLS = 20.0
"""Labels are believed sound with the weight of so many cells."""

MAX_FALSE = 0.5
"""An absent class is given at most so often."""

SURE_SHARES = (0.02, 0.1)
"""The surest cells, so many for each label given, say how much can be missing or wrong at most."""


class Opinion(NamedTuple):
    """How present classes are, and how states were spoiled.

    P(given yes) = β + (1 − α − β) q, q = expit(bias + Σ weight · feature), with β the share of the
    items without a class that carry it; it follows from ω, α and how often the class was given.

    Attributes
    ----------
    bias : float.
    weight : float64, shape (F,).
    missing : α, the share of present classes that were not given.
    wrong : ω, the share of given classes that are not present.
    """

    bias: float
    weight: np.ndarray
    missing: float
    wrong: float


LARGEST = 16.0
"""Log-odds of a model are believed so far: its exact 0 and 1 are rounded."""


def model_log_odds(p: np.ndarray) -> np.ndarray:
    """Return log p / (1 − p) of a model's probabilities, within ±16; float64."""
    return np.asarray(np.clip(logit(p.astype(np.float64)), -LARGEST, LARGEST))


def noise_limits(
    score: np.ndarray, is_given: np.ndarray, odds: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """Return how much can be missing, and how much wrong, at most.

    Among cells that are present for certain the share α is not given. Of others it is more, since
    some of them are absent; so what is not given among the cells with the highest score bounds α,
    and what is given among those with the lowest bounds ω: a model that is weak everywhere looks
    like noise to `fit_opinion`, but not among the cells it knows best.

    Parameters
    ----------
    score
        Log-odds of being given, as a fit without noise says, shape (M,).
    is_given, odds, weight
        As in `fit_opinion`.

    Returns
    -------
    Bounds of α and ω, each with one label more than was found.
    """
    weight = weight / max(float(weight[is_given].mean()), 1e-300) if is_given.any() else weight
    n_given = float(weight[is_given].sum())
    present, absent = surest_first(score, odds)
    alpha = omega = 1.0
    for share in SURE_SHARES:
        rows = leading(present, weight, share=share, n_given=n_given)
        missing, size = float(weight[rows][~is_given[rows]].sum()), float(weight[rows].sum())
        alpha = min(alpha, (missing + 1.0) / (size + 2.0))
        rows = leading(absent, weight * odds, share=share, n_given=n_given)
        false, by_chance = float(weight[rows][is_given[rows]].sum()), (weight * odds)[rows].sum()
        omega = min(omega, (false + 1.0) / (float(by_chance) + 1.0))
    return alpha, omega


def fit_opinion(
    values: np.ndarray,
    is_given: np.ndarray,
    odds: np.ndarray,
    weight: np.ndarray,
    *,
    limits: tuple[float, float] = (1.0, 1.0),
) -> Opinion:
    """Find what explains the given states best.

    Parameters
    ----------
    values
        Shape (M, F); the first one alone is believed at the start.
    is_given
        Given states, shape (M,).
    odds
        How often each cell's class was given, to how often not, shape (M,).
    weight
        How many cells each one stands for, shape (M,).
    limits
        α and ω are at most these; see `noise_limits`.

    Returns
    -------
    The most probable opinion, with Beta(1, 1 + 20) for α and ω. Without both states nothing can be
    learned: the first feature is believed and no noise.

    Notes
    -----
    O(M F) an iteration, some tens of them. Assumes that what is missing is so by chance, whatever
    the item looks like; α is then found only if some cells are surely present.

    References
    ----------
    Bekker, Davis: Learning from positive and unlabeled data: a survey. Machine Learning 109, 2020,
    section 3 (selected completely at random). Besag: Statistical analysis of non-lattice data. The
    Statistician 24, 1975 (pseudo-likelihood).
    """
    n_features = values.shape[1]
    first = np.eye(n_features)[0]
    if is_given.all() or not is_given.any():
        return Opinion(0.0, first, 0.0, 0.0)
    weight = weight * (len(weight) / weight.sum())

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, omega = expit(at[:2])
        q = expit(at[2] + values @ at[3:])
        beta, beta_by_alpha, beta_by_omega = _false_share(alpha, omega, odds)
        p = np.clip(beta + (1 - alpha - beta) * q, 1e-12, 1 - 1e-12)
        total = -np.sum(weight * np.log(np.where(is_given, p, 1 - p)))
        total -= PRIOR_CELLS * (log_expit(-at[0]) + log_expit(-at[1]))
        slope = weight * np.where(is_given, -1 / p, 1 / (1 - p))
        by_score = slope * (1 - alpha - beta) * q * (1 - q)
        by_beta = slope * (1 - q)
        by_alpha = (by_beta @ beta_by_alpha - slope @ q) * alpha * (1 - alpha)
        by_omega = by_beta @ beta_by_omega * omega * (1 - omega)
        by_alpha, by_omega = by_alpha + PRIOR_CELLS * alpha, by_omega + PRIOR_CELLS * omega
        gradient = np.concatenate([[by_alpha, by_omega, by_score.sum()], values.T @ by_score])
        return float(total), gradient

    # α = ω = 10⁻⁶ is none at all.
    most = [max(float(logit(limit)), -14.0) for limit in limits]
    bounds = [(-14.0, end if np.isfinite(end) else None) for end in most]
    begin = np.concatenate([[min(-2.0, end) for end in most], [0.0], first])
    theta = minimize(
        loss,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, *[(None, None)] * (n_features + 1)],
        options={"maxiter": 500},
    ).x
    return Opinion(float(theta[2]), theta[3:], *(float(x) for x in expit(theta[:2])))


def _false_share(
    alpha: float, omega: float, odds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return β and its derivatives by α and ω.

    Of n items with a known state y are given a class: ω y wrongly, and (1 − ω) y / (1 − α) have it.
    So β = ω y / (n − (1 − ω) y / (1 − α)); here divided by the number that were not given it.
    """
    absent = 1 + odds - odds * (1 - omega) / (1 - alpha)
    is_free = omega * odds < MAX_FALSE * absent
    absent = np.where(is_free, absent, 1.0)
    beta = np.where(is_free, omega * odds / absent, MAX_FALSE)
    by_alpha = omega * odds * odds * (1 - omega) / (1 - alpha) ** 2 / absent**2
    by_omega = odds / absent - omega * odds * odds / (1 - alpha) / absent**2
    return beta, np.where(is_free, by_alpha, 0.0), np.where(is_free, by_omega, 0.0)


def presence(values: np.ndarray, opinion: Opinion) -> np.ndarray:
    """Return the probability that a class is present by its features alone, q; float64, (M,).

    Examples
    --------
    >>> opinion = Opinion(0.0, np.array([1.0, 0.5]), 0.2, 0.0)
    >>> presence(np.array([[0.0, 2.0]]), opinion).round(3).tolist()
    [0.731]
    """
    # Not a product of matrix and vector: its last bit depends on where a row stands.
    return np.asarray(expit(opinion.bias + (values * opinion.weight).sum(axis=1)))


def log_odds_at(odds: np.ndarray, opinion: Opinion, *, p: float) -> np.ndarray:
    """Return log q / (1 − q) at which a class that was ruled out is present with probability p.

    The inverse of `believe` for ruled-out cells: q / (1 − q) = p (1 − β) / ((1 − p) α).

    Parameters
    ----------
    odds
        How often each class was given, to how often not, shape (K,).
    opinion
        From `fit_opinion`.
    p
        In (0, 1]; at 1, and without missing labels, no log-odds are enough.

    Returns
    -------
    float64, shape (K,).

    Examples
    --------
    >>> opinion = Opinion(0.0, np.ones(1), 0.2, 0.1)
    >>> least = log_odds_at(np.ones(1), opinion, p=0.25)
    >>> believe(least[:, None], np.array([False]), np.ones(1), opinion).round(3).tolist()
    [0.25]
    """
    beta, _, _ = _false_share(opinion.missing, opinion.wrong, odds)
    with np.errstate(divide="ignore"):
        return np.asarray(logit(p) + np.log1p(-beta) - np.log(opinion.missing))


def believe(
    values: np.ndarray, is_given: np.ndarray, odds: np.ndarray, opinion: Opinion
) -> np.ndarray:
    """Return the probability that a class is present, its given state heard as well.

    Bayes' rule: q (1 − α) / (q (1 − α) + (1 − q) β) where it was given, q α / (q α + (1 − q)(1 −
    β)) where it was ruled out. Of a ruled-out class it is the probability that it is missing; of a
    given one, one minus the probability that it is wrong.

    Parameters
    ----------
    values, is_given, odds
        As in `fit_opinion`.
    opinion
        From there.

    Returns
    -------
    float64, shape (M,).

    Examples
    --------
    >>> opinion, even = Opinion(0.0, np.ones(1), 0.2, 0.1), np.zeros((2, 1))
    >>> believe(even, np.array([True, False]), np.ones(2), opinion).round(3).tolist()
    [0.875, 0.184]
    """
    q, alpha = presence(values, opinion), opinion.missing
    beta, _, _ = _false_share(alpha, opinion.wrong, odds)
    if_present = np.where(is_given, 1 - alpha, alpha)
    if_absent = np.where(is_given, beta, 1 - beta)
    either = q * if_present + (1 - q) * if_absent
    # What happened was held for impossible: then the features alone are heard.
    return np.asarray(np.where(either > 0, q * if_present / np.where(either > 0, either, 1.0), q))
