"""How probable it is that an item is positive, from any score that ranks positives first.

σ(a z + b) with z the log-odds of the score: two numbers, from counts of scores. The mean over the
unlabelled items is the prior whatever a is; a is where labelled and unlabelled items are likeliest
to have the scores that they have.
"""

# N items, B bins, H opinions

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from labelops.calibration import log_safe
from labelops.partial.prior import PriorEstimate
from labelops.partial.risks import NEGATIVE, POSITIVE, check_prior, check_states
from labelops.partial.scores import BINS, LOGITS, PER_LOGIT, ScoreCounts

STEEPEST = 3.0
"""log a is in −3 … 3."""

MAX_WEIGHT, MAX_BIAS = 64.0, 40.0

MOST_LOGIT = BINS / PER_LOGIT / 2
"""Log-odds beyond count as this, as in `ScoreCounts`."""


class Posterior(NamedTuple):
    """From log-odds z of a score to the probability that an unlabelled item is positive.

    Attributes
    ----------
    slope, shift : a and b of σ(a z + b).
    low_shift : b at the low end of the prior.
    """

    slope: float
    shift: float
    low_shift: float


class PositiveBelief(NamedTuple):
    """What is believed of items; float64, shape (N,) each.

    Attributes
    ----------
    p : probability of being positive.
    low : the same at the low end of the prior, for decisions.
    """

    p: np.ndarray
    low: np.ndarray


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Return log-odds of scores in [0, 1], within ±16.

    Examples
    --------
    >>> log_odds(np.array([0.0, 0.5, 1.0])).tolist()
    [-16.0, 0.0, 16.0]
    """
    p = np.asarray(scores, np.float64)
    return np.asarray(np.clip(log_safe(p) - log_safe(1 - p), -MOST_LOGIT, MOST_LOGIT))


def _shift(z: np.ndarray, weight: np.ndarray, mean: float) -> float:
    """Return b at which the weighted mean of σ(z + b) is as wanted; infinite for 0 and 1."""
    if mean in (0.0, 1.0):
        return np.inf if mean else -np.inf
    total = mean * weight.sum()
    edge = float(np.log(mean) - np.log1p(-mean))
    low, high = edge - float(z.max()), edge - float(z.min())
    for _ in range(60):
        middle = (low + high) / 2
        if weight @ expit(z + middle) < total:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _loss(p: np.ndarray, counts: ScoreCounts, odds: float) -> float:
    """Return −log of the likelihood of which items are labelled."""
    return float(
        counts.labelled @ (np.log1p(odds * p) - log_safe(odds * p))
        + counts.unlabelled @ np.log1p(odds * p)
    )


def fit_posterior(counts: ScoreCounts, prior: PriorEstimate) -> Posterior:
    """Return the map from scores to posteriors.

    Of an item that is labelled or not, the odds of being labelled are κ p with κ = n_P / (α n_U)
    and p the probability that it is positive if it is not; in both settings. σ(a z + b) stands for
    p: b makes its mean over the unlabelled items α, a the items likeliest to be labelled as they
    are.

    Parameters
    ----------
    counts
        Of out-of-sample scores.
    prior
        Share α of positives among the unlabelled items, and its low end.

    Returns
    -------
    NaN where there are no labelled or no unlabelled items.

    Notes
    -----
    Supposes that labelled positives are a random draw of all. About 30 passes over the bins.

    References
    ----------
    Elkan, Noto: Learning classifiers from only positive and unlabeled data. KDD 2008, lemma 1 (the
    odds). Platt: Probabilistic outputs for support vector machines. 1999 (the sigmoid).

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> high = [np.linspace(0.6, 0.9, n) for n in (500, 300)]
    >>> scores, labelled = np.concatenate([*high, np.full(700, 0.1)]), np.arange(1500) < 500
    >>> prior = PriorEstimate(0.3, 0.2, 0.4, True, "dedpul")
    >>> posterior = fit_posterior(count_scores(scores, labelled), prior)
    >>> p = believe_positive(posterior, scores, np.where(labelled, 1, -1)).p
    >>> round(float(p[~labelled].mean()), 3), bool(p[-1] < 0.01), bool(p[500] > 0.9)
    (0.3, True, True)
    """
    if not counts.n_labelled or not counts.n_unlabelled:
        return Posterior(float("nan"), float("nan"), float("nan"))
    share = check_prior(prior.value)
    # A share of 0 would say that no labelled item can be.
    odds = counts.n_labelled / max(share * counts.n_unlabelled, 1.0)
    # Bins without unlabelled items have no part in the mean.
    seen, weight = LOGITS[counts.unlabelled > 0], counts.unlabelled[counts.unlabelled > 0]

    def loss(log_slope: float) -> float:
        slope = np.exp(log_slope)
        return _loss(expit(slope * LOGITS + _shift(slope * seen, weight, share)), counts, odds)

    found = minimize_scalar(loss, bounds=(-STEEPEST, STEEPEST), method="bounded")
    slope = float(np.exp(found.x)) if 0 < share < 1 else 1.0
    shift, low = (_shift(slope * seen, weight, end) for end in (share, check_prior(prior.low)))
    return Posterior(slope, shift, low)


def believe_positive(posterior: Posterior, scores: np.ndarray, state: np.ndarray) -> PositiveBelief:
    """Return how probable it is that items are positive: 1 and 0 where that is known.

    Parameters
    ----------
    posterior
        From `fit_posterior`.
    scores
        As those it was fitted to, shape (N,).
    state
        1 (labelled positive), 0 (known negative) or −1 (unlabelled), shape (N,).

    Examples
    --------
    >>> belief = believe_positive(
    ...     Posterior(1.0, 0.0, -1.0), np.array([0.5, 0.5, 0.5]), np.array([-1, 1, 0])
    ... )
    >>> belief.p.tolist(), belief.low.round(2).tolist()
    ([0.5, 1.0, 0.0], [0.27, 1.0, 0.0])
    """
    z, state = log_odds(scores), check_states(state)
    p, low = (
        np.select(
            [state == POSITIVE, state == NEGATIVE],
            [1.0, 0.0],
            expit(posterior.slope * z + shift),
        )
        for shift in (posterior.shift, posterior.low_shift)
    )
    return PositiveBelief(p, low)


class PositivePool(NamedTuple):
    """Several opinions made into one: σ(Σ_h w_h z_h + b).

    Attributes
    ----------
    weights : w of the log-odds z of each opinion, float64, shape (H,).
    bias : b.
    """

    weights: np.ndarray
    bias: float


def fit_positive_pool(scores: np.ndarray, is_labelled: np.ndarray, *, prior: float) -> PositivePool:
    """Return the weights at which a pool of opinions is likeliest to have the items labelled.

    As in `fit_posterior`, the odds of being labelled are κ σ(Σ_h w_h z_h + b), which level off
    where there are positives only; those of a logistic pool (`labelops.opinions.pool`) do not.

    Parameters
    ----------
    scores
        Out-of-sample, in [0, 1], of every opinion, shape (H, N): probabilities of being labelled,
        of being positive, or whatever ranks positives first.
    is_labelled
        Shape (N,); known negatives are left out.
    prior
        Share of positives among the unlabelled items.

    Returns
    -------
    Weights in [0, 64]; 1 / H each and no bias without labelled or unlabelled items.

    Notes
    -----
    L-BFGS-B from 1 / H; the same rows in the same order give the same bits.

    References
    ----------
    Ward, Hastie, Barry, Elith, Leathwick: Presence-only data and the EM algorithm. Biometrics 65,
    2009 (the likelihood).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> positive = rng.random(4000) < 0.4
    >>> knows = 1 / (1 + np.exp(-rng.normal(np.where(positive, 2, -2))))
    >>> labelled = positive & (rng.random(4000) < 0.3)
    >>> prior = positive[~labelled].mean()
    >>> pool = fit_positive_pool(np.stack([knows, rng.random(4000)]), labelled, prior=prior)
    >>> bool(pool.weights[0] > 10 * pool.weights[1])
    True
    """
    z, is_labelled = log_odds(scores), np.asarray(is_labelled, bool)
    n_opinions, n = z.shape
    n_labelled = int(is_labelled.sum())
    start = np.append(np.full(n_opinions, 1 / n_opinions), 0.0)
    if n_labelled in (0, n):
        return PositivePool(start[:-1], 0.0)
    odds = n_labelled / max(check_prior(prior) * (n - n_labelled), 1.0)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        total = theta[-1] + theta[:-1] @ z
        p, log_p = expit(total), -np.logaddexp(0, -total)
        lost = np.log1p(odds * p).sum() - log_p[is_labelled].sum()
        slope = (odds * p / (1 + odds * p) - is_labelled) * (1 - p)
        return float(lost) / n, np.append(z @ slope, slope.sum()) / n

    bounds = [(0.0, MAX_WEIGHT)] * n_opinions + [(-MAX_BIAS, MAX_BIAS)]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return PositivePool(np.asarray(found.x[:-1]), float(found.x[-1]))


def pool_positives(scores: np.ndarray, pool: PositivePool) -> np.ndarray:
    """Return the pooled scores, float64, shape (N,); of opinions, shape (H, N).

    Examples
    --------
    >>> pool_positives(np.array([[0.5], [0.8]]), PositivePool(np.array([1.0, 0.5]), 0.0)).round(3)
    array([0.667])
    """
    # One after the other, so that a row is the same whatever rows are beside it.
    total = np.full(scores.shape[1], pool.bias)
    for weight, opinion in zip(pool.weights, scores, strict=True):
        total += weight * log_odds(opinion)
    return np.asarray(expit(total))
