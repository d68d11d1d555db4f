"""Regression on totals: a smooth model of single items, learned from the counts of their bags.

Few large bags say little, and what they say fits many models; a network that follows them follows
their noise. Here the log-odds of an item are linear in its features and in random waves of them (a
Gaussian process with a linear and a smooth part), with a Gaussian prior on all coefficients; how
strong the prior is, and how long the waves are, is what makes the counts most probable on average
over the prior (evidence). So all bags teach, none has to be held out, and there is nothing to tune.
Once a model is found, features are stretched by how steep it is along them and it is fitted again,
if that makes the counts more probable: idle features are then out of the way.
"""

# N items, B bags, D features, W waves, C = D + 2 W coefficients

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch

from labelops.nn.threads import one_thread
from labelops.proportions.likelihood import CountFit, count_fit

WIDTHS = (0.5, 1.0, 2.0)
"""Lengths of the waves tried, in root mean squared distances of two items."""

STEP = 3.0
"""Prior variances are tried in steps of this factor."""

SMALLEST, LARGEST = 0.1, 300.0
"""Bounds of the prior variances: log-odds that all but agree, and any."""

ENOUGH = 0.1
"""Evidence, in nats, by which another prior must be better to be taken."""

MAX_STEPS = 30

LOOK_GAIN = 5.0
"""Evidence, in nats, by which stretched features must be better, beside `FITTED_GAIN` a feature."""

FITTED_GAIN = 0.5
"""What a fitted number that means nothing gains on average; the stretch has one a feature."""

RELEVANCE_ITEMS = 8192

LEAST_STRETCH = 0.1
"""Share of the squared stretch that all features have alike."""


class Waves(NamedTuple):
    """What log-odds are linear in: features, and cosines and sines of random turns of them.

    Attributes
    ----------
    centre : mean of the items, float32, shape (D,).
    stretch : what centred features are multiplied by, float32, shape (D,).
    scale : root of the summed variance of the stretched features.
    turn : float32, shape (D, W).
    mean : mean of the waves, float32, shape (2 W,).
    """

    centre: np.ndarray
    stretch: np.ndarray
    scale: float
    turn: np.ndarray
    mean: np.ndarray


class BagModel(NamedTuple):
    """Log-odds of an item, as learned from counts of bags.

    Attributes
    ----------
    waves : the basis.
    weight : of the basis, float64, shape (C,).
    bias : log-odds of the mean item.
    width : length of the waves that was chosen, in root mean squared distances.
    prior : variances that were chosen of linear and of smooth log-odds, per unit of variance.
    log_evidence : of the counts under that prior (Laplace's approximation).
    """

    waves: Waves
    weight: np.ndarray
    bias: float
    width: float
    prior: tuple[float, float]
    log_evidence: float


class _Found(NamedTuple):
    weight: np.ndarray
    bias: float
    log_evidence: float


def new_waves(
    features: np.ndarray,
    *,
    width: float,
    n_waves: int,
    seed: int,
    stretch: np.ndarray | None = None,
) -> Waves:
    """Draw waves whose products approximate a Gaussian kernel, centred on the items.

    Parameters
    ----------
    features
        Comparable in scale (standardised), shape (N, D).
    width
        Length scale of the kernel, in root mean squared distances of two items.
    n_waves
        W.
    seed
        For the directions.
    stretch
        Of the features, shape (D,); 1 for all by default.

    References
    ----------
    Rahimi, Recht: Random features for large-scale kernel machines. NIPS 2007.
    """
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    stretch = np.ones(features.shape[1]) if stretch is None else stretch
    variance = features.var(axis=0, dtype=np.float64) * stretch**2
    scale = float(np.sqrt(max(variance.sum(), 1e-12)))
    rng = np.random.Generator(np.random.Philox(seed))
    turn = rng.standard_normal((features.shape[1], n_waves)) / (width * np.sqrt(2) * scale)
    single = turn.astype(np.float32), np.zeros(2 * n_waves, np.float32)
    raw = Waves(centre, stretch.astype(np.float32), scale, *single)
    mean = basis(raw, features)[:, features.shape[1] :].mean(axis=0, dtype=np.float64)
    return raw._replace(mean=mean.astype(np.float32))


def basis(waves: Waves, features: np.ndarray) -> np.ndarray:
    """Return what log-odds are linear in, float32, shape (N, C); of mean 0 over the items."""
    centred = (np.asarray(features, np.float32) - waves.centre) * waves.stretch
    with one_thread():
        angle = (torch.from_numpy(centred) @ torch.from_numpy(waves.turn)).numpy()
    norm = np.float32(1 / np.sqrt(max(waves.turn.shape[1], 1)))
    smooth = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * norm - waves.mean
    return np.concatenate([centred / np.float32(waves.scale), smooth], axis=1)


