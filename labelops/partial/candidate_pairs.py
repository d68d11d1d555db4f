"""Candidates that stand beside others more often than by chance: which class brings which along.

Most methods take wrong candidates to be drawn evenly. Here each true class a has rates of its own,
q_ab = P(b is a candidate | a is true), so that whole sets have a probability, and two ways to learn
from sets can be compared by how probable they make them. Where both models are possible, an item's
label is as sure as the one that finds it less so.
"""

# N items, K classes, F folds

import numpy as np
from scipy.special import logsumexp, softmax

from labelops.fast.products import affine
from labelops.opinions.pool import log_opinions
from labelops.partial.candidates import candidate_weights, check_candidates

MOST_CLASSES = 2048
"""Of more, pairs are too many to look at."""

STEPS = 10
"""Of expectation and maximisation."""

PRIOR_ITEMS = 10.0
"""So many items of a class have companions as those of all other classes, before it is counted."""

NEVER = 1e-4
"""No rate is nearer to 0 or 1."""


def fit_rates(probs: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return how often each class is a candidate where another one is true.

    q_ab = (Σ_i w_ia 1{b ∈ C_i} + m q̄_b) / (Σ_i w_ia + m), w_ia ∝ p_ia P(C_i | a), for a ∈ C_i; q̄_b
    is the rate of b over all a ≠ b, and m is `PRIOR_ITEMS`. In turns, from w ∝ p.

    Parameters
    ----------
    probs
        Out-of-sample, in [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).

    Returns
    -------
    q, float64, shape (K, K), in [1e-4, 1 − 1e-4]; 1 − 1e-4 on the diagonal.

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    Candidates are taken to be independent of each other, given the true class.

    Examples
    --------
    >>> probs = np.repeat(np.eye(3), 200, axis=0)
    >>> is_candidate = probs.astype(bool)
    >>> is_candidate[:150, 1] = True  # three quarters of the first class
    >>> fit_rates(probs, is_candidate)[:2, :2].round(2).tolist()
    [[1.0, 0.73], [0.0, 1.0]]
    """
    sets = np.asarray(is_candidate, np.float64)
    weights = candidate_weights(probs, is_candidate)
    log_p = log_opinions(probs)
    rates = _rates(weights, sets)
    for _ in range(STEPS - 1):
        weights = softmax(log_p + log_likelihoods(rates, is_candidate), axis=1)
        rates = _rates(weights, sets)
    return rates


def _rates(weights: np.ndarray, sets: np.ndarray) -> np.ndarray:
    n, together = weights.sum(axis=0), weights.T @ sets
    elsewhere = together.sum(axis=0) - np.diag(together)
    mean = elsewhere / np.maximum(n.sum() - n, 1.0)
    rates = (together + PRIOR_ITEMS * mean) / (n + PRIOR_ITEMS)[:, None]
    np.fill_diagonal(rates, 1.0)
    return np.asarray(np.clip(rates, NEVER, 1 - NEVER))


def log_likelihoods(rates: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return log P(C_i | a) = Σ_{b ∈ C_i} log q_ab + Σ_{b ∉ C_i} log (1 − q_ab); −∞ for a ∉ C_i.

    Parameters
    ----------
    rates
        From `fit_rates`, shape (K, K). What is on the diagonal is as good as 1.
    is_candidate
        bool, shape (N, K).

    Returns
    -------
    float64, shape (N, K).

    Examples
    --------
    >>> rates = np.array([[1.0, 0.5], [0.25, 1.0]])
    >>> found = log_likelihoods(rates, np.array([[True, True], [True, False]]))
    >>> np.exp(found).round(3).tolist()
    [[0.5, 0.25], [0.5, 0.0]]
    """
    q = np.clip(rates, NEVER, 1 - NEVER)
    log_in, log_out = np.log(q), np.log1p(-q)
    np.fill_diagonal(log_in, 0.0)
    np.fill_diagonal(log_out, 0.0)
    whole = affine(is_candidate, (log_in - log_out).T, log_out.sum(axis=1))
    return np.asarray(np.where(is_candidate, whole, -np.inf))


def pair_weights(probs: np.ndarray, is_candidate: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return the probabilities of candidates, given which classes bring which along.

    w_ia ∝ p_ia P(C_i | a).

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).
    rates
        From `fit_rates`.

    Returns
    -------
    float64, shape (N, K), 0 for what is no candidate; rows sum to one.

    Raises
    ------
    ValueError
        If an item has no candidate.

    Examples
    --------
    >>> rates = np.array([[1.0, 0.9], [0.1, 1.0]])  # the first class mostly brings the second along
    >>> both = np.array([[True, True]])
    >>> pair_weights(np.array([[0.4, 0.6]]), both, rates).round(2).tolist()
    [[0.86, 0.14]]
    """
    check_candidates(is_candidate)
    log_p = log_opinions(probs)
    return np.asarray(softmax(log_p + log_likelihoods(rates, is_candidate), axis=1))


def pair_loss(probs: np.ndarray, is_candidate: np.ndarray, fold: np.ndarray) -> float:
    """Return the mean of −log P(C_i) = −log Σ_a p_ia P(C_i | a), by rates of the other folds.

    Parameters
    ----------
    probs
        Out-of-sample, in [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).
    fold
        Of each item, shape (N,).

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    The likelihood that one candidate is true (`candidate_loss`) compares ways to learn only where
    wrong candidates are drawn evenly: a class that stands beside many others explains their sets as
    well as they do. Here it would have to explain, too, why it brings them along.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true, fold = np.arange(900) % 3, np.arange(900) // 3 % 3
    >>> is_candidate = np.eye(3, dtype=bool)[true]
    >>> is_candidate[:, 0] = True  # the first class stands beside all others
    >>> knows, taken = np.eye(3)[true] * 0.9 + 0.03, np.tile([0.94, 0.03, 0.03], (900, 1))
    >>> pair_loss(knows, is_candidate, fold) < pair_loss(taken, is_candidate, fold)
    True
    """
    check_candidates(is_candidate)
    total, fold = 0.0, np.asarray(fold)
    for f in np.unique(fold):
        mine = fold == f
        rates = fit_rates(probs[~mine], is_candidate[~mine])
        joint = log_opinions(probs[mine]) + log_likelihoods(rates, is_candidate[mine])
        total -= float(logsumexp(joint, axis=1).sum())
    return total / max(len(fold), 1)
