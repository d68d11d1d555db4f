"""Linear classifiers on fixed features: all folds fitted together, streaming, to the same bits.

Softmax regression on standardised features with an L2 penalty; `labelops.nn.linear` says how.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labelops.nn.linear import Heads, fit_linear, predict_linear

# N items, D features, K classes, F folds


class Block(NamedTuple):
    """Some items: features (n, D), class ids (n,), folds (n,)."""

    features: np.ndarray
    given: np.ndarray
    fold: np.ndarray


Blocks = Callable[[], Iterable[Block]]
"""Gives the same blocks in the same order whenever it is called."""


class _Softmax:
    """Σ_f 1/n_f Σ_{i: fold_i ≠ f} −log softmax(x_i W_f + b_f)_given_i."""

    def __init__(
        self, blocks: Iterable[Block], *, n_classes: int, n_folds: int, device: torch.device
    ) -> None:
        self.n_classes, self.n_folds = n_classes, n_folds
        self.device = device
        sizes = np.zeros(n_folds, np.int64)
        for block in blocks:
            sizes += len(block.fold) - np.bincount(block.fold, minlength=n_folds)
        self.n_train = torch.from_numpy(np.maximum(sizes, 1)).to(device)

    def _said(self, block: Block) -> tuple[Tensor, Tensor]:
        given = torch.from_numpy(block.given.astype(np.int64)).to(self.device)
        return given, torch.from_numpy(block.fold.astype(np.int64)).to(self.device)

    def error(self, logits: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        n_folds, (given, fold) = self.n_folds, self._said(block)
        log_probs = functional.log_softmax(logits.view(-1, n_folds, self.n_classes), dim=2)
        weight = (fold[:, None] != torch.arange(n_folds, device=self.device)) / self.n_train
        index = given.view(-1, 1, 1).expand(-1, n_folds, 1)
        losses = -log_probs.gather(2, index).squeeze(2).to(torch.float64) * weight
        error = log_probs.exp_()
        error.scatter_add_(2, index, torch.full_like(index, -1, dtype=torch.float32))
        error *= weight.to(torch.float32).unsqueeze(2)
        return losses.sum(), error.view(-1, n_folds * self.n_classes)

    def held_out(self, logits: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        given, fold = self._said(block)
        logits = logits.view(-1, self.n_folds, self.n_classes)
        own = logits[torch.arange(len(fold), device=self.device), fold].to(torch.float64)
        loss = functional.cross_entropy(own, given, reduction="sum")
        return loss, torch.tensor(float(len(given)), dtype=torch.float64, device=self.device)


def fit_heads(
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
    """Fit a softmax regression for every fold to the items outside it.

    Σ_f [ 1/n_f Σ_{i: fold_i ≠ f} −log softmax(x_i W_f + b_f)_given_i + λ/2 ‖W_f‖² ]

    Parameters
    ----------
    blocks
        Called once a pass; items in a fixed order, cut at fixed places.
    n_features, n_classes, n_folds
        D, K, F.
    l2
        λ of the penalty λ/2 ‖W‖² beside the mean loss; biases are free. None: the one of `CHOICES`
        that predicts the items of the first blocks best out of sample. It is chosen on about
        `choose_on` items and divided by how many times more there are in all, as a fixed prior
        would be.
    max_iter
        Most iterations of L-BFGS.
    tolerance
        Done when an iteration lowers the mean loss by less, in nats.
    choose_on
        How many items are enough to choose the penalty on.
    device
        Where to compute; None for the CPU.
    n_threads
        Blocks worked on at a time on a CPU; None for one a core. Does not change the answer.

    Notes
    -----
    Each pass takes O(N · D · F · K); memory holds a few blocks and 24 copies of the weights.

    References
    ----------
    Liu, Nocedal: On the limited memory BFGS method for large scale optimization. Mathematical
    Programming 45, 1989.

    Examples
    --------
    >>> x = np.array([[-1.], [1.], [-1.], [1.]], np.float32)
    >>> block = Block(x, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    >>> heads = fit_heads(lambda: [block], n_features=1, n_classes=2, n_folds=2, l2=0.1)
    >>> predict(heads, block.features, block.fold).argmax(axis=1).tolist()
    [0, 1, 0, 1]
    """
    device = device or torch.device("cpu")

    def make_loss(blocks: Iterable[Block]) -> _Softmax:
        return _Softmax(blocks, n_classes=n_classes, n_folds=n_folds, device=device)

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
    return Heads.of_fit(found, n_folds)


def predict(
    heads: Heads,
    features: np.ndarray,
    fold: np.ndarray,
    *,
    batch_rows: int = 256,
    device: torch.device | None = None,
) -> np.ndarray:
    """Return each item's probabilities from the head that has not seen it.

    Parameters
    ----------
    heads
        Result of `fit_heads`.
    features
        Shape (N, D).
    fold
        Each item's fold, shape (N,).
    batch_rows
        Rows of every product; shorter batches are filled up.
    device
        Where to compute; None for the CPU.

    Returns
    -------
    float32, shape (N, K); rows sum to 1.

    Notes
    -----
    In double precision and rounded once: what a row's place in its batch does to the last bit of a
    product is not seen in single precision.
    """
    return predict_linear(
        heads,
        features,
        fold,
        lambda logits: torch.softmax(logits, dim=1),
        batch_rows=batch_rows,
        device=device,
    )
