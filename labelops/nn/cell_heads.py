"""Heads for items whose classes are yes, no or unknown, out of fold, by any loss of the family.

What is unknown may be a yes that nobody wrote down; the loss says what is made of it, and a log
which cells were recalled in which epoch, by networks that were not trained on them.
"""

# N items, D features, K classes, F folds, E epochs, L losses

from typing import NamedTuple

import numpy as np
from scipy.special import expit
from torch import Tensor

from labelops.multilabel.evaluate import average_precisions
from labelops.multilabel.labels import NO, UNKNOWN, YES
from labelops.multilabel.scaling import fit_scaling
from labelops.nn.cell_losses import CellObjective
from labelops.nn.shallow import EPOCHS, HIDDEN, Networks, Say, say, train_networks
from labelops.partial.recall import (
    Recalls,
    Strategy,
    join_recalls,
    largest,
    log_recalls,
    recall_mask,
)

CHOSEN = ("an", "frequency")
"""Losses to choose from: the one is best where nothing is missing, the other where much is."""

RATE, HIDDEN_RATE = 1e-2, 3e-3
"""Learning rate at the beginning, of linear models and of networks."""

RULES: dict[str, Strategy] = {
    "splc": "fixed",
    "comic": "class",
    "ll-r": "largest",
    "ll-ct": "largest",
    "ll-cp": "largest",
}
"""How a loss itself recalls; what others would recall is seen by a fixed threshold."""

CALIBRATED_CELLS = 1 << 23
"""At most so many cells say how logits are calibrated: of every j-th item."""


class CellHeads(NamedTuple):
    """Networks of all folds by one loss, or by two that count alike, and what they found.

    Attributes
    ----------
    losses : their names.
    networks : of every loss and epoch.
    slope, shift : what brings the logits of a class to how often it is given, Σ_l slope_l z_l +
        shift; float64, shapes (L, K) and (K,).
    recalls : unknown cells that the network of their fold recalled, epoch after epoch; of the last
        of the losses.
    """

    losses: tuple[str, ...]
    networks: tuple[Networks, ...]
    slope: np.ndarray
    shift: np.ndarray
    recalls: Recalls


class _Logged:
    """An objective, and a log of what is recalled out of fold."""

    def __init__(self, objective: CellObjective, fold: np.ndarray, rule: Strategy) -> None:
        self.objective, self.rule = objective, rule
        self.row = np.flatnonzero(fold >= 0)
        self.fold, self.states = fold[self.row], objective.states.numpy()[self.row]
        self.parts: list[Recalls] = []

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        return self.objective.loss(logits, rows, outside)

    def after_epoch(self, epoch: int, say: Say) -> None:
        if len(self.row):
            p = self.objective.present(say()).numpy()[self.fold, self.row]
            n = largest(p.size, epoch)
            mask = recall_mask(p, self.states, strategy=self.rule, n_largest=n)
            found = log_recalls(mask, p, epoch=epoch)
            self.parts.append(found._replace(row=self.row[found.row]))
        self.objective.after_epoch(epoch, say)


