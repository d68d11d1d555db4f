"""Linear classifiers on fixed features: all folds fitted together, streaming, to the same bits.

Softmax regression on standardised features with an L2 penalty; `labelops.nn.linear` says how.
"""

from collections.abc import Iterable
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labelops.nn.linear import Block, Blocks, Heads, Search, fit_linear

# N items, D features, K classes, F folds


class _Softmax:
    """Σ_f 1/n_f Σ_{i: fold_i ≠ f} −log softmax(x_i W_f + b_f)_given_i."""

    def __init__(
        self,
        blocks: Iterable[Block[np.ndarray]],
        *,
        n_classes: int,
        n_folds: int,
        device: torch.device,
    ) -> None:
        self.n_classes, self.n_folds = n_classes, n_folds
        self.device = device
        sizes = np.zeros(n_folds, np.int64)
        for block in blocks:
            sizes += len(block.fold) - np.bincount(block.fold, minlength=n_folds)
        self.n_train = torch.from_numpy(np.maximum(sizes, 1)).to(device)

    def _said(self, block: Block[np.ndarray]) -> tuple[Tensor, Tensor]:
        given = torch.from_numpy(block.given.astype(np.int64)).to(self.device)
        return given, torch.from_numpy(block.fold.astype(np.int64)).to(self.device)

    def error(self, logits: Tensor, block: Block[np.ndarray]) -> tuple[Tensor, Tensor]:
        n_folds, (given, fold) = self.n_folds, self._said(block)
        log_probs = functional.log_softmax(logits.view(-1, n_folds, self.n_classes), dim=2)
        weight = (fold[:, None] != torch.arange(n_folds, device=self.device)) / self.n_train
        index = given.view(-1, 1, 1).expand(-1, n_folds, 1)
        losses = -log_probs.gather(2, index).squeeze(2).to(torch.float64) * weight
        error = log_probs.exp_()
        error.scatter_add_(2, index, torch.full_like(index, -1, dtype=torch.float32))
        error *= weight.to(torch.float32).unsqueeze(2)
        return losses.sum(), error.view(-1, n_folds * self.n_classes)

    def held_out(self, logits: Tensor, block: Block[np.ndarray]) -> tuple[Tensor, Tensor]:
        given, fold = self._said(block)
        logits = logits.view(-1, self.n_folds, self.n_classes)
        own = logits[torch.arange(len(fold), device=self.device), fold].to(torch.float64)
        loss = functional.cross_entropy(own, given, reduction="sum")
        return loss, torch.tensor(float(len(given)), dtype=torch.float64, device=self.device)


def fit_heads(
    blocks: Blocks[np.ndarray],
    *,
    n_features: int,
    n_classes: int,
    n_folds: int,
    **search: Unpack[Search],
) -> Heads:
    """Fit a softmax regression for every fold to the items outside it.

    Σ_f [ 1/n_f Σ_{i: fold_i ≠ f} −log softmax(x_i W_f + b_f)_given_i + λ/2 ‖W_f‖² ]

    Given are class ids, shape (n,); all else is as for `labelops.nn.linear.fit_linear`.

    Examples
    --------
    >>> from labelops.nn.linear import predict
    >>> x = np.array([[-1.], [1.], [-1.], [1.]], np.float32)
    >>> block = Block(x, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    >>> heads = fit_heads(lambda: [block], n_features=1, n_classes=2, n_folds=2, l2=0.1)
    >>> predict(heads, block.features, block.fold).argmax(axis=1).tolist()
    [0, 1, 0, 1]
    """
    device = search.get("device") or torch.device("cpu")

    def make_loss(blocks: Iterable[Block[np.ndarray]]) -> _Softmax:
        return _Softmax(blocks, n_classes=n_classes, n_folds=n_folds, device=device)

    return fit_linear(
        blocks,
        make_loss,
        n_features=n_features,
        n_classes=n_classes,
        n_folds=n_folds,
        **search,
    )
