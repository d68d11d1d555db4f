"""Ways to learn from the class counts of bags, as objectives for `labelops.nn.bags.fit`."""

# N items, B bags, K classes

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labelops.nn.bag_losses import bag_divergence, easy_weights, soft_cross_entropy
from labelops.nn.bags import Batch, Objective

Posterior = Callable[[np.ndarray], np.ndarray]
"""From logits (N, K) to beliefs (N, K) that the counts of bags have been brought into."""


def _shares(start: np.ndarray, counts: np.ndarray) -> Tensor:
    return torch.from_numpy((counts / np.diff(start)[:, None]).astype(np.float32))


class Proportions(Objective):
    """DLLP: the mean prediction of a bag is to be its share. See `bag_divergence`.

    Parameters
    ----------
    start, counts
        As in `fit`.
    """

    def __init__(self, start: np.ndarray, counts: np.ndarray) -> None:
        self.shares = _shares(start, counts)

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
        self.weights = easy_weights(sizes, _shares(start, counts), prior)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over items; may be negative."""
        return soft_cross_entropy(logits, self.weights[batch.bags][batch.bag]).mean()


class SoftLabels(Objective):
    """Fixed soft labels, beside the counts if wanted.

    Parameters
    ----------
    targets
        Beliefs; one-hot rows for a supervised network, shape (N, K).
    start, counts
        As in `fit`.
    bag_weight
        λ of the divergence of bags beside the cross-entropy of items.

    References
    ----------
    Havaldar et al.: Learning from label proportions: bootstrapping supervised learners via belief
    propagation. ICLR 2024 (there the share of a bag is predicted from its mean embedding).
    """

    def __init__(
        self,
        targets: np.ndarray,
        start: np.ndarray,
        counts: np.ndarray,
        *,
        bag_weight: float = 0.0,
    ) -> None:
        self.targets = torch.from_numpy(np.asarray(targets, np.float32))
        self.bag_weight = bag_weight
        self.shares = _shares(start, counts)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of items, plus λ times that of bags."""
        loss = soft_cross_entropy(logits, self.targets[batch.items]).mean()
        if self.bag_weight:
            divergence = bag_divergence(logits, batch.bag, self.shares[batch.bags])
            loss = loss + self.bag_weight * divergence.mean()
        return loss

    def judge(self, logits: Tensor, held_out: Batch, bag_loss: Tensor) -> Tensor:
        """Return the loss of the items of held-out bags.

        Of a few large bags the counts alone say next to nothing about an epoch.
        """
        return self.loss(logits, held_out)


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
