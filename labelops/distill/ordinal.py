"""Ratings as soft labels over ordered levels: how good, and how far people were apart.

Several people rated an item; known are the mean of what they said and its spread. A student that
predicts levels ("bad" … "excellent") learns both from one soft label, if that label has them. The
discrete law of maximum entropy has both exactly. The published recipe, the density of a normal law
at the levels, shifted and cut off at zero, often has neither, and is here to compare with.
"""

# N items, L levels

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, softmax

Method = Literal["maxent", "deqa", "deqa_cdf", "two_level"]

LEAST_STD = 0.2
"""Below this spread, in levels, the published recipe takes two levels."""

MOST_SHIFT = 0.1
"""It does so, too, if cutting off at zero moves Σ p ℓ by more than this."""

MIDDLE = 1e-6
"""So near to the middle of the scale its shift is nothing divided by nothing."""

NEAR_EDGE = 1e-9
"""A variance so near to a bound, in squares of the scale's length, is at the bound."""

MOMENT_ERROR = 1e-12
"""Mean and variance of a law are as wanted within this, in lengths of the scale."""

MOST_STEPS = 200

FIDELITY_EPS = 1e-8
"""Under the roots of the fidelity loss, whose slope is infinite at 0."""


class LevelLabels(NamedTuple):
    """Soft labels over levels.

    Attributes
    ----------
    probs : of levels 1 … L, float64, shape (N, L); rows sum to one.
    is_spread_lost : bool, shape (N,). With *maxent*, no law on these levels has that mean and that
        spread, and the nearest spread was taken; with the others, two levels were.
    """

    probs: np.ndarray
    is_spread_lost: np.ndarray


class Moments(NamedTuple):
    """What a soft label says; float64, shape (N,) each.

    Attributes
    ----------
    mean : Σ p v.
    std : √Σ p (v − mean)².
    """

    mean: np.ndarray
    std: np.ndarray


class Fidelity(NamedTuple):
    """Loss of pairs, and its slope; float64, shape (N,) each.

    Attributes
    ----------
    loss : 1 − √(h g + e) − √((1 − h)(1 − g) + e), in [−e, 1].
    slope : its derivative by the score of the first; by that of the second it is the negative.
    """

    loss: np.ndarray
    slope: np.ndarray


def rescale(
    mean: np.ndarray, std: np.ndarray, *, low: float, high: float, n_levels: int
) -> Moments:
    """Return mean and spread of ratings in units of levels, 1 … L.

    μ' = 1 + (L − 1)(μ − low) / (high − low), σ' = (L − 1) σ / (high − low).

    Parameters
    ----------
    mean, std
        Of the ratings of each item, shape (N,). The spread is that of people, not the standard
        error of their mean; 0 … high − low.
    low, high
        Ends of the scale that people rated on. Not the least and greatest mean of the data, which
        move all labels when the data grows.
    n_levels
        L ≥ 1.

    Raises
    ------
    ValueError
        If there is no level, the scale is empty, shapes differ, or a mean or a spread is not on
        the scale.

    References
    ----------
    You et al.: Teaching large language models to regress accurate image quality scores using score
    distribution. CVPR 2025 (of the authors' code; both numbers have to be scaled).

    Examples
    --------
    >>> there = rescale(np.array([60.0]), np.array([10.0]), low=0, high=100, n_levels=5)
    >>> there.mean.round(6).tolist(), there.std.round(6).tolist()
    ([3.4], [0.4])
    """
    mu, sigma = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if n_levels < 1 or not -np.inf < low < high < np.inf:
        raise ValueError(
            "ratings: at least one level and a scale low < high were expected, got "
            f"{n_levels} levels and {low:g} … {high:g}"
        )
    if mu.ndim != 1 or mu.shape != sigma.shape:
        raise ValueError(
            f"ratings: as many means as spreads were expected, got {mu.shape} and {sigma.shape}"
        )
    # Written so that NaN fails too.
    bad = ~((mu >= low) & (mu <= high) & (sigma >= 0) & (sigma <= high - low))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"ratings: means within {low:g} … {high:g} and spreads within 0 … {high - low:g} were "
            f"expected; row {row} has {mu[row]:g} ± {sigma[row]:g}. Are both on one scale?"
        )
    per_unit = (n_levels - 1) / (high - low)
    return Moments(np.clip(1 + per_unit * (mu - low), 1, n_levels), per_unit * sigma)


