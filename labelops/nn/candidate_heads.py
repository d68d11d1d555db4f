"""Linear and small networks on items with candidate sets, one a fold.

Where exactly one of an item's candidates is true, a network is trained towards all of them, each
with a weight: what the network itself says (RC). It confirms itself, but not in what is believed of
an item: that is said by the network of the item's fold, which has seen neither the item nor its
set. Weights from that network instead, for all others, let its set reach it by way of them, and it
is then sure without being right.
"""

# N items, D features, H hidden units, K classes, F folds, E epochs

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from labelops.nn.shallow import Networks, Objective, Say, say, train_networks
from labelops.opinions.pool import pool
from labelops.partial.candidate_pairs import MOST_CLASSES, pair_loss
from labelops.partial.candidates import (
    balance,
    candidate_loss,
    check_candidates,
    fit_candidate_pool,
)

Method = Literal["rc", "rc_balanced", "rc_out_of_fold", "cc", "average"]

CHOICES: tuple[Method, ...] = ("rc", "rc_balanced")
"""Where the data choose."""

HIDDEN, EPOCHS, RATE = 256, 40, 1e-2

DECAYS = (0.01, 1.0)
"""Weight decays that are tried."""

SEARCH_ITEMS = 8192
"""They are tried on so many items at most."""

LEAST_GAIN = 0.05
"""Sets that are likelier by less, in nats an item, do not decide between two answers."""

HEARD = 0.5
"""What is said after so many of the epochs, the last ones, counts."""


class CandidateLikelihood:
    """Mean over a batch of −log Σ_{k ∈ C} p_k (CC).

    Parameters
    ----------
    is_candidate
        bool, shape (N, K).
    """

    def __init__(self, is_candidate: np.ndarray) -> None:
        self.is_candidate = torch.from_numpy(np.asarray(is_candidate, bool))

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `Objective`."""
        kept = logits.masked_fill(~self.is_candidate[rows], -torch.inf)
        losses = torch.logsumexp(logits, dim=2) - torch.logsumexp(kept, dim=2)
        return (losses * outside.to(losses.dtype)).sum() / max(len(rows), 1)

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Nothing changes."""


class Reweighted:
    """Mean over a batch of −Σ_k w_k log p_k, with w the probabilities among candidates (RC).

    Parameters
    ----------
    is_candidate
        bool, shape (N, K).
    fold
        Shape (N,), in 0 … F − 1.
    source
        Whose probabilities are the weights, after every epoch: of each network itself ("own"), of
        the network of the item's fold for all networks ("out of fold"), or nobody's, so that all
        candidates keep the same weight ("none").
    is_balanced
        Whether own weights are balanced over the items of each network, see
        `labelops.partial.candidates.balance`.
    start
        Candidates that have weights in the first epoch, at least one an item, bool, shape (N, K).
        None: all of them.
    """

    def __init__(
        self,
        is_candidate: np.ndarray,
        fold: np.ndarray,
        source: Literal["own", "out of fold", "none"],
        *,
        is_balanced: bool = False,
        start: np.ndarray | None = None,
    ) -> None:
        self.is_balanced, self.sets = is_balanced, np.asarray(is_candidate, bool)
        self.is_candidate = torch.from_numpy(np.asarray(is_candidate, bool))
        self.fold = torch.from_numpy(np.asarray(fold, np.int64))
        self.source = source
        first = self.is_candidate if start is None else torch.from_numpy(start & self.sets)
        even = first.to(torch.float32)
        self.weights = (even / even.sum(dim=1, keepdim=True))[None]

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `Objective`."""
        losses = -(functional.log_softmax(logits, dim=2) * self.weights[:, rows]).sum(dim=2)
        return (losses * outside.to(losses.dtype)).sum() / max(len(rows), 1)

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Weigh candidates by what is said of them now."""
        if self.source == "none":
            return
        logits = say()
        if self.source == "out of fold":
            logits = logits[self.fold, torch.arange(len(self.fold))][None]
        self.weights = torch.softmax(logits.masked_fill(~self.is_candidate, -torch.inf), dim=2)
        if self.is_balanced:
            weights, fold = self.weights.numpy(), self.fold.numpy()
            for f in range(len(weights)):
                rows = np.flatnonzero(fold != f)
                weights[f, rows] = balance(weights[f, rows], self.sets[rows])


