"""Small networks on an embedding, one a fold, each heard all along its training.

A network first learns what the items of a class have in common and later what is peculiar to each,
wrong labels included. So its opinion of an item that it was not trained on is the mean of what it
said after every epoch; margins averaged over training are a published sign of wrong labels.
"""

# N items, D features, H hidden units, K classes, F folds, E epochs

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from labelops.fast.products import affine
from labelops.nn.threads import one_thread

HIDDEN, EPOCHS = 256, 20

BATCHES, SMALLEST, LARGEST = 64, 32, 256
"""An epoch has about so many batches, of so many items at least and at most."""

RATE, DECAY = 1e-3, 1e-2
"""Learning rate at the beginning, and weight decay."""

MAX_CELLS = 1 << 25
"""Items × features that networks are fitted to stay below it: 128 MiB."""

BLOCK_ROWS = 2048


class Networks(NamedTuple):
    """Networks of all folds after every epoch.

    Attributes
    ----------
    center, scale : of the features, float32, shape (D,).
    into, into_bias : float32, shapes (E, F, D, H) and (E, F, H).
    out, out_bias : float32, shapes (E, F, H, K) and (E, F, K).
    """

    center: np.ndarray
    scale: np.ndarray
    into: np.ndarray
    into_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray


def n_items(n_features: int) -> int:
    """Return how many items networks are fitted to at most.

    Examples
    --------
    >>> n_items(512)
    65536
    """
    return max(1, MAX_CELLS // max(n_features, 1))


def fit_networks(
    features: np.ndarray,
    given: np.ndarray,
    fold: np.ndarray,
    *,
    n_classes: int,
    n_folds: int,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> Networks:
    """Fit one network a fold to the items outside it, all side by side.

    Parameters
    ----------
    features
        Finite, in an order that has nothing to do with what they are, shape (N, D).
    given, fold
        Class ids and folds, shape (N,).
    n_classes, n_folds
        K, F.
    seed
        Of the first weights and of the order of the items.
    epochs
        E.

    Notes
    -----
    One hidden layer of rectified units; AdamW with cosine decay. On one thread, so that the same
    items in the same order give the same bits.

    References
    ----------
    Pleiss et al.: Identifying mislabeled data using the area under the margin ranking. NeurIPS
    2020, section 3. Liu et al.: Early-learning regularization prevents memorization of noisy
    labels. NeurIPS 2020.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    >>> fold = np.arange(600) % 2
    >>> networks = fit_networks(x, x[:, 0] > 0, fold, n_classes=2, n_folds=2)
    >>> probs = predict_networks(networks, x, fold)
    >>> bool(((probs[:, 1] > 0.5) == (x[:, 0] > 0)).mean() > 0.95)
    True
    """
    n, width = features.shape
    center, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    if n:
        center = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = features.std(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.where(deviation > 0, deviation, np.float32(1))
    generator = torch.Generator().manual_seed(seed)

    def fresh(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(n_folds, rows, columns, generator=generator)
        return drawn.mul_((2 / rows) ** 0.5).requires_grad_(True)

    into, out = fresh(width, HIDDEN), fresh(HIDDEN, n_classes)
    into_bias = torch.zeros(n_folds, 1, HIDDEN, requires_grad=True)
    out_bias = torch.zeros(n_folds, 1, n_classes, requires_grad=True)
    held = [into, into_bias, out, out_bias]
    optimiser = torch.optim.AdamW(held, lr=RATE, weight_decay=DECAY)
    size = min(max(n // BATCHES, SMALLEST), LARGEST)
    n_steps = epochs * max(1, -(-n // size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    kept: list[list[np.ndarray]] = [[] for _ in held]
    with one_thread():
        x = torch.from_numpy((features - center) / scale)
        y = torch.from_numpy(np.asarray(given, np.int64))
        mine = torch.from_numpy(np.asarray(fold)[None, :] != np.arange(n_folds)[:, None])
        for _ in range(epochs):
            order = torch.randperm(n, generator=generator)
            for start in range(0, n, size):
                rows = order[start : start + size]
                hidden = torch.relu(x[rows] @ into + into_bias)
                logits = hidden @ out + out_bias
                loss = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), y[rows].repeat(n_folds), reduction="none"
                )
                weight = mine[:, rows].flatten().to(loss.dtype)
                optimiser.zero_grad()
                ((loss * weight).sum() / max(len(rows), 1)).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            for parts, tensor in zip(kept, held, strict=True):
                parts.append(tensor.detach().numpy().copy())
    stacked = [np.stack(parts) for parts in kept]
    return Networks(center, scale, stacked[0], stacked[1][:, :, 0], stacked[2], stacked[3][:, :, 0])


def predict_networks(networks: Networks, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return what the networks of other folds said on average; float32, shape (N, K).

    softmax of the mean of the logits over all epochs. A row is the same whatever rows are beside
    it.

    Parameters
    ----------
    networks
        From `fit_networks`.
    features, fold
        Of the items, shapes (N, D) and (N,).
    """
    n, n_classes = len(features), networks.out.shape[3]
    probs = np.empty((n, n_classes), np.float32)
    x = (features.astype(np.float32) - networks.center) / networks.scale
    for f in np.unique(fold).tolist():
        rows, layers = np.flatnonzero(fold == f), [array[:, f].copy() for array in networks[2:]]
        for start in range(0, len(rows), BLOCK_ROWS):
            some = rows[start : start + BLOCK_ROWS]
            inputs, total = x[some], np.zeros((len(some), n_classes))
            for into, into_bias, out, out_bias in zip(*layers, strict=True):
                total += affine(np.maximum(affine(inputs, into, into_bias), 0), out, out_bias)
            probs[some] = softmax(total / len(networks.out), axis=1)
    return probs
