"""The counts of bags as a function of coefficients with a Gaussian prior: optimum and evidence.

The likelihood of a count is not concave: a bag whose count lies off what its items expect bends
both ways, in large bags more than it bends on average. Scoring by that average, the expected
information, crept and swung there for hundreds of steps. It is cheap though, a sum over bags; the
observed curvature is one over items, some ten times dearer. So every step takes the expected one
anew, and adds what the observed one had more when it was last taken: anew whenever steps gain less
than they promise, or leave too much.

The evidence is Laplace's approximation with the observed or the expected curvature, whichever says
that less is left open. The observed one depends on how the few counts came out: of 19 bags its
determinant says more of that than of the prior. The expected one is blind to the misfit by which
large bags of items that are all but certain tell most, and would let the prior go. Of six problems
either alone chose a prior that ordered unseen items far worse in one, the lesser of both in none.
"""

# N items, B bags, C coefficients, the last of them the bias

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from labelops.nn.bag_fourier import Basis
from labelops.nn.threads import one_thread
from labelops.proportions.likelihood import CountFit, count_curvature, count_fit

LEFT = 3e-4
"""It is done when no more than so many nats can be gained."""

MOST_STEPS = 100

BIAS_VARIANCE = 100.0
"""Of the bias about the log-odds of the share of all items: as good as any, but never endless."""

SLOW = 3.0
"""A step that leaves more than this part of what there was to gain calls for the observed curvature
of here."""

FAIR, SHORTEST = 0.25, 1e-3
"""A step is halved until it gains this share of what it promises, or is as short as that."""

LEVELS = 4
"""What the observed curvature has more is taken in so many parts: all, where that has a maximum."""


class Optimum(NamedTuple):
    """The most probable coefficients under a prior.

    Attributes
    ----------
    coefficients : float64, shape (C,); the last is the bias.
    log_evidence : of the counts under the prior, by Laplace's approximation there; at most that,
        if below what was asked for.
    left : nats that could still be gained, about; at most `LEFT`, or it has not converged.
    n_steps : taken.
    beyond : what the observed curvature has more than the expected, where it was last taken, shape
        (C, C), or 0.
    """

    coefficients: np.ndarray
    log_evidence: float
    left: float
    n_steps: int
    beyond: Tensor


class _Point(NamedTuple):
    coefficients: np.ndarray
    log_odds: np.ndarray
    fit: CountFit
    value: float


class _Model(NamedTuple):
    """The slope somewhere, and how it falls from there on."""

    slope: np.ndarray
    expected: Tensor
    beyond: Tensor


