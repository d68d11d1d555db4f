"""Independent logistic regressions on fixed features: all classes and folds fitted together.

Each class is a question of its own, which an item answers with yes, no, or not at all; what nobody
looked for takes no part in the loss. `labelops.nn.linear` says how it is minimised.
"""

from collections.abc import Iterable
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labelops.multilabel.labels import UNKNOWN, YES, LabelSets, choose_rows, n_no, n_yes, states
from labelops.nn.linear import Block, Blocks, Heads, Search, fit_linear

# N items, D features, K classes, F folds

PSEUDO_ITEMS = 1.0
"""A class without both answers is believed to be as frequent as the average one, with the weight of
so many items."""


def count_answers(
    blocks: Iterable[Block[LabelSets]], *, n_classes: int, n_folds: int
) -> np.ndarray:
    """Count the items outside each fold that answer no and yes; int64, shape (F, K, 2)."""
    inside = np.zeros((n_folds, n_classes, 2), np.int64)
    for block in blocks:
        for f in np.unique(block.fold).tolist():
            part = choose_rows(block.given, np.flatnonzero(block.fold == f))
            inside[f] += np.stack([n_no(part), n_yes(part)], axis=1)
    return np.asarray(inside.sum(axis=0) - inside)


def constant_log_odds(answers: np.ndarray) -> np.ndarray:
    """Return the log-odds of every class by its counts alone; float64, shape (F, K).

    p_fc = (yes_fc + π_f) / (n_fc + 1), with π_f the share of yes among all answers of the fold
    (`count_answers`).

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

    def _said(self, block: Block[LabelSets]) -> tuple[Tensor, Tensor, Tensor]:
        """Return answers, which are known, and folds."""
        table = torch.from_numpy(states(block.given)).to(self.device)
        fold = torch.from_numpy(block.fold.astype(np.int64)).to(self.device)
        return (table == YES).to(torch.float32), table != UNKNOWN, fold

    def error(self, logits: Tensor, block: Block[LabelSets]) -> tuple[Tensor, Tensor]:
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

    def held_out(self, logits: Tensor, block: Block[LabelSets]) -> tuple[Tensor, Tensor]:
        yes, known, fold = self._said(block)
        logits = logits.view(-1, self.n_folds, self.n_classes)
        own = logits[torch.arange(len(fold), device=self.device), fold]
        losses = functional.binary_cross_entropy_with_logits(own, yes, reduction="none")
        known = known & self.is_fitted[fold]
        total = torch.where(known, losses, 0.0).sum(dtype=torch.float64)
        n = torch.tensor(float(len(fold)), dtype=torch.float64, device=self.device)
        return total, n


def fit_binary_heads(
    blocks: Blocks[LabelSets],
    *,
    n_features: int,
    n_classes: int,
    n_folds: int,
    **search: Unpack[Search],
) -> Heads:
    """Fit a logistic regression for every class and fold to the known answers outside it.

    Σ_fc [ 1/n_fc Σ_{i: fold_i ≠ f, c known} −log p(z_ic | x_i w_fc + b_fc) + λ/2 ‖w_fc‖² ]

    A class that all items outside a fold answer alike gets the constant of `constant_log_odds`: its
    best logistic regression would be sure without end. All else is as for
    `labelops.nn.linear.fit_linear`, with one penalty for all classes; the tolerance is for the mean
    loss summed over classes.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> from labelops.nn.linear import predict
    >>> x = np.array([[-1.], [1.], [-1.], [1.]], np.float32)
    >>> labels = label_sets([[1], [0, 1], [1], [0, 1]], n_classes=2)
    >>> block = Block(x, labels, np.array([0, 0, 1, 1]))
    >>> heads = fit_binary_heads(lambda: [block], n_features=1, n_classes=2, n_folds=2, l2=0.1)
    >>> predict(heads, x, block.fold, link="sigmoid").round(1).tolist()
    [[0.2, 0.9], [0.8, 0.9], [0.2, 0.9], [0.8, 0.9]]
    """
    device = search.get("device") or torch.device("cpu")
    answers = count_answers(blocks(), n_classes=n_classes, n_folds=n_folds)

    def make_loss(blocks: Iterable[Block[LabelSets]]) -> _Logistic:
        return _Logistic(count_answers(blocks, n_classes=n_classes, n_folds=n_folds), device)

    heads = fit_linear(
        blocks,
        make_loss,
        n_features=n_features,
        n_classes=n_classes,
        n_folds=n_folds,
        **search,
    )
    is_constant = np.asarray((answers == 0).any(axis=2))
    bias = np.where(is_constant, constant_log_odds(answers), heads.bias)
    weight = np.where(is_constant[:, None, :], 0.0, heads.weight)
    return heads._replace(weight=weight, bias=bias)
