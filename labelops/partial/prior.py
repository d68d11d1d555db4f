"""The class prior: how many unlabelled items are positive, when some positives are labelled.

Every estimate rests on one assumption: that the labelled positives are a random draw of all. And on
one more for a lower end: that somewhere, as a classifier sees it, there are positives only
("irreducible"). Without it the share is known from above alone.

Estimates take counts with labelled and unlabelled items; `estimate_prior` any.
"""

# B bins, U unlabelled, P labelled

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d
from scipy.special import betaincinv, expit

from labelops.partial.scores import LOGITS, PER_LOGIT, ScoreCounts

DELTA, GAMMA = 0.1, 0.01
"""Of the best bin, and of Scott's bound."""

WIDTH_UNLABELLED, WIDTH_LABELLED = 0.05, 0.1
"""Standard deviation of the kernels, in standard deviations of the logits."""

MOST_RATIO, POINTS, TOLERANCE, STEP, MOST_ERROR = 50.0, 2000, 1e-5, 1e-3, 0.05

SHARE = 0.2
"""Such parts of the labelled items, the first and the next by score, are compared."""

LEAST_LABELLED = 20
"""Below, resampling says nothing of scores that few labelled items have."""

TAIL = 0.025


class PriorEstimate(NamedTuple):
    """Share of positives among the unlabelled items, in [0, 1]; NaN where one kind is not there.

    Attributes
    ----------
    value : the estimate.
    low, high : 95 % interval, for chance and for negatives that look like the surest positives.
    is_irreducible : whether scores are highest where there are positives only, as far as can be
        seen: from the first to the second fifth of the labelled items, the ratio of unlabelled to
        labelled ones does not rise beyond chance. Where it does, the share is known from above.
    method : which estimate it is.
    """

    value: float
    low: float
    high: float
    is_irreducible: bool
    method: str

    def of_all(self, counts: ScoreCounts) -> float:
        """Return the share of positives among all items, labelled ones included.

        Where the labelled items are a part of the data set (one sample), not a second one.
        """
        n_labelled, n_unlabelled = counts.n_labelled, counts.n_unlabelled
        if not n_unlabelled:
            return 1.0 if n_labelled else float("nan")
        return (n_labelled + self.value * n_unlabelled) / (n_labelled + n_unlabelled)


