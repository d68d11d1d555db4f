"""Losses of `labelops.partial.risks` as objectives of `labelops.nn.shallow.train_networks`.

One logit an item, of being positive. The weights of items are those of the NumPy definitions, for
every fold of the items outside it; a batch is taken for a sample of all items, so that a batch
without a labelled item is no special case.
"""

# N items, F folds, n items of a batch, M pairs

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from labelops.nn.shallow import Pairs, Say
from labelops.partial.prior import best_bin
from labelops.partial.risks import (
    NEGATIVE,
    POSITIVE,
    UNLABELLED,
    Margin,
    RiskWeights,
    Setting,
    check_states,
    cvir_weights,
    kept_unlabelled,
    population,
    risk_weights,
)
from labelops.partial.scores import count_scores

TINY = 1e-12


class _OfFolds:
    """States of the items, and which of them each fold's network is trained on."""

    def __init__(self, state: np.ndarray, fold: np.ndarray, n_folds: int) -> None:
        self.state = check_states(state)
        self.fold = np.asarray(fold)
        self.outside = self.fold[None, :] != np.arange(n_folds)[:, None]
        self.of_state = torch.from_numpy(self.state)

    def spread(self, weights: list[np.ndarray]) -> Tensor:
        """Return weights of the items outside each fold, times N; float32, shape (F, N)."""
        whole = np.zeros(self.outside.shape, np.float32)
        for row, outside, weight in zip(whole, self.outside, weights, strict=True):
            row[outside] = weight * len(self.state)
        return torch.from_numpy(whole)

    def is_kind(self, kind: int, rows: Tensor, outside: Tensor) -> Tensor:
        """Return which items of a batch are of a kind and trained on; float32, shape (F, n)."""
        return ((self.of_state[rows] == kind) & outside).to(torch.float32)

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Nothing changes."""


def _margin(logits: Tensor, margin: Margin) -> Tensor:
    return softplus(-logits) if margin == "logistic" else torch.sigmoid(-logits)


class Weighted(_OfFolds):
    """Σ_i a_i ℓ(z_i) + b_i ℓ(−z_i), weights of every fold (`labelops.partial.risks.RiskWeights`).

    Parameters
    ----------
    state, fold
        Of the items, shape (N,).
    n_folds
        F.
    margin
        ℓ.
    """

    def __init__(
        self, state: np.ndarray, fold: np.ndarray, *, n_folds: int, margin: Margin
    ) -> None:
        super().__init__(state, fold, n_folds)
        self.margin = margin

    def set_weights(self, weights: list[RiskWeights]) -> None:
        """Take the weights of each fold, of the items outside it."""
        self.as_positive = self.spread([of_fold.as_positive for of_fold in weights])
        self.as_negative = self.spread([of_fold.as_negative for of_fold in weights])

    def parts(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of both parts, item by item; shape (F, n) each."""
        z, n = logits[..., 0], max(len(rows), 1)
        positive = self.as_positive[:, rows] * _margin(z, self.margin)
        return positive / n, self.as_negative[:, rows] * _margin(-z, self.margin) / n

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `labelops.nn.shallow.Objective`."""
        positive, negative = self.parts(logits, rows)
        return positive.sum() + negative.sum()


class Unbiased(Weighted):
    """uPU; see `labelops.partial.risks.upu`."""

    def __init__(
        self,
        state: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        prior: float,
        setting: Setting = "one-sample",
        margin: Margin = "logistic",
    ) -> None:
        super().__init__(state, fold, n_folds=n_folds, margin=margin)
        self.set_weights(
            [
                risk_weights(self.state[outside], prior=prior, setting=setting)
                for outside in self.outside
            ]
        )


class NonNegative(Unbiased):
    """nnPU; see `labelops.partial.risks.nnpu`.

    Where a batch's risk of unlabelled negatives is below 0, a step is taken that raises it, and
    nothing else.
    """

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return what a step lowers; see `labelops.nn.shallow.Objective`."""
        positive, negative = self.parts(logits, rows)
        known = self.is_kind(NEGATIVE, rows, outside)
        hidden = (negative * (1 - known)).sum(dim=1)
        rest = positive.sum(dim=1) + (negative * known).sum(dim=1)
        return torch.where(hidden < 0, -hidden, rest + hidden).sum()