def fit_candidates(
    features: np.ndarray,
    is_candidate: np.ndarray,
    fold: np.ndarray,
    *,
    n_folds: int,
    method: Method = "rc",
    hidden: int = HIDDEN,
    epochs: int = EPOCHS,
    rate: float = RATE,
    decay: float | None = None,
    seed: int = 0,
) -> Networks:
    """Fit one network a fold to the candidates of the items outside it, all side by side.

    Parameters
    ----------
    features
        Finite, in an order that has nothing to do with what they are, shape (N, D).
    is_candidate
        Which classes may be true, bool, shape (N, K).
    fold
        Of each item, shape (N,), in 0 … F − 1.
    n_folds
        F.
    method
        rc: candidates weigh as each network finds them probable, as published. rc_balanced: and
        classes about as sets alone speak for them. rc_out_of_fold: as the network that has not
        seen the item finds them probable. cc: likelihood of the set, which asks that every wrong
        class be a candidate as often as any other. average: all candidates alike.
    hidden
        H; 0 for a linear model.
    epochs
        E.
    rate
        Learning rate at the beginning.
    decay
        Weight decay. None: that of `DECAYS` at which the first items' sets are likeliest, by
        networks that have not seen them (`likeliest`).
    seed
        Of the first weights and of the order of the items.

    Raises
    ------
    ValueError
        If an item has no candidate or no fold, or the method is none of these.

    Notes
    -----
    With rc_out_of_fold what is said of an item depends on its set, through the weights that other
    networks gave to the items that its network is trained on: likelihoods of sets, and how sure
    predictions should be, cannot be measured then.

    References
    ----------
    Feng et al.: Provably consistent partial-label learning. NeurIPS 2020 (RC, CC). Lv et al.:
    Progressive identification of true labels for partial-label learning. ICML 2020 (PRODEN, which
    weighs as RC does).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 2)).astype(np.float32)
    >>> true, fold = (x[:, 0] > 0) + 2 * (x[:, 1] > 0), np.arange(600) % 3
    >>> is_candidate = np.eye(4, dtype=bool)[true]
    >>> is_candidate[np.arange(600), (true + rng.integers(1, 4, 600)) % 4] = True
    >>> networks = fit_candidates(x, is_candidate, fold, n_folds=3, hidden=0)
    >>> probs = predict_candidates(networks, x, fold)
    >>> bool((probs.argmax(axis=1) == true).mean() > 0.9)
    True
    """
    check_candidates(is_candidate)
    if method not in get_args(Method):
        raise ValueError(
            f"fit_candidates: method must be one of {get_args(Method)}, got {method!r}"
        )
    fold = np.asarray(fold)
    outside = np.flatnonzero((fold < 0) | (fold >= n_folds))
    if outside.size:
        raise ValueError(
            f"fit_candidates: folds 0 to {n_folds - 1} were expected, item {outside[0]} has "
            f"{fold[outside[0]]}"
        )
    if decay is None:
        decay = likeliest(
            features,
            is_candidate,
            fold,
            methods=(method,),
            n_folds=n_folds,
            hidden=hidden,
            epochs=epochs,
            rate=rate,
            seed=seed,
        ).decay
    objective: Objective
    if method == "cc":
        objective = CandidateLikelihood(is_candidate)
    else:
        sources: dict[str, Literal["own", "out of fold", "none"]]
        sources = {"rc_out_of_fold": "out of fold", "average": "none"}
        source = sources.get(method, "own")
        objective = Reweighted(is_candidate, fold, source, is_balanced=method == "rc_balanced")
    networks = train_networks(
        features,
        fold,
        objective,
        n_outputs=is_candidate.shape[1],
        n_folds=n_folds,
        seed=seed,
        hidden=hidden,
        epochs=epochs,
        rate=rate,
        decay=decay,
    )
    return networks.after(slice(int(epochs * (1 - HEARD)), None))


class Choice(NamedTuple):
    """How to learn from candidate sets."""

    method: Method
    decay: float


