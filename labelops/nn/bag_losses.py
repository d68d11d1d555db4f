"""Losses for networks that are fitted to the class counts of bags.

A batch holds whole bags. `bag` says to which of the batch's bags an item belongs, `shares` what
part of each bag each class has.
"""

# N items, B bags, K classes

import torch
from torch import Tensor
from torch.nn import functional


def log_bag_means(logits: Tensor, bag: Tensor, n_bags: int) -> Tensor:
    """Return the log of the mean probability of every class in every bag.

    log (1 / n_b) Σ_{i ∈ b} softmax(z_i)_k, by log-sum-exp. Each bag 0 … B − 1 has an item.

    Returns
    -------
    Shape (B, K); rows of the exponentials sum to one.

    Notes
    -----
    The mean of log-probabilities instead, a geometric mean, is not what a count is a sum of.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> log_bag_means(z, torch.tensor([0, 0]), 1).exp().tolist()
    [[0.5, 0.5]]
    """
    log_p = functional.log_softmax(logits, dim=1)
    index = bag[:, None].expand_as(log_p)
    top = torch.full((n_bags, log_p.shape[1]), -torch.inf, dtype=log_p.dtype, device=log_p.device)
    top = top.scatter_reduce(0, index, log_p.detach(), "amax")
    total = torch.zeros_like(top).index_add(0, bag, (log_p - top[bag]).exp())
    size = torch.bincount(bag, minlength=n_bags).to(log_p.dtype)
    return total.log() + top - size.log()[:, None]


def bag_divergence(logits: Tensor, bag: Tensor, shares: Tensor) -> Tensor:
    """Return how far the mean prediction of every bag is from its shares, in nats.

    KL(α_b ‖ mean_{i ∈ b} softmax(z_i)), rows of α sum to one, shape (B, K); its mean over bags is
    the loss of DLLP. See `log_bag_means`.

    Returns
    -------
    Shape (B,), ≥ 0. Times the size of the bag: about minus the log-likelihood of its counts.

    References
    ----------
    Ardehaly, Culotta: Co-training for demographic classification using deep learning from label
    proportions. ICDM workshops 2017.

    Examples
    --------
    >>> z = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    >>> round(bag_divergence(z, torch.tensor([0, 0]), torch.tensor([[0.5, 0.5]])).item(), 6)
    0.0
    """
    log_means = log_bag_means(logits, bag, len(shares))
    # 0 log 0 = 0, also where the prediction of an absent class is −∞.
    log_means = torch.where(shares > 0, log_means, torch.zeros_like(log_means))
    entropy = -torch.special.entr(shares).sum(dim=1)
    divergence: Tensor = entropy - (shares * log_means).sum(dim=1)
    return divergence.clamp(min=0.0)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −Σ_k t_k log softmax(z)_k of every item; weights t may be of any sign.

    Examples
    --------
    >>> z = torch.zeros(1, 2)
    >>> round(soft_cross_entropy(z, torch.tensor([[1.5, -0.5]])).item(), 4)
    0.6931
    """
    loss: Tensor = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return loss