def fit_cells(
    features: np.ndarray,
    states: np.ndarray,
    fold: np.ndarray,
    *,
    n_folds: int,
    loss: str | None = "ll-r",
    recall: Strategy | None = None,
    hidden: int = HIDDEN,
    epochs: int = EPOCHS,
    expected: float | None = None,
    seed: int = 0,
) -> CellHeads:
    """Fit one network a fold to the items outside it, all side by side.

    Parameters
    ----------
    features
        Finite, in an order that has nothing to do with what they are, shape (N, D).
    states
        1 (yes), 0 (no), −1 (unknown), shape (N, K).
    fold
        Of each item, shape (N,); −1: every network is trained on it.
    n_folds
        F.
    loss
        One of `labelops.nn.cell_losses.LOSSES`. None: *an*, *frequency*, or the mean of both,
        whichever ranks what is given best out of fold; best on sets of few classes, but of many
        rare ones *frequency* may learn a share that is far too low
        (`benchmarks/missing_positives.py`).
    recall
        By which rule recalled cells are logged; None: the loss's own, else a fixed threshold.
    hidden
        H; 0 for a linear model.
    epochs
        E.
    expected
        How many classes an item has on average, for *epr* and *role*; None: as many as are given.
    seed
        Of the first weights and of the order of the items.

    Raises
    ------
    ValueError
        If shapes do not fit, a state is none of 1, 0 and −1, or there is no such loss.

    Notes
    -----
    Losses that weigh yes and no differently rank cells but say no probabilities. So logits are
    scaled, class by class, to how often out-of-fold items were given the class: what is said is the
    probability to be given, whatever the loss.

    If what is given is a random part of what is present, a class is ranked best by whoever ranks
    best what is given of it: so the choice needs no full labels. It is one for all folds. For
    linear models of many features and rare classes *frequency* takes far too little for said, and
    the choice, made by networks that know fewer items, does not make up for it: name a loss there.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    >>> states, fold = np.where(x[:, :2] > 0, 1, -1), np.arange(600) % 2
    >>> heads = fit_cells(x, states, fold, n_folds=2, hidden=64)
    >>> probs = predict_cells(heads, x, fold)
    >>> bool(((probs > 0.5) == (states == 1)).mean() > 0.9)
    True
    """
    if states.ndim != 2 or not len(features) == len(states) == len(fold):
        raise ValueError(
            f"fit_cells: features, states (N, K) and folds of as many items were expected, got "
            f"{len(features)}, {states.shape} and {len(fold)}"
        )
    if not np.isin(states, (YES, NO, UNKNOWN)).all():
        raise ValueError(
            f"fit_cells: states 1 (yes), 0 (no) and −1 (unknown) were expected, got "
            f"{np.unique(states)[:5].tolist()}"
        )
    fold = np.asarray(fold)
    row = np.flatnonzero(fold >= 0)
    row = row[:: max(1, -(-len(row) * states.shape[1] // CALIBRATED_CELLS))]
    is_given = states[row] == YES
    fitted, said = [], []
    for name in CHOSEN if loss is None else (loss,):
        objective = CellObjective(
            name, states, fold, n_folds=n_folds, epochs=epochs, expected=expected, seed=seed
        )
        logged = _Logged(objective, fold, recall or RULES.get(name, "fixed"))
        networks = train_networks(
            features,
            fold,
            logged,
            n_outputs=states.shape[1],
            n_folds=n_folds,
            seed=seed,
            hidden=hidden,
            epochs=epochs,
            rate=HIDDEN_RATE if hidden else RATE,
            parameters=objective.parameters,
        )
        said.append(say(networks, features[row], fold[row]))
        fitted.append(_calibrated((name,), (networks,), said[-1:], is_given, logged))
    if len(fitted) == 1:
        return fitted[0]
    both = tuple(one for heads in fitted for one in heads.networks)
    fitted.append(_calibrated(CHOSEN, both, said, is_given, logged))
    ranked = [
        mean_precision(sum(w * z for w, z in zip(heads.slope, of, strict=True)), is_given)
        for heads, of in zip(fitted, (said[:1], said[1:], said), strict=True)
    ]
    return fitted[int(np.argmax(ranked))]


def _calibrated(
    losses: tuple[str, ...],
    networks: tuple[Networks, ...],
    logits: list[np.ndarray],
    is_given: np.ndarray,
    logged: _Logged,
) -> CellHeads:
    """Return heads of which the logits count alike, together scaled to what is given."""
    deviation = np.stack([z.std(axis=0) if len(z) else np.ones(z.shape[1]) for z in logits])
    weight = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-12), 0.0)
    # Of the size that logits have.
    weight *= deviation.mean(axis=0) / len(logits)
    mean = np.asarray(sum(w * z for w, z in zip(weight, logits, strict=True)))
    n, k = is_given.shape
    scaling = fit_scaling(
        mean.ravel(), is_given.ravel(), np.tile(np.arange(k), n), np.ones(n * k), n_classes=k
    )
    recalls = join_recalls(logged.parts)
    return CellHeads(losses, networks, weight * scaling.slope, scaling.shift, recalls)


def mean_precision(scores: np.ndarray, is_given: np.ndarray) -> float:
    """Return the mean over classes with a given yes of the average precision; 0 without any.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.6, 0.3]])
    >>> mean_precision(scores, np.array([[True, False], [True, False], [False, False]]))
    0.8333333333333333
    """
    once = np.ones((1, len(scores)))
    found = [
        average_precisions(own, given, once)[0]
        for own, given in zip(scores.T, is_given.T, strict=True)
        if given.any()
    ]
    return float(np.mean(found)) if found else 0.0


def predict_cells(heads: CellHeads, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return how probable it is that each class is given; float32, shape (N, K).

    By networks of other folds: the mean of their logits over all epochs, calibrated, and of two
    losses the mean of both. A row is the same whatever rows are beside it.

    Parameters
    ----------
    heads
        From `fit_cells`.
    features, fold
        Of the items, shapes (N, D) and (N,); every fold is that of a network.
    """
    total = np.zeros((len(features), len(heads.shift))) + heads.shift
    for networks, slope in zip(heads.networks, heads.slope, strict=True):
        total += slope * say(networks, features, fold)
    return np.asarray(expit(total).astype(np.float32))