def likeliest(
    features: np.ndarray,
    is_candidate: np.ndarray,
    fold: np.ndarray,
    *,
    methods: Sequence[Method] = CHOICES,
    n_folds: int,
    **settings: Any,
) -> Choice:
    """Return the method and weight decay by which the first items' sets are likeliest.

    Of each method, the decay at which the sets most likely have the true class
    (`labelops.partial.candidates.fit_candidate_pool`); of methods, that by which the whole sets are
    likeliest, if every class has companions of its own (`labelops.partial.candidate_pairs`).

    Parameters
    ----------
    features, is_candidate, fold, n_folds, settings
        As for `fit_candidates`.
    methods
        Of several, the first where there are more than 2,048 classes.

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    All likelihoods are by networks that have not seen the items, and no truth is needed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true, fold = rng.integers(0, 4, 400), np.arange(400) % 2
    >>> x = (np.eye(4)[true] + rng.normal(0, 0.5, (400, 4))).astype(np.float32)
    >>> is_candidate = np.eye(4, dtype=bool)[true]
    >>> is_candidate[:, 0] |= rng.random(400) < 0.95  # beside nearly all others
    >>> likeliest(x, is_candidate, fold, n_folds=2, hidden=0).method
    'rc_balanced'
    """
    rows = slice(SEARCH_ITEMS)
    x, sets, of = features[rows], is_candidate[rows], fold[rows]
    found = []
    for method in methods if is_candidate.shape[1] <= MOST_CLASSES else methods[:1]:
        tried = []
        for decay in DECAYS:
            networks = fit_candidates(
                x, sets, of, n_folds=n_folds, method=method, decay=decay, **settings
            )
            said = predict_candidates(networks, x, of)[None]
            fitted = fit_candidate_pool(said, sets)
            tried.append((fitted.loss, decay, pool(said, fitted.weights)))
        found.append((method, *min(tried, key=lambda one: one[0])))
    if len(found) > 1:
        found.sort(key=lambda one: pair_loss(one[3], sets, of))
    return Choice(found[0][0], found[0][2])


class Rival(NamedTuple):
    """What networks found that started from the other candidates.

    Attributes
    ----------
    choice : the candidate that they find most probable, int64, shape (n,).
    gain : by how much sets are likelier to networks that started from all candidates, mean of
        differences of log-likelihood.
    """

    choice: np.ndarray
    gain: float

    @property
    def is_as_good(self) -> bool:
        """Whether sets say too little against the rival."""
        return self.gain < LEAST_GAIN


def check_rival(
    features: np.ndarray,
    is_candidate: np.ndarray,
    fold: np.ndarray,
    chosen: np.ndarray,
    *,
    n_folds: int,
    seed: int = 0,
) -> Rival:
    """Learn again, from all candidates but the chosen ones at first; say how good that is.

    Where a class never stands without some other one, sets do not tell which of the two is true:
    what was learned confirms itself, and so does the other answer, if one starts from it. A rival
    that finds sets nearly as probable, and chooses otherwise, is as good an answer; not more is
    surely right than what both agree on.

    Parameters
    ----------
    features, is_candidate, fold, n_folds, seed
        As for `fit_candidates`; the first items count.
    chosen
        The candidate that is believed most, by networks that have not seen the item, shape (N,).

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    Two linear models a fold, both with own weights (RC) and the decay that is likeliest.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true, fold = rng.integers(0, 4, 400), np.arange(400) % 2
    >>> x = (np.eye(4)[true] + rng.normal(0, 0.1, (400, 4))).astype(np.float32)
    >>> pairs = np.eye(4, dtype=bool)[true] | np.eye(4, dtype=bool)[(true + 1) % 4]
    >>> rival = check_rival(x, pairs, fold, true, n_folds=2)
    >>> rival.is_as_good, bool((rival.choice == true).mean() < 0.5)
    (True, True)
    """
    rows = slice(SEARCH_ITEMS)
    x, sets, of = features[rows], np.asarray(is_candidate[rows], bool), np.asarray(fold[rows])
    decay = likeliest(x, sets, of, methods=("rc",), n_folds=n_folds, hidden=0, seed=seed).decay
    other = sets.copy()
    several = np.flatnonzero(sets.sum(axis=1) > 1)
    other[several, np.asarray(chosen[rows])[several]] = False
    losses = []
    for start in (sets, other):
        networks = train_networks(
            x,
            of,
            Reweighted(sets, of, "own", start=start),
            n_outputs=sets.shape[1],
            n_folds=n_folds,
            seed=seed,
            hidden=0,
            epochs=EPOCHS,
            rate=RATE,
            decay=decay,
        )
        said = predict_candidates(networks.after(slice(int(EPOCHS * (1 - HEARD)), None)), x, of)
        fitted = fit_candidate_pool(said[None], sets)
        losses.append(candidate_loss(pool(said[None], fitted.weights), sets).mean())
    choice = np.where(sets, said, -1.0).argmax(axis=1)
    return Rival(choice, float(losses[1] - losses[0]))


def predict_candidates(networks: Networks, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return what the networks of other folds say of all classes; float32, shape (N, K).

    softmax of the mean of the logits over the epochs that count. A row is the same whatever rows
    are beside it.

    Parameters
    ----------
    networks
        From `fit_candidates`.
    features, fold
        Of the items, shapes (N, D) and (N,).
    """
    return np.asarray(softmax(say(networks, features, fold), axis=1).astype(np.float32))
