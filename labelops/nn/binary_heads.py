"""Independent logistic regressions on fixed features: all classes and folds fitted together.

Each class is a question of its own, which an item answers with yes, no, or not at all; what nobody
looked for takes no part in the loss. `labelops.nn.linear` says how it is minimised.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labelops.multilabel.labels import UNKNOWN, YES, LabelSets, n_no, n_yes, states
from labelops.nn.linear import Heads, fit_linear, predict_linear

# N items, D features, K classes, F folds

PSEUDO_ITEMS = 1.0
"""A class without both answers is believed to be as frequent as the average one, with the weight of
so many items."""


class Block(NamedTuple):
    """Some items: features (n, D), given classes, folds (n,)."""

    features: np.ndarray
    labels: LabelSets
    fold: np.ndarray


Blocks = Callable[[], Iterable[Block]]
"""Gives the same blocks in the same order whenever it is called."""


def count_answers(blocks: Iterable[Block], *, n_classes: int, n_folds: int) -> np.ndarray:
    """Count the items outside each fold that answer no and yes; int64, shape (F, K, 2)."""
    inside = np.zeros((n_folds, n_classes, 2), np.int64)
    for block in blocks:
        for f in np.unique(block.fold).tolist():
            part = _some(block.labels, np.flatnonzero(block.fold == f))
            inside[f] += np.stack([n_no(part), n_yes(part)], axis=1)
    return np.asarray(inside.sum(axis=0) - inside)


def _some(labels: LabelSets, rows: np.ndarray) -> LabelSets:
    """Return the given classes of some items, in order."""
    ids, start = _take(labels.ids, labels.start, rows)
    if labels.negative_ids is None or labels.negative_start is None:
        return LabelSets(ids, start, None, None, labels.n_classes)
    negative = _take(labels.negative_ids, labels.negative_start, rows)
    return LabelSets(ids, start, *negative, labels.n_classes)


def _take(ids: np.ndarray, start: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.diff(start)[rows]
    own = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(length, out=own[1:])
    at = np.arange(own[-1]) - np.repeat(own[:-1], length) + np.repeat(start[rows], length)
    return ids[at], own


def constant_log_odds(answers: np.ndarray) -> np.ndarray:
    """Return the log-odds of every class by its counts alone; float64, shape (F, K).

    p_fc = (yes_fc + π_f) / (n_fc + 1), with π_f the share of yes among all answers of the fold.

    Parameters
    ----------
    answers
        From `count_answers`.

    Examples
    --------
    >>> from scipy.special import expit
    >>> expit(constant_log_odds(np.array([[[8, 0], [0, 1]]]))).round(3).tolist()
    [[0.017, 0.575]]
    """
    no, yes = answers[..., 0].astype(np.float64), answers[..., 1].astype(np.float64)
    total_yes, total_no = (x.sum(axis=1, keepdims=True) + 0.5 for x in (yes, no))
    share = total_yes / (total_yes + total_no)
    return np.asarray(np.log(yes + PSEUDO_ITEMS * share) - np.log(no + PSEUDO_ITEMS * (1 - share)))


class _Logistic:
    """Σ_fc 1/n_fc Σ_{i: fold_i ≠ f, c known} −log p(z_ic | x_i), over classes with both answers."""

    def __init__(self, answers: np.ndarray, device: torch.device) -> None:
        self.n_folds, self.n_classes, _ = answers.shape
        self.device = device
        n = answers.sum(axis=2)
        weight = np.where((answers > 0).all(axis=2), 1.0 / np.maximum(n, 1), 0.0)
        # Folds, then classes, as the columns of the logits are.
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.is_fitted = torch.from_numpy(weight > 0).to(device)

    def _said(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Return answers, which are known, and folds."""
        table = torch.from_numpy(states(block.labels)).to(self.device)
        fold = torch.from_numpy(block.fold.astype(np.int64)).to(self.device)
        return (table == YES).to(torch.float32), table != UNKNOWN, fold

    def error(self, logits: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        yes, known, fold = self._said(block)
        logits = logits.view(-1, self.n_folds, self.n_classes)
        target = yes[:, None, :].expand_as(logits)
        outside = fold[:, None] != torch.arange(self.n_folds, device=self.device)
        weight = (outside[:, :, None] & known[:, None, :]) * self.weight
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # Summed in double precision: rare answers weigh 10⁴ times what frequent ones do.
        total = (losses * weight).sum(dtype=torch.float64)
        error = torch.sigmoid_(logits).sub_(target).mul_(weight)
        return total, error.view(-1, self.n_folds * self.n_classes)

    def held_out(self, logits: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        yes, known, fold = self._said(block)
        logits = logits.view(-1, self.n_folds, self.n_classes)
        own = logits[torch.arange(len(fold), device=self.device), fold]
        losses = functional.binary_cross_entropy_with_logits(own, yes, reduction="none")
        known = known & self.is_fitted[fold]
        total = torch.where(known, losses, 0.0).sum(dtype=torch.float64)
        n = torch.tensor(float(len(fold)), dtype=torch.float64, device=self.device)
        return total, n


def block_rows(*, n_classes: int, n_folds: int, cells: int = 1 << 22) -> int:
    """Return how many rows a block should have.

    Examples
    --------
    >>> block_rows(n_classes=10, n_folds=5), block_rows(n_classes=10_000, n_folds=5)
    (2048, 83)
    """
    return int(np.clip(cells // (n_classes * n_folds), 64, 2048))


def fit_binary_heads(
    blocks: Blocks,
    *,
    n_features: int,
    n_classes: int,
    n_folds: int,
    l2: float | None = None,
    max_iter: int = 300,
    tolerance: float = 1e-5,
    choose_on: int = 20_000,
    device: torch.device | None = None,
    n_threads: int | None = None,
) -> Heads:
    """Fit a logistic regression for every class and fold to the known answers outside it.

    Σ_fc [ 1/n_fc Σ_{i: fold_i ≠ f, c known} −log p(z_ic | x_i w_fc + b_fc) + λ/2 ‖w_fc‖² ]

    A class that all items outside a fold answer alike gets the constant of `constant_log_odds`: its
    best logistic regression would be sure without end.

    Parameters
    ----------
    blocks
        Called once a pass; items in a fixed order, cut at fixed places.
    n_features, n_classes, n_folds
        D, K, F.
    l2, max_iter, choose_on, device, n_threads
        As for `labelops.nn.heads.fit_heads`; one penalty for all classes.
    tolerance
        Done when an iteration lowers the mean loss, summed over classes, by less, in nats.

    Notes
    -----
    Each pass takes O(N · D · F · K); memory holds a few blocks and 24 copies of the weights.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> x = np.array([[-1.], [1.], [-1.], [1.]], np.float32)
    >>> labels = label_sets([[1], [0, 1], [1], [0, 1]], n_classes=2)
    >>> block = Block(x, labels, np.array([0, 0, 1, 1]))
    >>> heads = fit_binary_heads(lambda: [block], n_features=1, n_classes=2, n_folds=2, l2=0.1)
    >>> predict(heads, x, block.fold).round(1).tolist()
    [[0.2, 0.9], [0.8, 0.9], [0.2, 0.9], [0.8, 0.9]]
    """
    device = device or torch.device("cpu")
    answers = count_answers(blocks(), n_classes=n_classes, n_folds=n_folds)

    def make_loss(blocks: Iterable[Block]) -> _Logistic:
        return _Logistic(count_answers(blocks, n_classes=n_classes, n_folds=n_folds), device)

    found = fit_linear(
        blocks,
        make_loss,
        n_features=n_features,
        n_outputs=n_folds * n_classes,
        l2=l2,
        max_iter=max_iter,
        tolerance=tolerance * n_folds,
        choose_on=choose_on,
        device=device,
        n_threads=n_threads,
    )
    heads = Heads.of_fit(found, n_folds)
    is_constant = np.asarray((answers == 0).any(axis=2))
    bias = np.where(is_constant, constant_log_odds(answers), heads.bias)
    weight = np.where(is_constant[:, None, :], 0.0, heads.weight)
    return heads._replace(weight=weight, bias=bias)


def predict(
    heads: Heads,
    features: np.ndarray,
    fold: np.ndarray,
    *,
    batch_rows: int = 256,
    device: torch.device | None = None,
) -> np.ndarray:
    """Return the probability of every class by the heads that have not seen the item.

    Parameters
    ----------
    heads
        Result of `fit_binary_heads`.
    features
        Shape (N, D).
    fold
        Each item's fold, shape (N,).
    batch_rows, device
        As for `labelops.nn.linear.predict_linear`.

    Returns
    -------
    float32, shape (N, K); rows need not sum to one.
    """
    return predict_linear(
        heads, features, fold, torch.sigmoid, batch_rows=batch_rows, device=device
    )