class Aligned(_OfFolds):
    """Dist-PU; see `labelops.partial.risks.dist_pu`. Means over unlabelled items are a batch's."""

    def __init__(
        self,
        state: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        prior: float,
        setting: Setting = "one-sample",
        entropy: float = 0.0,
    ) -> None:
        super().__init__(state, fold, n_folds)
        self.prior, self.entropy = prior, entropy
        found = [
            (part, population(part, prior=prior, setting=setting))
            for part in (self.state[outside] for outside in self.outside)
        ]
        self.missed = self.spread(
            [
                (part == POSITIVE)
                * (share.positive + share.unlabelled * prior)
                / max(int((part == POSITIVE).sum()), 1)
                for part, share in found
            ]
        )
        self.wrong = self.spread(
            [
                (part == NEGATIVE) * share.negative / max(int((part == NEGATIVE).sum()), 1)
                for part, share in found
            ]
        )
        self.unlabelled = torch.tensor([share.unlabelled for _, share in found])

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `labelops.nn.shallow.Objective`."""
        z, n = logits[..., 0], max(len(rows), 1)
        p, is_unlabelled = torch.sigmoid(z), self.is_kind(UNLABELLED, rows, outside)
        n_unlabelled = is_unlabelled.sum(dim=1)
        mean = (p * is_unlabelled).sum(dim=1) / n_unlabelled.clamp(min=1)
        off = (mean - self.prior).abs() * (n_unlabelled > 0)
        # H(p) = −log p + (1 − p) z, which is finite whatever z is.
        unsure = ((1 - p) * z - logsigmoid(z)) * is_unlabelled
        known = self.missed[:, rows] * (1 - p) + self.wrong[:, rows] * p
        return (
            known.sum() / n
            + (self.unlabelled * off).sum()
            + self.entropy * (unsure.sum(dim=1) / n_unlabelled.clamp(min=1)).sum()
        )


class Variational(_OfFolds):
    """VPU; see `labelops.partial.risks.vpu`. log E Φ is that of a batch."""

    def __init__(
        self,
        state: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        setting: Setting = "one-sample",
    ) -> None:
        super().__init__(state, fold, n_folds)
        self.setting = setting
        positives = [self.state[outside] == POSITIVE for outside in self.outside]
        self.positive = self.spread([is_one / max(int(is_one.sum()), 1) for is_one in positives])

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `labelops.nn.shallow.Objective`."""
        log_phi = logsigmoid(logits[..., 0])
        is_drawn = outside
        if self.setting == "case-control":
            is_drawn = outside & (self.of_state[rows] == UNLABELLED)
        nothing = float(np.log(TINY))
        drawn = log_phi.masked_fill(~is_drawn, nothing)
        # One more, for a batch that has none.
        total = torch.logsumexp(torch.nn.functional.pad(drawn, (0, 1), value=nothing), dim=1)
        total = total - is_drawn.sum(dim=1).clamp(min=1).log()
        return total.sum() - (self.positive[:, rows] * log_phi).sum() / max(len(rows), 1)