def level_labels(
    mean: np.ndarray,
    std: np.ndarray,
    *,
    low: float,
    high: float,
    n_levels: int = 5,
    method: Method = "maxent",
) -> LevelLabels:
    """Return soft labels over levels for ratings.

    Parameters
    ----------
    mean, std, low, high, n_levels
        See `rescale`.
    method
        *maxent*, see `maxent_labels`; *deqa* and *deqa_cdf*, see `deqa_labels`, whose rows are
        divided by their sum: a student trained on rows that do not sum to one learns the same;
        *two_level*, see `two_level_labels`, where the spread is not known.

    Raises
    ------
    ValueError
        As `rescale`, or if there is no such method.

    Examples
    --------
    >>> labels = level_labels(np.array([60.0]), np.array([10.0]), low=0, high=100)
    >>> labels.probs.round(3).tolist()
    [[0.0, 0.0, 0.6, 0.4, 0.0]]
    >>> labels.is_spread_lost.tolist()
    [True]
    """
    if method not in METHODS:
        raise ValueError(f"ratings: a method of {', '.join(METHODS)} was expected, got {method!r}")
    there = rescale(mean, std, low=low, high=high, n_levels=n_levels)
    found = METHODS[method](there, n_levels)
    return found._replace(probs=found.probs / found.probs.sum(axis=1, keepdims=True))