class BagCounts:
    """The counts of bags, given the basis of their items.

    Parameters
    ----------
    basis
        Of the items, ordered by bag.
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,); no bag is empty.
    positives
        0 ≤ k ≤ n, float64, shape (B,).
    """

    def __init__(self, basis: Basis, start: np.ndarray, positives: np.ndarray) -> None:
        self.basis, self.start, self.positives = basis, start, positives
        self.bag_of_item = np.repeat(np.arange(len(positives)), np.diff(start))
        n = len(self.bag_of_item)
        share = np.clip(positives.sum() / n, 0.5 / n, 1 - 0.5 / n)
        self.centre = np.zeros(basis.n_coefficients)
        self.centre[-1] = np.log(share / (1 - share))

    def precision(self, prior: tuple[float, float]) -> np.ndarray:
        """Return that of the prior of each coefficient, for variances of linear and smooth ones."""
        fourier = self.basis.fourier
        n = [len(fourier.centre), len(fourier.mean), 1]
        return 1 / np.repeat([*prior, BIAS_VARIANCE], n)

    def maximise(
        self,
        prior: tuple[float, float],
        begin: Optimum | None = None,
        *,
        least_evidence: float = -np.inf,
    ) -> Optimum:
        """Return the most probable coefficients, and how probable the counts are on average.

        Parameters
        ----------
        prior
            Variances of the coefficients of features and of Fourier features.
        begin
            Optimum under another prior or of other bags, to begin with; by default, the share of
            all bags for every item.
        least_evidence
            Where there is less, how much less need not be known.

        Notes
        -----
        A step costs two passes over the basis and O(B C² + C³), the observed curvature O(N C²).
        From a neighbouring prior it takes some three steps and one of the latter or none. Products
        are in single precision, sums of blocks in double; in one thread. There may be several
        maxima where bags are few and the prior is weak: this is one.
        """
        with one_thread():
            return self._climb(self.precision(prior), begin, least_evidence)

    def _climb(self, precision: np.ndarray, begin: Optimum | None, least: float) -> Optimum:
        at = self._point(self.centre if begin is None else begin.coefficients, precision)
        beyond = torch.zeros((), dtype=torch.float64) if begin is None else begin.beyond
        is_of_here, is_poor, level, before, n_steps = False, False, 0, np.inf, 0
        while True:
            model = self._model(at, precision, beyond)
            step, level, gain = _step(model, precision, level)
            if not is_of_here and (is_poor or gain > before / SLOW):
                model = model._replace(beyond=self._observed(at) - model.expected)
                is_of_here, beyond = True, model.beyond
                step, level, gain = _step(model, precision, 0)
            # With a curvature of elsewhere steps shrink by a factor; so would those to come.
            left = gain if is_of_here else gain / (1 - np.sqrt(gain / before)) ** 2
            if left <= LEFT or n_steps == MOST_STEPS:
                break
            new, size = self._shortened(at, step, gain, precision)
            n_steps += 1
            if new.value <= at.value and is_of_here and level == LEVELS:
                break
            is_poor = size < 1
            level = min(level + is_poor, LEVELS)
            if new.value > at.value:
                at, is_of_here, before = new, False, gain
        evidence = at.value - 0.5 * _log_det(model.expected, precision)
        if evidence >= least:
            observed = model.expected + beyond if is_of_here else self._observed(at)
            beyond = observed - model.expected
            evidence = min(evidence, at.value - 0.5 * _log_det(observed, precision))
        return Optimum(at.coefficients, evidence, left, n_steps, beyond)

    def _point(self, coefficients: np.ndarray, precision: np.ndarray) -> _Point:
        log_odds = self.basis.times(coefficients)
        fit = count_fit(log_odds, self.start, self.positives)
        cost = 0.5 * (precision * (coefficients - self.centre) ** 2).sum()
        return _Point(coefficients, log_odds, fit, float(fit.log_likelihood.sum() - cost))

    def _shortened(
        self, at: _Point, step: np.ndarray, promised: float, precision: np.ndarray
    ) -> tuple[_Point, float]:
        size = 1.0
        while True:
            new = self._point(at.coefficients + size * step, precision)
            if new.value - at.value >= FAIR * size * promised or size < SHORTEST:
                return new, size
            size /= 2

    def _model(self, at: _Point, precision: np.ndarray, beyond: Tensor) -> _Model:
        """Take the slope and the expected information, Σ_b J_b J_bᵀ, in one pass.

        J_b = Σ_i s_i φ_i / √(Σ_i s_i) over the items of a bag, s = p (1 − p).
        """
        p = 1 / (1 + np.exp(-np.clip(at.log_odds, -700, 700)))
        variance = p * (1 - p)
        of_bag = np.maximum(np.add.reduceat(variance, self.start[:-1]), 1e-300)
        mean = (variance / np.sqrt(of_bag)[self.bag_of_item])[None]
        slope, expected = self._pass(mean, None, at.fit.gradient, None)
        return _Model(slope - precision * (at.coefficients - self.centre), expected, beyond)

    def _observed(self, at: _Point) -> Tensor:
        curvature = count_curvature(at.log_odds, self.start, self.positives, at.fit.tilt)
        return self._pass(curvature.factors, curvature.mix, None, curvature.diagonal)[1]

    def _pass(
        self,
        factors: np.ndarray,
        mix: np.ndarray | None,
        gradient: np.ndarray | None,
        diagonal: np.ndarray | None,
    ) -> tuple[np.ndarray, Tensor]:
        """Return Σ_i g_i φ_i, and Σ_i diagonal_i φ_i φ_iᵀ + Σ_b Σ_kl mix_bkl S_bk S_blᵀ.

        S_bk = Σ_i factors_ki φ_i over the items of a bag; without `mix`, one factor, taken once.
        """
        n_coefficients = self.basis.n_coefficients
        slope = torch.zeros(n_coefficients, dtype=torch.float64)
        matrix = torch.zeros((n_coefficients, n_coefficients), dtype=torch.float64)
        # What a bag that goes on in the next block has so far.
        begun = torch.zeros((len(factors), n_coefficients))
        for rows, phi in self.basis.blocks():
            if gradient is not None:
                slope += phi.T @ _single(gradient[rows])
            if diagonal is not None:
                matrix += phi.T @ (phi * _single(diagonal[rows])[:, None])
            bags = self.bag_of_item[rows]
            sums = _sums(factors[:, rows], bags - bags[0], phi)
            sums[:, 0] += begun
            n_done, begun = sums.shape[1], torch.zeros_like(begun)
            if rows.stop < len(self.bag_of_item) and self.bag_of_item[rows.stop] == bags[-1]:
                n_done, begun = n_done - 1, sums[:, -1]
            done = sums[:, :n_done].transpose(0, 1)
            mixed = done if mix is None else _single(mix[bags[0] : bags[0] + n_done]) @ done
            matrix += done.reshape(-1, n_coefficients).T @ mixed.reshape(-1, n_coefficients)
        return slope.numpy(), (matrix + matrix.T) / 2


def _single(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _sums(factors: np.ndarray, bag_of_row: np.ndarray, phi: Tensor) -> Tensor:
    """Return sums over bags of items times each of some weights, shape (weights, bags, C)."""
    n, n_bags = len(bag_of_row), int(bag_of_row[-1]) + 1
    start = np.searchsorted(bag_of_row, np.arange(n_bags + 1))
    index, basis, single = np.arange(n), phi.numpy(), factors.astype(np.float32)
    parts = [scipy.sparse.csr_matrix((w, index, start), shape=(n_bags, n)) @ basis for w in single]
    return torch.from_numpy(np.stack(parts))


def _step(model: _Model, precision: np.ndarray, first: int) -> tuple[np.ndarray, int, float]:
    """Return a step uphill, the level that it took, and what it promises to gain.

    By the first level from which on the curvature is positive.
    """
    prior = torch.from_numpy(np.diag(precision))
    for level in range(first, LEVELS + 1):
        part = (1 - level / LEVELS) * model.beyond
        root, failed = torch.linalg.cholesky_ex(model.expected + part + prior)
        if not int(failed):
            break
    step = torch.cholesky_solve(torch.from_numpy(model.slope)[:, None], root)[:, 0].numpy()
    return step, level, float((model.slope * step).sum() / 2)


def _log_det(curvature: Tensor, precision: np.ndarray) -> float:
    """Return log det of the posterior's precision over the prior's; −∞ where it is none."""
    root, failed = torch.linalg.cholesky_ex(curvature + torch.from_numpy(np.diag(precision)))
    if int(failed):
        return -np.inf
    return 2 * float(root.diagonal().log().sum()) - float(np.log(precision).sum())
