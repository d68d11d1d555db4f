"""Small networks on an embedding, one a fold, each heard all along its training.

A network first learns what the items of a class have in common and later what is peculiar to each,
wrong labels included. So its opinion of an item that it was not trained on is the mean of what it
said after every epoch; margins averaged over training are a published sign of wrong labels.
"""

# N items, D features, H hidden units, K classes, F folds, E epochs

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from labelops.nn.shallow import EPOCHS, Networks, Say, say, train_networks


class CrossEntropy:
    """Mean over a batch of −log softmax(z)_given.

    Parameters
    ----------
    given
        Class ids, shape (N,).
    """

    def __init__(self, given: np.ndarray) -> None:
        self.given = torch.from_numpy(np.asarray(given, np.int64))

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `Objective`."""
        target = self.given[rows].repeat(len(logits))
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target, reduction="none")
        return (losses * outside.flatten().to(losses.dtype)).sum() / max(len(rows), 1)

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Nothing changes."""


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
    return train_networks(
        features,
        fold,
        CrossEntropy(given),
        n_outputs=n_classes,
        n_folds=n_folds,
        seed=seed,
        epochs=epochs,
    )


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
    return np.asarray(softmax(say(networks, features, fold), axis=1).astype(np.float32))
