"""Regression on totals: a smooth model of single items, learned from the counts of their bags.

Few large bags say little, and what they say fits many models; a network that follows them follows
their noise. Here the log-odds of an item are linear in its features and in random Fourier features
of them (a Gaussian process with a linear and a smooth part), with a Gaussian prior on all
coefficients; how strong the prior is, and how wide the kernel is, is what makes the counts most
probable on average over the prior (evidence). So all bags count, none has to be held out, and there
is nothing to tune. Once a model is found, features are scaled by how steep it is along them
(automatic relevance determination) and it is fitted again, if that makes the counts more probable:
idle features are then out of the way.
"""

# N items, B bags, D features, W frequencies, C = D + 2 W + 1 coefficients

from typing import NamedTuple

import numpy as np

from labelops.nn.bag_evidence import BagCounts, Optimum
from labelops.nn.bag_fourier import Basis, FourierFeatures, draw_fourier, mean_slopes
from labelops.nn.bags import rows_of_bags

WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the kernel that are tried, in root mean squared distances of two items."""

STEP = 3.0
"""Prior variances are tried in steps of this factor."""

SMALLEST, LARGEST = 0.1, 300.0
"""Bounds of the prior variances: log-odds that all but agree, and any."""

ENOUGH = 0.1
"""Evidence, in nats, by which another prior must be better to be taken."""

FIRST_PRIOR = (1.0, 1.0)
"""The first to be tried: strong, so that there is one maximum and little way to it."""

COARSE_ITEMS = 20_000
"""Where there are more than twice as many items, it is begun with bags of about so many."""

LOOK_GAIN = 5.0
"""Evidence, in nats, by which scaled features must be better, beside `FITTED_GAIN` a feature."""

FITTED_GAIN = 0.5
"""What a fitted number that means nothing gains on average; relevance has one a feature."""

RELEVANCE_ITEMS = 8192

LEAST_RELEVANCE = 0.1
"""Share of the squared relevance that all features have alike."""


class BagModel(NamedTuple):
    """Log-odds of an item, as learned from counts of bags.

    Attributes
    ----------
    fourier : the basis.
    weight : of the basis, float64, shape (D + 2 W,).
    bias : log-odds of the mean item.
    width : width of the kernel that was chosen, in root mean squared distances.
    prior : variances that were chosen of linear and of smooth log-odds, per unit of variance.
    log_evidence : of the counts under that prior (Laplace's approximation).
    left : nats that another step would have gained: next to none, or it has not converged.
    """

    fourier: FourierFeatures
    weight: np.ndarray
    bias: float
    width: float
    prior: tuple[float, float]
    log_evidence: float
    left: float


def fit_bag_model(
    features: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    *,
    n_fourier: int = 300,
    seed: int,
) -> BagModel:
    """Learn a model of single items from the counts of positives in bags.

    Parameters
    ----------
    features
        Comparable in scale (standardised), ordered by bag, finite, shape (N, D).
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,); no bag is empty.
    positives
        0 ≤ k ≤ n, shape (B,).
    n_fourier
        W; 0 for a linear model.
    seed
        For the Fourier features.

    Raises
    ------
    ValueError
        If arrays do not fit together, a bag is empty, or a count is not one of its bag.

    Notes
    -----
    Newton's steps on the saddle-point likelihood of the counts, for some 30 to 90 priors, each
    begun at the optimum of the one before: some three steps of O(N C + B C² + C³) and two of
    O(N C²), see `labelops.nn.bag_evidence`. Memory: the basis of 50 000 items at most, beside the
    features. One thread, so the answer does not depend on how many cores there are. Where all bags
    have one share (`share_spread`), the answer is that share for every item.

    References
    ----------
    Radhakrishnan, Beaglehole, Pandit, Belkin: Mechanism for feature learning in neural networks and
    backpropagation-free machine learning models. Science 383, 2024 (relevance, here of single
    features).
    Rasmussen, Williams: Gaussian processes for machine learning. 2006, sections 3.4 and 5.4.
    Law, Sutherland, Sejdinovic, Flaxman: Bayesian approaches to distribution regression. AISTATS
    2018.

    Examples
    --------
    >>> x = np.array([[-1.0], [-1.0], [-1.0], [1.0], [1.0], [1.0]] * 40)
    >>> model = fit_bag_model(x, np.arange(0, 241, 3), np.array([0, 3] * 40), n_fourier=8, seed=0)
    >>> bool(bag_log_odds(model, np.array([[1.0]]))[0] > 2)
    True
    """
    x = np.ascontiguousarray(features, np.float32)
    begin, k = _checked(x, start, positives)
    model = _best_width(x, begin, k, np.ones(x.shape[1]), n_fourier=n_fourier, seed=seed)
    # Fewer bags than features cannot tell how much each of these matters.
    if n_fourier and len(k) > x.shape[1]:
        relevance = _relevance(model, x[:RELEVANCE_ITEMS])
        again = _best_width(x, begin, k, relevance, n_fourier=n_fourier, seed=seed)
        if again.log_evidence > model.log_evidence + LOOK_GAIN + FITTED_GAIN * x.shape[1]:
            model = again
    return model


def _best_width(
    x: np.ndarray,
    start: np.ndarray,
    k: np.ndarray,
    relevance: np.ndarray,
    *,
    n_fourier: int,
    seed: int,
) -> BagModel:
    chosen: BagModel | None = None
    for width in WIDTHS if n_fourier else WIDTHS[:1]:
        fourier = draw_fourier(x, width=width, n_fourier=n_fourier, seed=seed, relevance=relevance)
        counts = BagCounts(Basis(fourier, x), start, k)
        near = FIRST_PRIOR if chosen is None else chosen.prior
        prior, optimum = _best_prior(counts, near, with_fourier=n_fourier > 0)
        if chosen is None or optimum.log_evidence > chosen.log_evidence:
            chosen = _model(fourier, width, prior, optimum)
    assert chosen is not None
    return chosen


def _best_prior(
    counts: BagCounts, near: tuple[float, float], *, with_fourier: bool
) -> tuple[tuple[float, float], Optimum]:
    """Climb the evidence in steps of a factor, one variance at a time."""
    here, optimum = near, counts.maximise(FIRST_PRIOR)
    if here != FIRST_PRIOR:
        optimum = counts.maximise(here, optimum)
    seen = {here}
    moves = [(STEP, 1.0), (1 / STEP, 1.0)]
    moves += [(1.0, STEP), (1.0, 1 / STEP)] if with_fourier else []
    is_moving = True
    while is_moving:
        is_moving = False
        for linear, smooth in moves:
            there = (round(here[0] * linear, 6), round(here[1] * smooth, 6))
            if there in seen or not all(SMALLEST <= v <= LARGEST for v in there):
                continue
            seen.add(there)
            wanted = optimum.log_evidence + ENOUGH
            other = counts.maximise(there, optimum, least_evidence=wanted)
            if other.log_evidence > wanted:
                here, optimum, is_moving = there, other, True
    return here, optimum


def _model(
    fourier: FourierFeatures, width: float, prior: tuple[float, float], optimum: Optimum
) -> BagModel:
    weight, bias = optimum.coefficients[:-1], float(optimum.coefficients[-1])
    return BagModel(fourier, weight, bias, width, prior, optimum.log_evidence, optimum.left)


def _relevance(model: BagModel, x: np.ndarray) -> np.ndarray:
    """Return how much log-odds follow each feature, with a relevance of 1 for all as its scale."""
    square = mean_slopes(model.fourier, model.weight, x) ** 2
    # A relevance of 1 for all would leave the summed variance as it is; so does this one.
    variance = x.var(axis=0, dtype=np.float64)
    square *= variance.sum() / max(float((square * variance).sum()), 1e-300)
    return np.asarray(np.sqrt((1 - LEAST_RELEVANCE) * square + LEAST_RELEVANCE))


def refit_bag_model(
    model: BagModel, features: np.ndarray, start: np.ndarray, positives: np.ndarray
) -> BagModel:
    """Learn the same model from other bags, such as all but those held out.

    The Fourier features and the prior that `fit_bag_model` chose are kept.
    """
    x = np.ascontiguousarray(features, np.float32)
    begin, k = _checked(x, start, positives)
    few = _few_bags(begin)
    first: Optimum | None = None
    if len(few) < len(k):
        items, cut = rows_of_bags(few, begin)
        first = BagCounts(Basis(model.fourier, x[items]), cut, k[few]).maximise(model.prior)
        first = first._replace(beyond=first.beyond * (len(x) / len(items)))
    optimum = BagCounts(Basis(model.fourier, x), begin, k).maximise(model.prior, first)
    return _model(model.fourier, model.width, model.prior, optimum)


def _few_bags(start: np.ndarray) -> np.ndarray:
    """Return bags of about `COARSE_ITEMS` items, spread evenly; or all, if that is no great part.

    Examples
    --------
    >>> _few_bags(np.arange(0, 100_001, 10_000)).tolist()
    [0, 5]
    """
    n_bags, n_items = len(start) - 1, int(start[-1])
    every = n_items // COARSE_ITEMS if n_items > 2 * COARSE_ITEMS else 1
    return np.arange(0, n_bags, every)


def bag_log_odds(model: BagModel, features: np.ndarray) -> np.ndarray:
    """Return the log-odds of items under a model, float64, shape (N,).

    Features are prepared as those it was fitted to.
    """
    x = np.asarray(features)
    return Basis(model.fourier, x).times(np.append(model.weight, model.bias))


def _checked(
    features: np.ndarray, start: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    begin, k = np.asarray(start, np.int64), np.asarray(positives, np.float64)
    sizes = np.diff(begin)
    if not len(sizes) or begin[0] != 0 or begin[-1] != len(features) or (sizes < 1).any():
        raise ValueError(
            f"fit_bag_model: bags must have one item or more and cover all {len(features)} in "
            f"order; got starts {begin[:3].tolist()} … {begin[-1:].tolist()}"
        )
    if k.shape != sizes.shape or ((k < 0) | (k > sizes) | (k != np.rint(k))).any():
        raise ValueError(
            f"fit_bag_model: {len(sizes)} counts between 0 and the size of the bag were expected, "
            f"got {k.shape} from {k.min(initial=0)} to {k.max(initial=0)}"
        )
    if not np.isfinite(features).all():
        raise ValueError("fit_bag_model: features must be finite. Were missing values filled in?")
    return begin, k