def two_level_labels(mean: np.ndarray, *, n_levels: int) -> np.ndarray:
    """Return the label with that mean on the two levels beside it: the least spread that there is.

    p_{ℓ+1} = μ − ℓ, p_ℓ = ℓ + 1 − μ, with ℓ ≤ μ < ℓ + 1.

    Parameters
    ----------
    mean
        In units of levels, in 1 … L, shape (N,).
    n_levels
        L ≥ 1.

    Examples
    --------
    >>> two_level_labels(np.array([3.25, 5.0]), n_levels=5).tolist()
    [[0.0, 0.0, 0.75, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    level = np.arange(1, n_levels + 1)
    return np.asarray(np.maximum(1 - np.abs(level - np.asarray(mean)[:, None]), 0.0))


def deqa_labels(
    mean: np.ndarray, std: np.ndarray, *, n_levels: int, mass: Literal["pdf", "cdf"] = "pdf"
) -> LevelLabels:
    """Return labels by the recipe of DeQA-Score, as published: rows need not sum to one.

    Of raw masses p_ℓ, N(ℓ; μ, σ²) or Φ((ℓ + ½ − μ) / σ) − Φ((ℓ − ½ − μ) / σ), the label is
    max(α p + β, 0), with α and β such that α p + β has sum 1 and mean μ. With A = Σ p, B = Σ ℓ p,
    and c = (L + 1) / 2: α = (μ − c) / (B − c A), β = (1 − α A) / L. Where σ < 0.2, or where the
    label's Σ ℓ p is more than 0.1 away from μ, it is that of `two_level_labels`.

    Parameters
    ----------
    mean, std
        In units of levels, see `rescale`; shape (N,).
    n_levels
        L ≥ 1.
    mass
        *pdf*, as for KonIQ and KADID, or *cdf*, as for SPAQ.

    Notes
    -----
    Cutting off at 0 leaves more than a sum of 1, and the check of Σ ℓ p does not divide by it: a
    label that passes it may have a mean that is off by 0.3, and one that does not may be the mirror
    image of one that does. In the middle of the scale every α gives mean c, and the published code
    makes the label uniform; here α is 1 / A, which cuts off nothing.

    References
    ----------
    You et al.: Teaching large language models to regress accurate image quality scores using score
    distribution. CVPR 2025 (of the authors' code).

    Examples
    --------
    >>> mean, std = np.array([4.522821594986413]), np.array([0.692276759337908])
    >>> label = deqa_labels(mean, std, n_levels=5).probs
    >>> label.round(4).tolist(), label.sum().round(4).tolist()
    ([[0.0, 0.0, 0.0448, 0.4785, 0.5025]], 1.0259)
    """
    mu, sigma = (np.asarray(x, np.float64)[:, None] for x in (mean, std))
    level = np.arange(1, n_levels + 1)
    wide = np.maximum(sigma, LEAST_STD)
    if mass == "pdf":
        raw = np.exp(-0.5 * ((level - mu) / wide) ** 2) / (wide * np.sqrt(2 * np.pi))
    else:
        raw = ndtr((level + 0.5 - mu) / wide) - ndtr((level - 0.5 - mu) / wide)
    total, middle = raw.sum(axis=1, keepdims=True), (n_levels + 1) / 2
    moment = (raw * (level - middle)).sum(axis=1, keepdims=True)
    is_middle = np.abs(mu - middle) < MIDDLE
    alpha = np.where(is_middle, 1 / total, (mu - middle) / np.where(is_middle, 1.0, moment))
    adjusted = np.maximum(alpha * raw + (1 - alpha * total) / n_levels, 0.0)
    shift = np.abs((adjusted * level).sum(axis=1) - mu[:, 0])
    # Written so that NaN fails too.
    is_lost = (sigma[:, 0] < LEAST_STD) | ~(shift <= MOST_SHIFT)
    two = two_level_labels(mu[:, 0], n_levels=n_levels)
    return LevelLabels(np.where(is_lost[:, None], two, adjusted), is_lost)


def maxent_labels(mean: np.ndarray, std: np.ndarray, *, n_levels: int) -> LevelLabels:
    """Return the laws of maximum entropy with these means and spreads, exactly.

    p_ℓ ∝ exp(a ℓ + b ℓ²). A law on levels 1 … L with mean μ has a variance of at least
    (⌈μ⌉ − μ)(μ − ⌊μ⌋), that of two neighbouring levels, and of at most (μ − 1)(L − μ), that of the
    two ends; one that lies beyond is taken to be the nearest of these.

    Parameters
    ----------
    mean, std
        In units of levels, see `rescale`; shape (N,).
    n_levels
        L ≥ 1.

    Raises
    ------
    ArithmeticError
        If no law was found, which would be a fault of this function.

    Notes
    -----
    Newton's method on the dual log Σ exp(a x + b (x² − v)), x = ℓ − μ, which is convex, from the
    uniform law, with steps halved until the dual decreases; O(L) an item and step. Nearer to a
    bound of the variance the exponents grow without limit, so what is within 1e-9 (L − 1)² of one
    is the law at the bound.

    References
    ----------
    Jaynes: Information theory and statistical mechanics. Physical Review 106, 1957, section 2.
    Saupe et al.: Maximum entropy and quantized metric models for absolute category ratings.
    arXiv:2410.00817, 2024.

    Examples
    --------
    >>> labels = maxent_labels(np.array([4.522821594986413]), np.array([0.692276759]), n_levels=5)
    >>> labels.probs.round(6).tolist()
    [[0.000941, 0.011212, 0.075598, 0.288579, 0.623669]]
    """
    mu, variance = np.asarray(mean, np.float64), np.asarray(std, np.float64) ** 2
    length = max(n_levels - 1, 1)
    low = (np.floor(mu) + 1 - mu) * (mu - np.floor(mu))
    high = (mu - 1) * (n_levels - mu)
    near = NEAR_EDGE * length**2
    is_low, is_high = variance <= low + near, variance >= high - near
    probs = two_level_labels(mu, n_levels=n_levels)
    at_ends = ~is_low & is_high
    probs[at_ends] = 0.0
    probs[at_ends, -1] = (mu[at_ends] - 1) / length
    probs[at_ends, 0] = 1 - probs[at_ends, -1]
    inner = np.flatnonzero(~is_low & ~is_high)
    x = (np.arange(1, n_levels + 1) - mu[inner, None]) / length
    probs[inner] = _newton(x, variance[inner] / length**2)
    return LevelLabels(probs, (variance < low - near) | (variance > high + near))


def _newton(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return laws ∝ exp(a x + b x²) with mean 0 and these variances, strictly between bounds."""
    y = x**2 - variance[:, None]
    theta, probs = np.zeros((len(x), 2)), np.full(x.shape, 1 / x.shape[1])
    active = np.arange(len(x))
    for _ in range(MOST_STEPS):
        p, u, v = probs[active], x[active], y[active]
        slope = np.stack([(p * u).sum(axis=1), (p * v).sum(axis=1)], axis=1)
        is_left = np.abs(slope).max(axis=1, initial=0.0) > MOMENT_ERROR
        active, p, u, v, slope = (part[is_left] for part in (active, p, u, v, slope))
        if not len(active):
            return probs
        du, dv = u - slope[:, :1], v - slope[:, 1:]
        # The covariance of (x, x²); its determinant from the residual of x², where less cancels.
        uu, uv = (p * du**2).sum(axis=1), (p * du * dv).sum(axis=1)
        beta = uv / uu
        rest = (p * (dv - beta[:, None] * du) ** 2).sum(axis=1)
        step_b = (slope[:, 1] - beta * slope[:, 0]) / rest
        step = np.stack([slope[:, 0] / uu - beta * step_b, step_b], axis=1)
        theta[active], probs[active] = _shorten(theta[active], step, slope, u, v)
    raise ArithmeticError(
        f"maxent_labels: {len(active)} laws were not found in {MOST_STEPS} steps, the first of "
        f"variance {variance[active[0]]:g} in squares of the scale's length"
    )


def _shorten(
    theta: np.ndarray, step: np.ndarray, slope: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each row is after its step, halved until the dual decreases, and its law."""
    before, promised = _dual(theta, x, y), (step * slope).sum(axis=1)
    size, left = np.ones(len(theta)), np.ones(len(theta), bool)
    for _ in range(60):
        after = _dual(theta - size[:, None] * step, x, y)
        # At the end, a decrease is less than the rounding of the dual.
        left = ~(after <= before - 1e-4 * size * promised + 1e-15 * (1 + np.abs(before)))
        if not left.any():
            break
        size = np.where(left, size / 2, size)
    theta = theta - size[:, None] * step
    return theta, np.asarray(softmax(theta[:, :1] * x + theta[:, 1:] * y, axis=1))


def _dual(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = theta[:, :1] * x + theta[:, 1:] * y
    top = z.max(axis=1)
    return np.asarray(top + np.log(np.exp(z - top[:, None]).sum(axis=1)))


METHODS: dict[str, Callable[[Moments, int], LevelLabels]] = {
    "maxent": lambda there, n: maxent_labels(there.mean, there.std, n_levels=n),
    "deqa": lambda there, n: deqa_labels(there.mean, there.std, n_levels=n),
    "deqa_cdf": lambda there, n: deqa_labels(there.mean, there.std, n_levels=n, mass="cdf"),
    "two_level": lambda there, n: LevelLabels(
        two_level_labels(there.mean, n_levels=n), np.ones(len(there.mean), bool)
    ),
}


def level_moments(probs: np.ndarray, *, low: float, high: float) -> Moments:
    """Return mean and spread of predictions over levels, on the scale of the ratings.

    Parameters
    ----------
    probs
        Of levels 1 … L, shape (N, L); rows sum to one.
    low, high
        Ratings that levels 1 and L stand for; with one level, it stands for `low`.

    Examples
    --------
    >>> said = level_moments(np.array([[0.0, 0.0, 0.5, 0.5, 0.0]]), low=0, high=100)
    >>> said.mean.tolist(), said.std.tolist()
    ([62.5], [12.5])
    """
    p = np.asarray(probs, np.float64)
    values = np.linspace(low, high, p.shape[1])
    mean = (p * values).sum(axis=1)
    return Moments(mean, np.sqrt((p * (values - mean[:, None]) ** 2).sum(axis=1)))


def preferred(
    mean: np.ndarray, std: np.ndarray, other_mean: np.ndarray, other_std: np.ndarray
) -> np.ndarray:
    """Return how probably one item is rated higher than another of the same scale.

    g = Φ((μ_A − μ_B) / √(σ_A² + σ_B²)); without any spread 0, ½ or 1.

    Parameters
    ----------
    mean, std, other_mean, other_std
        Of pairs of items, in any units, the same for all four; shape (N,).

    References
    ----------
    Thurstone: A law of comparative judgment. Psychological Review 34, 1927, case III.

    Examples
    --------
    >>> pair = [np.array([x]) for x in (3.8, 0.5, 3.0, 0.6)]
    >>> preferred(*pair).round(6).tolist()
    [0.847152]
    """
    gap = np.asarray(mean, np.float64) - other_mean
    spread = np.hypot(std, other_std)
    is_spread = spread > 0
    sure = np.where(gap == 0, 0.0, np.copysign(np.inf, gap))
    return np.asarray(ndtr(np.where(is_spread, gap / np.where(is_spread, spread, 1.0), sure)))


def fidelity_loss(
    score: np.ndarray, other_score: np.ndarray, target: np.ndarray, *, variance: float = 2.0
) -> Fidelity:
    """Return the fidelity loss of predicted scores of pairs, and its slope.

    1 − √(h g + e) − √((1 − h)(1 − g) + e), with h = Φ((s_A − s_B) / √variance) and e = 1e-8.

    Parameters
    ----------
    score, other_score
        s_A and s_B, predicted means in units of levels, shape (N,).
    target
        g, in [0, 1], of `preferred`; both items of one data set, since scales differ. Shape (N,).
    variance
        Of the difference; 2 as published, of two spreads of 1.

    Raises
    ------
    ValueError
        If a target is not in [0, 1], or the variance is not positive.

    Notes
    -----
    With e = 0 the slope is infinite where h is 0 and g is not, and training fails. The slope by
    the logit of level ℓ is that by the score times p_ℓ (ℓ − s).

    References
    ----------
    Tsai et al.: FRank: a ranking method with fidelity loss. SIGIR 2007.
    You et al.: Teaching large language models to regress accurate image quality scores using score
    distribution. CVPR 2025 (of the authors' code).

    Examples
    --------
    >>> found = fidelity_loss(np.array([4.0]), np.array([3.0]), np.array([0.847152]))
    >>> found.loss.round(6).tolist(), found.slope.round(4).tolist()
    ([0.006045], [-0.0282])
    """
    g = np.asarray(target, np.float64)
    if not ((g >= 0) & (g <= 1)).all() or not 0 < variance < np.inf:
        raise ValueError(
            "fidelity_loss: targets in [0, 1] and a positive variance were expected, got "
            f"{g.min(initial=0):g} … {g.max(initial=0):g} and {variance:g}"
        )
    t = (np.asarray(score, np.float64) - other_score) / np.sqrt(variance)
    # 1 − h as Φ(−t): of sure pairs, h would be rounded to one.
    win, lose = (np.sqrt(a * b + FIDELITY_EPS) for a, b in ((ndtr(t), g), (ndtr(-t), 1 - g)))
    density = np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi * variance)
    return Fidelity(1 - win - lose, density * ((1 - g) / lose - g / win) / 2)
