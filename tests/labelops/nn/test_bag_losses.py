"""Oracles: the formulas written with loops, autograd."""

import numpy as np
import pytest
import torch

from labelops.nn.bag_losses import (
    bag_divergence,
    log_bag_means,
    soft_cross_entropy,
)

BAG = torch.tensor([0, 0, 1, 0, 2, 2])


def logits(seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(6, 3, generator=generator, dtype=torch.float64)


def test_log_bag_means__is_the_log_of_the_mean_probability_not_the_mean_of_logs():
    z = logits()
    log_means = log_bag_means(z, BAG, 3)
    p = torch.softmax(z, dim=1)
    want = torch.stack([p[b == BAG].mean(dim=0).log() for b in range(3)])
    torch.testing.assert_close(log_means, want)
    geometric = torch.stack([p[b == BAG].log().mean(dim=0) for b in range(3)])
    assert not torch.allclose(log_means[[0, 2]], geometric[[0, 2]], atol=0.01)


def test_log_bag_means__stays_finite_for_certain_logits():
    z = torch.tensor([[900.0, 0.0], [900.0, 0.0]], requires_grad=True)
    log_means = log_bag_means(z, torch.tensor([0, 0]), 1)
    assert log_means.detach().tolist() == [[0, -900]]
    log_means.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_divergence__is_kl_and_zero_only_where_shares_are_met():
    z = logits(1)
    shares = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]).double()
    divergence = bag_divergence(z, BAG, shares)
    mean = log_bag_means(z, BAG, 3).exp().numpy()
    for b in range(3):
        terms = [s * np.log(s / m) for s, m in zip(shares[b].numpy(), mean[b], strict=True) if s]
        assert float(divergence[b]) == pytest.approx(sum(terms))
    met = log_bag_means(z, BAG, 3).exp()
    torch.testing.assert_close(
        bag_divergence(z, BAG, met), torch.zeros(3).double(), atol=1e-12, rtol=0
    )


def test_divergence__gradient_is_that_of_differences():
    shares = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]).double()
    z = logits(2).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: bag_divergence(z, BAG, shares), z)


def test_divergence__does_not_depend_on_the_order_of_items_or_bags():
    z, shares = logits(3), torch.full((3, 3), 1 / 3, dtype=torch.float64)
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    torch.testing.assert_close(
        bag_divergence(z[order], BAG[order], shares), bag_divergence(z, BAG, shares)
    )


def test_soft_cross_entropy__of_one_hot_targets_is_the_log_loss():
    z, y = logits(4), torch.tensor([0, 1, 2, 2, 1, 0])
    want = torch.nn.functional.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(z, torch.eye(3).double()[y]), want)