class TowardsPositives(_OfFolds):
    """The regulariser of VPU; see `labelops.partial.risks.vpu_between`.

    Every item of the population in a batch is paired with a labelled positive of the batch.

    Parameters
    ----------
    state, fold, n_folds, setting
        As of `Variational`.
    weight
        Of the regulariser.
    concentration
        a of γ ~ Beta(a, a).
    seed
        Of pairs and γ.
    """

    def __init__(
        self,
        state: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        setting: Setting = "one-sample",
        weight: float,
        concentration: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(state, fold, n_folds)
        self.setting, self.weight, self.concentration = setting, weight, concentration
        self.rng = np.random.default_rng(seed)

    def pair(self, rows: Tensor) -> Pairs:
        """Return the pairs of a batch; see `labelops.nn.shallow.Between`."""
        state = self.state[rows.numpy()]
        positive = np.flatnonzero(state == POSITIVE)
        one = np.flatnonzero((state == UNLABELLED) | (self.setting == "one-sample"))
        if not len(positive):
            one = one[:0]
        other = positive[self.rng.integers(0, max(len(positive), 1), len(one))]
        share = self.rng.beta(self.concentration, self.concentration, len(one)).astype(np.float32)
        return Pairs(torch.from_numpy(one), torch.from_numpy(other), torch.from_numpy(share))

    def loss(self, logits: Tensor, mixed: Tensor, pairs: Pairs, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `labelops.nn.shallow.Between`."""
        phi = torch.sigmoid(logits[:, pairs.one, 0])
        # Never 0, also where γ is 1 and Φ vanishes.
        wanted = (pairs.share * phi + (1 - pairs.share)).clamp(min=TINY).log()
        both = (outside[:, pairs.one] & outside[:, pairs.other]).to(torch.float32)
        squares = torch.square(wanted - logsigmoid(mixed[..., 0])) * both
        return self.weight * (squares.sum(dim=1) / both.sum(dim=1).clamp(min=1)).sum()


class Ignoring(Weighted):
    """CVIR, and TEDⁿ where no prior is given; see `labelops.partial.risks.cvir_weights`.

    Labelled against all unlabelled items until the warm-up is over; from then on, after every
    epoch, each network leaves out the share of the unlabelled items outside its fold that it finds
    likeliest to be positive. Without a prior that is the best bin's, of what networks say of the
    items that they are not trained on.

    Parameters
    ----------
    state, fold, n_folds
        As of `Weighted`.
    prior
        Share of positives among the unlabelled items; None: estimated after every epoch.
    warm_up
        Epochs.

    References
    ----------
    Garg, Wu, Smola, Balakrishnan, Lipton: Mixture proportion estimation and PU learning: a modern
    approach. NeurIPS 2021, algorithms 2 and 3.
    """

    def __init__(
        self,
        state: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        prior: float | None,
        warm_up: int,
    ) -> None:
        super().__init__(state, fold, n_folds=n_folds, margin="logistic")
        self.prior, self.warm_up = prior, warm_up
        self._keep([part == UNLABELLED for part in self._parts()])

    def _parts(self) -> list[np.ndarray]:
        return [self.state[outside] for outside in self.outside]

    def _keep(self, kept: list[np.ndarray]) -> None:
        self.set_weights(
            [cvir_weights(part, these) for part, these in zip(self._parts(), kept, strict=True)]
        )

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Leave out other items, if the warm-up is over."""
        if epoch + 1 < self.warm_up:
            return
        logits = say()[..., 0].numpy()
        prior = (
            out_of_sample_prior(logits, self.state, self.fold) if self.prior is None else self.prior
        )
        self._keep(
            [
                kept_unlabelled(row[outside], self.state[outside], prior=prior)
                for row, outside in zip(logits, self.outside, strict=True)
            ]
        )


def out_of_sample_prior(logits: np.ndarray, state: np.ndarray, fold: np.ndarray) -> float:
    """Return the best bin's share of positives among the unlabelled items; 0 where it has none.

    Parameters
    ----------
    logits
        What the networks of all folds say of all items, shape (F, N).
    state, fold
        Of the items, shape (N,).

    Examples
    --------
    >>> state, fold = np.repeat([1, -1, -1], [500, 300, 700]), np.zeros(1500, int)
    >>> logits = np.repeat([[2.0, 2.0, -3.0]], [500, 300, 700], axis=1)
    >>> round(out_of_sample_prior(logits, state, fold), 3)
    0.3
    """
    rows = np.flatnonzero((fold >= 0) & (state != NEGATIVE))
    own = logits[fold[rows], rows].astype(np.float64)
    counts = count_scores(expit(own), state[rows] == POSITIVE)
    return best_bin(counts) if counts.n_labelled and counts.n_unlabelled else 0.0