def fit_bag_model(
    features: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    *,
    n_waves: int = 300,
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
    n_waves
        W; 0 for a linear model.
    seed
        For the waves.

    Raises
    ------
    ValueError
        If arrays do not fit together, a bag is empty, or a count is not one of its bag.

    Notes
    -----
    Fisher scoring on the saddle-point likelihood of the counts, for some 30 to 90 priors: each
    takes some four passes of O(N C + B C² + C³). Memory: 4 C bytes an item. One thread, so the
    answer does not depend on how many cores there are. Where all bags have one share
    (`share_spread`), the answer is that share for every item.

    References
    ----------
    Radhakrishnan, Beaglehole, Pandit, Belkin: Mechanism for feature learning in neural networks and
    backpropagation-free machine learning models. Science 383, 2024 (the stretch, here of single
    features).
    Rasmussen, Williams: Gaussian processes for machine learning. 2006, sections 3.4 and 5.4.
    Law, Sutherland, Sejdinovic, Flaxman: Bayesian approaches to distribution regression. AISTATS
    2018.

    Examples
    --------
    >>> x = np.array([[-1.0], [-1.0], [-1.0], [1.0], [1.0], [1.0]] * 40)
    >>> model = fit_bag_model(x, np.arange(0, 241, 3), np.array([0, 3] * 40), n_waves=8, seed=0)
    >>> bool(bag_log_odds(model, np.array([[1.0]]))[0] > 2)
    True
    """
    x = np.ascontiguousarray(features, np.float32)
    begin, k = _checked(x, start, positives)
    with one_thread():
        model = _best_width(x, begin, k, np.ones(x.shape[1]), n_waves=n_waves, seed=seed)
        # Fewer bags than features cannot tell how much each of these matters.
        if n_waves and len(k) > x.shape[1]:
            stretch = _relevance(model, x[:RELEVANCE_ITEMS])
            again = _best_width(x, begin, k, stretch, n_waves=n_waves, seed=seed)
            by_chance = LOOK_GAIN + FITTED_GAIN * x.shape[1]
            if again.log_evidence > model.log_evidence + by_chance:
                model = again
    return model


def _best_width(
    x: np.ndarray,
    start: np.ndarray,
    k: np.ndarray,
    stretch: np.ndarray,
    *,
    n_waves: int,
    seed: int,
) -> BagModel:
    chosen: BagModel | None = None
    for width in WIDTHS if n_waves else WIDTHS[:1]:
        waves = new_waves(x, width=width, n_waves=n_waves, seed=seed, stretch=stretch)
        problem = _Problem(basis(waves, x), start, k, n_linear=x.shape[1])
        prior, found = _best_prior(problem, with_waves=n_waves > 0)
        if chosen is None or found.log_evidence > chosen.log_evidence:
            chosen = BagModel(waves, found.weight, found.bias, width, prior, found.log_evidence)
    assert chosen is not None
    return chosen


def _relevance(model: BagModel, x: np.ndarray) -> np.ndarray:
    """Return how much log-odds follow each feature: root mean squared slope, at one scale."""
    waves, n_features = model.waves, x.shape[1]
    n_waves = waves.turn.shape[1]
    linear, of_cos, of_sin = np.split(model.weight, [n_features, n_features + n_waves])
    with one_thread():
        angle = torch.from_numpy((x - waves.centre) * waves.stretch) @ torch.from_numpy(waves.turn)
        by_angle = torch.cos(angle) * torch.from_numpy(of_sin.astype(np.float32))
        by_angle -= torch.sin(angle) * torch.from_numpy(of_cos.astype(np.float32))
        smooth = (by_angle @ torch.from_numpy(waves.turn.T.copy())).numpy() / np.sqrt(n_waves)
    slope = (linear / waves.scale + smooth) * waves.stretch
    square = np.square(slope).mean(axis=0, dtype=np.float64)
    # A stretch of 1 for all would leave the summed variance as it is; so does this one.
    variance = x.var(axis=0, dtype=np.float64)
    square *= variance.sum() / max(float(square @ variance), 1e-300)
    return np.asarray(np.sqrt((1 - LEAST_STRETCH) * square + LEAST_STRETCH))


def refit_bag_model(
    model: BagModel, features: np.ndarray, start: np.ndarray, positives: np.ndarray
) -> BagModel:
    """Learn the same model with the same prior from other bags, such as all but those held out.

    Parameters
    ----------
    model
        From `fit_bag_model`: its waves and prior are kept.
    features, start, positives
        As there.
    """
    x = np.ascontiguousarray(features, np.float32)
    begin, k = _checked(x, start, positives)
    with one_thread():
        problem = _Problem(basis(model.waves, x), begin, k, n_linear=x.shape[1])
        found = problem.minimise(model.prior, None)
    return model._replace(weight=found.weight, bias=found.bias, log_evidence=found.log_evidence)


def bag_log_odds(model: BagModel, features: np.ndarray, *, rows: int = 16_384) -> np.ndarray:
    """Return the log-odds of items under a model, float64, shape (N,).

    Parameters
    ----------
    model
        From `fit_bag_model`.
    features
        Prepared as those it was fitted to, shape (N, D).
    rows
        Items worked on at a time.
    """
    parts = [np.zeros(0)]
    for a in range(0, len(features), rows):
        part = basis(model.waves, features[a : a + rows])
        parts.append((part * model.weight).sum(axis=1, dtype=np.float64) + model.bias)
    return np.concatenate(parts)


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


class _Problem:
    """The counts of bags, as a function of coefficients with a Gaussian prior."""

    def __init__(
        self, phi: np.ndarray, start: np.ndarray, positives: np.ndarray, *, n_linear: int
    ) -> None:
        self.phi, self.start, self.positives, self.n_linear = phi, start, positives, n_linear
        share = np.clip(positives.sum() / len(phi), 0.5 / len(phi), 1 - 0.5 / len(phi))
        self.bias = float(np.log(share / (1 - share)))

    def fit_at(self, weight: np.ndarray, bias: float) -> CountFit:
        log_odds = self._product(self.phi, weight) + bias
        return count_fit(log_odds, self.start, self.positives)

    def _product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        single = torch.from_numpy(np.ascontiguousarray(b, np.float32))
        return np.asarray((torch.from_numpy(a) @ single).numpy(), np.float64)

    def information(
        self, weight: np.ndarray, bias: float, fit: CountFit
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return JᵀJ for coefficients, coefficients × bias, and bias: expected information.

        J_b = Σ_i p_i (1 − p_i) φ_i / √V_b, the slope of a count's mean in units of its spread.
        """
        p = torch.sigmoid(torch.from_numpy(self._product(self.phi, weight) + bias)).numpy()
        root = np.sqrt(np.maximum(fit.variance, 1e-12))
        each = p * (1 - p) / np.repeat(root, np.diff(self.start))
        index = np.arange(len(p))
        rows = scipy.sparse.csr_matrix(
            (each.astype(np.float32), index, self.start), shape=(len(root), len(p))
        )
        j = torch.from_numpy(np.asarray(rows @ self.phi))
        of_bias = torch.from_numpy((fit.variance / root).astype(np.float32))
        both = (j.T @ j).double().numpy(), (j.T @ of_bias).double().numpy()
        return *both, float((of_bias.double() ** 2).sum())

    def minimise(self, prior: tuple[float, float], begin: _Found | None) -> _Found:
        """Return the most probable coefficients, and Laplace's evidence."""
        n_rest = self.phi.shape[1] - self.n_linear
        precision = 1 / np.repeat(prior, [self.n_linear, n_rest])
        weight = np.zeros(len(precision)) if begin is None else begin.weight
        bias = self.bias if begin is None else begin.bias
        fit = self.fit_at(weight, bias)
        value = fit.log_likelihood.sum() - 0.5 * weight**2 @ precision
        for _ in range(MAX_STEPS):
            jj, jb, bb = self.information(weight, bias, fit)
            slope = self._product(self.phi.T, fit.gradient) - precision * weight
            slope_bias = fit.gradient.sum()
            # The bias has no prior: it is solved for first, what is left is for the weights.
            inner = jj - np.outer(jb, jb) / max(bb, 1e-12) + np.diag(precision)
            step = _solve(inner, slope - jb * slope_bias / max(bb, 1e-12))
            step_bias = (slope_bias - jb @ step) / max(bb, 1e-12)
            size = 1.0
            while True:
                new_weight, new_bias = weight + size * step, bias + size * step_bias
                new = self.fit_at(new_weight, new_bias)
                new_value = new.log_likelihood.sum() - 0.5 * new_weight**2 @ precision
                if new_value >= value or size < 1e-3:
                    break
                size /= 2
            gained = new_value - value
            if gained <= 0:
                break
            weight, bias, fit, value = new_weight, new_bias, new, new_value
            if gained < 0.01:
                break
        jj, jb, bb = self.information(weight, bias, fit)
        inner = jj - np.outer(jb, jb) / max(bb, 1e-12) + np.diag(precision)
        # By torch, in one thread: NumPy's own would use, and its last bits depend on, every core.
        root = torch.linalg.cholesky(
            torch.from_numpy(inner / np.sqrt(np.outer(precision, precision)))
        )
        log_det = 2 * float(root.diagonal().log().sum())
        return _Found(weight, float(bias), float(value - 0.5 * log_det))


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    root = torch.linalg.cholesky(torch.from_numpy(matrix))
    return np.asarray(torch.cholesky_solve(torch.from_numpy(right)[:, None], root)[:, 0].numpy())


def _best_prior(problem: _Problem, *, with_waves: bool) -> tuple[tuple[float, float], _Found]:
    """Climb the evidence in steps of a factor, one variance at a time."""
    here = (3.0, 3.0)
    seen = {here: problem.minimise(here, None)}
    moves = [(STEP, 1.0), (1 / STEP, 1.0)]
    moves += [(1.0, STEP), (1.0, 1 / STEP)] if with_waves else []
    is_moving = True
    while is_moving:
        is_moving = False
        for linear, smooth in moves:
            there = (here[0] * linear, here[1] * smooth)
            if not all(SMALLEST <= v <= LARGEST for v in there):
                continue
            there = (round(there[0], 6), round(there[1], 6))
            if there not in seen:
                seen[there] = problem.minimise(there, seen[here])
            if seen[there].log_evidence > seen[here].log_evidence + ENOUGH:
                here, is_moving = there, True
    return here, seen[here]