def _tails(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return how many have at least the score of each bin, up to the last with a labelled item."""
    p, u = (np.cumsum(part[::-1])[::-1] for part in counts)
    return p[p > 0], u[p > 0]


def best_bin(counts: ScoreCounts) -> float:
    """Return the share by best bin estimation: q_u(c) / q_p(c) at the c of the least upper bound.

    q(c) is the share of items with a score of at least c; the bound is that of Dvoretzky, Kiefer,
    Wolfowitz: q_u / q_p + (1 + γ) ε / q_p with ε = √(log(4/δ) / 2 n_u) + √(log(4/δ) / 2 n_p).

    References
    ----------
    Garg, Wu, Smola, Balakrishnan, Lipton: Mixture proportion estimation and PU learning: a modern
    approach. NeurIPS 2021, algorithm 1.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> scores, is_labelled = np.repeat([0.9, 0.9, 0.1], [500, 300, 700]), np.arange(1500) < 500
    >>> round(best_bin(count_scores(scores, is_labelled)), 3)
    0.3
    """
    return _ratio_from(counts, _best_place(counts))


def _best_place(counts: ScoreCounts) -> int:
    """Return from which bin on the bound is least."""
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    p, u = _tails(counts)
    slack = np.sqrt(np.log(4 / DELTA) / 2 / n_u) + np.sqrt(np.log(4 / DELTA) / 2 / n_p)
    return int(np.argmin((u / n_u + (1 + GAMMA) * slack) / (p / n_p)))


def _ratio_from(counts: ScoreCounts, place: int) -> float:
    p, u = (int(part[place:].sum()) for part in counts)
    return min(u / counts.n_unlabelled / p * counts.n_labelled, 1.0) if p else 1.0


def scott(counts: ScoreCounts) -> float:
    """Return the least ratio of an upper bound of q_u to a lower bound of q_p.

    Both bounds are Clopper and Pearson's, each missed with probability δ.

    References
    ----------
    Scott: A rate of convergence for mixture proportion estimation. AISTATS 2015. The bounds are
    those of the code of Garg et al. 2021.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> scores, is_labelled = np.repeat([0.9, 0.9, 0.1], [500, 300, 700]), np.arange(1500) < 500
    >>> round(scott(count_scores(scores, is_labelled)), 3)
    0.321
    """
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    p, u = _tails(counts)
    high = np.where(u < n_u, betaincinv(u + 1.0, np.maximum(n_u - u, 1), 1 - DELTA), 1.0)
    low = betaincinv(p, n_p - p + 1.0, DELTA)
    return float(min(np.min(high / low), 1.0))


def elkan_noto(counts: ScoreCounts) -> float:
    """Return the share by the mean score of the labelled items, c = P(labelled | positive).

    Of one sample: P(labelled) / c are positive in all. Scores must be calibrated.

    References
    ----------
    Elkan, Noto: Learning classifiers from only positive and unlabeled data. KDD 2008, e₁.
    """
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    c = float(counts.labelled @ expit(LOGITS)) / n_p
    return float(np.clip((n_p / c - n_p) / n_u, 0.0, 1.0))


def ratio_of_means(counts: ScoreCounts) -> float:
    """Return the mean score of the unlabelled items over that of the labelled (CM-EN)."""
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    means = (float(part @ expit(LOGITS)) / n for part, n in zip(counts, (n_p, n_u), strict=True))
    of_labelled, of_unlabelled = means
    return min(of_unlabelled / of_labelled, 1.0)


def density_ratios(counts: ScoreCounts) -> np.ndarray:
    """Return f_p / f_u at 2 000 even quantiles of the unlabelled items, descending.

    Densities of the logits by Gaussian kernels; the ratio is made to rise with the score above the
    middle of both means, and smoothed by rolling medians, as DEDPUL does.
    """
    score = expit(LOGITS)
    parts = []
    for part, width in zip(counts, (WIDTH_LABELLED, WIDTH_UNLABELLED), strict=True):
        share = part / max(part.sum(), 1)
        mean = float(share @ LOGITS)
        deviation = np.sqrt(float(share @ np.square(LOGITS - mean)))
        sigma = max(width * deviation * PER_LOGIT, 0.5)
        parts.append(gaussian_filter1d(share, sigma, mode="constant"))
    ratio = np.minimum(parts[0] / np.maximum(parts[1], 1e-12), MOST_RATIO)
    wanted = (np.arange(POINTS) + 0.5) / POINTS * counts.n_unlabelled
    # From the highest score down.
    at = np.searchsorted(np.cumsum(counts.unlabelled), wanted)[::-1]
    values = _rolling_median(ratio[at], 5)
    middle = sum(float(part @ score) / max(part.sum(), 1) for part in counts) / 2
    above = score[at] >= middle
    values[above] = np.maximum.accumulate(values[above][::-1])[::-1]
    return np.sort(_rolling_median(values, POINTS // 20))[::-1]


def _rolling_median(values: np.ndarray, half: int) -> np.ndarray:
    """Return medians of 2 · half + 1 values, of fewer at the ends, as many on both sides."""
    n = len(values)
    out = np.empty(n)
    out[half : n - half] = np.median(sliding_window_view(values, 2 * half + 1), axis=1)
    for i in range(half):
        out[i] = np.median(values[: 2 * i + 1])
        out[n - 1 - i] = np.median(values[n - 1 - 2 * i :])
    return out


def dedpul(counts: ScoreCounts) -> float:
    """Return the share by the ratio of densities (DEDPUL).

    The share α_n of negatives is a fixed point of mean max(0, 1 − r (1 − α_n)), found from 0; where
    that does not end below 1, the largest bend of the error on a grid.

    Notes
    -----
    On counts, at 2 000 quantiles of the unlabelled items: of the order of 10⁶ operations, however
    many items there are.

    References
    ----------
    Ivanov: DEDPUL: difference-of-estimated-densities-based positive-unlabeled learning. ICMLA 2020.
    """
    ratio = density_ratios(counts)

    def negative(share: float) -> float:
        return float(np.maximum(0.0, 1 - ratio * (1 - share)).mean())

    fixed = 0.0
    for _ in range(1000):
        found = negative(fixed)
        is_over = ratio[0] * (1 - fixed) < 1
        if abs(found - fixed) < TOLERANCE or is_over:
            break
        fixed = found
    grid = np.arange(0, 1, STEP)
    error = np.array([negative(share) for share in grid]) - grid
    usable = np.flatnonzero(error[1:-1] < MOST_ERROR)
    if not len(usable):
        return 1 - fixed
    bend = float(grid[1:-1][usable[np.argmax(np.diff(error, 2)[usable])]])
    if bend >= fixed or ((error < 0).sum() > 1 and fixed < 1 - STEP):
        return 1 - fixed
    return 1 - bend


METHODS: Mapping[str, Callable[[ScoreCounts], float]] = {
    "best-bin": best_bin,
    "dedpul": dedpul,
    "scott": scott,
    "elkan-noto": elkan_noto,
    "ratio-of-means": ratio_of_means,
}
"""Estimates by name."""


def first_ratios(counts: ScoreCounts) -> tuple[float, float]:
    """Return the ratio of unlabelled to labelled shares in the first and the next part by score.

    The second is infinite where ties fill both parts, so that nothing can be compared.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> scores = np.repeat([0.9, 0.6, 0.9, 0.6], [20, 80, 10, 90])
    >>> counts = count_scores(scores, np.arange(200) < 100)
    >>> [round(ratio, 2) for ratio in first_ratios(counts)]
    [0.5, 1.13]
    """
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    p, u = (np.cumsum(part[::-1]) for part in counts)
    ends = [int(np.searchsorted(p, n_p * SHARE * part)) for part in (1, 2)]
    ratios, before = list[float](), (0, 0)
    for end in ends:
        in_labelled, in_unlabelled = p[end] - before[0], u[end] - before[1]
        ratios.append(in_unlabelled / n_u / in_labelled * n_p if in_labelled else np.inf)
        before = p[end], u[end]
    return float(ratios[0]), float(ratios[1])


def estimate_prior(
    counts: ScoreCounts, *, method: str = "dedpul", n_resamples: int = 200, seed: int = 0
) -> PriorEstimate:
    """Estimate the share of positives among the unlabelled items, with an interval.

    Parameters
    ----------
    counts
        Of out-of-sample scores: who has seen an item's label separates it from the others.
    method
        One of `METHODS`.
    n_resamples, seed
        Of the bootstrap: labelled and unlabelled items are drawn anew, with replacement.

    Notes
    -----
    The upper end is the bootstrap's of `best_bin`, which no negatives make too low; by how much the
    best of many ratios is too low by luck is seen where what is chosen on resampled items is asked
    of all, and made good. The lower end supposes that negatives among the first fifth by score,
    beside each labelled item, are at most half as many as among the second: with ratios ρ₁ and ρ₂
    the share is then at least ρ₁ − max(0, ρ₂ − ρ₁), less chance. `benchmarks/prior.py` says how
    often that holds. With fewer than 20 labelled items nothing is said of the ends.

    References
    ----------
    Efron, Tibshirani: An introduction to the bootstrap. 1993 (percentile intervals).

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> high = [np.linspace(0.6, 0.9, n) for n in (500, 300)]
    >>> scores, is_labelled = np.concatenate([*high, np.full(700, 0.1)]), np.arange(1500) < 500
    >>> found = estimate_prior(count_scores(scores, is_labelled), method="best-bin")
    >>> round(found.value, 2), found.low < 0.3 < found.high, found.is_irreducible
    (0.3, True, True)
    """
    rng, n_p, n_u = np.random.default_rng(seed), counts.n_labelled, counts.n_unlabelled
    value = METHODS[method](counts) if n_p and n_u else float("nan")
    if n_p < LEAST_LABELLED or not n_u:
        return PriorEstimate(value, 0.0, 1.0, False, method)
    lows, highs, rises, luck = [], [], [], []
    for _ in range(n_resamples):
        drawn = ScoreCounts(
            rng.multinomial(n_p, counts.labelled / n_p),
            rng.multinomial(n_u, counts.unlabelled / n_u),
        )
        first, second = first_ratios(drawn)
        lows.append(first - max(0.0, second - first))
        chosen = _best_place(drawn)
        highs.append(_ratio_from(drawn, chosen))
        luck.append(_ratio_from(counts, chosen) - highs[-1])
        rises.append(second - first)
    # What was drawn is too low by luck once more than the counts it was drawn from.
    high = float(np.quantile(highs, 1 - TAIL)) + 2 * max(float(np.mean(luck)), 0.0)
    low, rise = (float(np.quantile(values, TAIL, method="lower")) for values in (lows, rises))
    return PriorEstimate(
        value,
        float(np.clip(low, 0.0, value)),
        float(np.clip(high, value, 1.0)),
        rise <= 0,
        method,
    )
