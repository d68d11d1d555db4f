"""Published ways to learn from class counts of bags: objectives for `labelops.nn.bags.fit`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labelops.nn.bag_losses import bag_divergence, soft_cross_entropy
from labelops.nn.bags import Batch, Objective, shares_of

# N items, B bags, K classes

Posterior = Callable[[np.ndarray], np.ndarray]
"""From logits (N, K) to beliefs (N, K) that the counts of bags have been brought into."""


def easy_weights(sizes: Tensor, shares: Tensor, prior: Tensor) -> Tensor:
    """Return the weights of EasyLLP, one a bag and class.

    w_bk = n_b (α_bk − π_k) + π_k; rows sum to one, single weights may be negative.

    Parameters
    ----------
    sizes
        n_b, shape (B,).
    shares
        α, shape (B, K).
    prior
        π, shares of all items, shape (K,).

    Notes
    -----
    For bags drawn at random from independent items, E w_bk given an item of class c is [k = c], so
    the weighted loss is unbiased. For bags that have something in common it is not.

    References
    ----------
    Busa-Fekete, Choi, Dick, Gentile, Munoz Medina: Easy learning from label proportions. NeurIPS
    2023, section 4.

    Examples
    --------
    >>> half = torch.tensor([0.5, 0.5])
    >>> easy_weights(torch.tensor([2.0]), torch.tensor([[1.0, 0.0]]), half).tolist()
    [[1.5, -0.5]]
    """
    return sizes[:, None] * (shares - prior) + prior


class Proportions(Objective):
    """DLLP: the mean prediction of a bag is to be its share. See `bag_divergence`.

    Parameters
    ----------
    start, counts
        As in `fit`.
    """

    def __init__(self, start: np.ndarray, counts: np.ndarray) -> None:
        self.shares = shares_of(start, counts)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean divergence of the bags."""
        return bag_divergence(logits, batch.bag, self.shares[batch.bags]).mean()


class Unbiased(Objective):
    """EasyLLP: cross-entropy with weights that make it unbiased for random bags.

    Parameters
    ----------
    start, counts
        As in `fit`.
    """

    def __init__(self, start: np.ndarray, counts: np.ndarray) -> None:
        prior = torch.from_numpy((counts.sum(axis=0) / counts.sum()).astype(np.float32))
        sizes = torch.from_numpy(np.diff(start).astype(np.float32))
        self.weights = easy_weights(sizes, shares_of(start, counts), prior)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over items; may be negative."""
        return soft_cross_entropy(logits, self.weights[batch.bags][batch.bag]).mean()


class OwnBeliefs(Objective):
    """Soft labels that are made anew each epoch, from the network's logits and the counts.

    With the exact posterior given the counts this is LLP-EM (each epoch begins with the E-step and
    is the M-step); with `labelops.proportions.transport` it is learning from transported
    pseudo-labels.

    Parameters
    ----------
    posterior
        Brings counts into logits.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.targets = torch.zeros(0)

    def e_step(self, logits: Callable[[], np.ndarray]) -> None:
        """Make the soft labels of an epoch."""
        self.targets = torch.from_numpy(self.posterior(logits()).astype(np.float32))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of items."""
        return soft_cross_entropy(logits, self.targets[batch.items]).mean()
