"""Oracles: the definition in `labelops.proportions`; finite differences; covariances by listing."""

import numpy as np
import pytest
import torch
from hypothesis import given as examples
from hypothesis import settings

from labelops.nn import cardinality as nn
from labelops.nn.cardinality import marginals
from labelops.proportions import cardinality as plain
from labelops.proportions.counts import (
    Counts,
    free_counts,
    hard_counts,
    interval_counts,
    join_counts,
    soft_counts,
)
from tests.labelops.proportions.data import KINDS, make_bags, small_bags
from tests.oracles.bags import labelings


def assert_same(found, want):
    np.testing.assert_allclose(found.beliefs.numpy(), want.beliefs, atol=1e-14)
    np.testing.assert_allclose(
        found.log_evidence.numpy(), want.log_evidence, rtol=1e-13, atol=1e-11
    )


@settings(max_examples=40)
@examples(bags=small_bags())
def test_small_bags__are_those_of_the_definition(bags):
    q, start, counts = bags
    assert_same(marginals(torch.from_numpy(q), start, counts), plain.marginals(q, start, counts))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.0, 2.0, 60.0])
def test_bags_of_many_sizes__are_those_of_the_definition(kind, spread, monkeypatch):
    # So that bags of one size come in several blocks.
    monkeypatch.setattr(nn, "CELLS", 2000)
    monkeypatch.setitem(nn.STEP_CELLS, "cpu", 30)
    sizes = [0, 1, 40, 2, 17, 7, 120, 7, 7, 30, 31, 1]
    q, start, counts = make_bags(1, sizes, spread=spread, kind=kind)
    assert_same(marginals(torch.from_numpy(q), start, counts), plain.marginals(q, start, counts))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_gradients__are_those_of_finite_differences(seed, kind):
    q, start, counts = make_bags(seed, [3, 1, 6, 0, 5], kind=kind)
    x = torch.from_numpy(q).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: marginals(x, start, counts), (x,), atol=1e-7)


def test_gradient_of_beliefs__is_the_covariance_of_labels_given_the_count():
    q = np.random.default_rng(2).normal(0, 2, 8)
    y = labelings(8)
    y = y[y.sum(1) == 3]
    weight = np.exp(y @ q)
    weight /= weight.sum()
    mean = weight @ y
    want = (y * weight[:, None]).T @ y - np.outer(mean, mean)
    found = torch.autograd.functional.jacobian(
        lambda x: marginals(x, np.array([0, 8]), hard_counts(np.array([3]))).beliefs,
        torch.from_numpy(q),
    )
    np.testing.assert_allclose(found.numpy(), want, atol=1e-14)


def test_gradient_of_evidence__is_belief_minus_probability():
    q, start, counts = make_bags(5, [4, 60, 200])
    x = torch.from_numpy(q).requires_grad_(True)
    found = marginals(x, start, counts)
    found.log_evidence.sum().backward()
    want = plain.marginals(q, start, counts).beliefs - 1 / (1 + np.exp(-q))
    np.testing.assert_allclose(x.grad.numpy(), want, atol=1e-13)


@pytest.mark.parametrize("size", [200, 600])
def test_gradients_in_large_bags__are_those_of_central_differences(size):
    rng = np.random.default_rng(size)
    q, start = rng.normal(-1, 2, size), np.array([0, size])
    along, seen = rng.normal(size=size), rng.normal(size=size)
    for counts in (
        hard_counts(np.array([size // 3])),
        soft_counts(np.array([size / 2.3]), strength=0.1),
        interval_counts(np.array([size // 2]), np.array([size])),
    ):
        x = torch.from_numpy(q).requires_grad_(True)
        (marginals(x, start, counts).beliefs @ torch.from_numpy(seen)).backward()
        step = 1e-5
        ends = [plain.marginals(q + s * step * along, start, counts).beliefs for s in (1, -1)]
        want = (ends[0] - ends[1]) @ seen / (2 * step)
        # The third derivative times 1e-10, and rounding of 1e-14 · √n divided by the step.
        assert float(x.grad @ torch.from_numpy(along)) == pytest.approx(want, abs=1e-7)


def test_beliefs_of_an_exact_count__do_not_change_along_a_shift_of_all():
    q, start, counts = make_bags(3, [40, 9], kind="hard")
    x = torch.from_numpy(q).requires_grad_(True)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=49))
    (marginals(x, start, counts).beliefs @ weights).backward()
    # Rows of the covariance sum to 0.
    np.testing.assert_allclose(np.add.reduceat(x.grad.numpy(), start[:-1]), 0, atol=1e-13)


def test_bags_all_of_one_kind__have_no_gradient():
    x = torch.tensor([3.0, -40, 0, 700, -700], dtype=torch.float64, requires_grad=True)
    counts = hard_counts(np.array([0, 2]))
    found = marginals(x, np.array([0, 3, 5]), counts)
    assert found.beliefs.tolist() == [0, 0, 0, 1, 1]
    found.beliefs.sum().backward()
    assert x.grad.tolist() == [0] * 5


def test_single_precision__is_computed_in_double_and_returned_in_single():
    q, start, counts = make_bags(4, [30])
    single = torch.from_numpy(q.astype(np.float32)).requires_grad_(True)
    found = marginals(single, start, counts)
    assert found.beliefs.dtype == found.log_evidence.dtype == torch.float32
    want = plain.marginals(q.astype(np.float32), start, counts)
    np.testing.assert_allclose(found.beliefs.detach(), want.beliefs, rtol=1e-6)
    found.log_evidence.sum().backward()
    assert single.grad.dtype == torch.float32


def test_loss_of_counts__teaches_a_line_which_items_are_positive():
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    true = rng.random(2000) < 1 / (1 + np.exp(-(3 * x - 1)))
    start = np.arange(0, 2001, 10)
    counts = hard_counts(np.add.reduceat(true.astype(int), start[:-1]))
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    points = torch.from_numpy(x)
    optimiser = torch.optim.LBFGS([weight], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -marginals(weight[0] * points + weight[1], start, counts).log_evidence.mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    # About three standard errors of the maximum of the likelihood at this size.
    np.testing.assert_allclose(weight.detach().numpy(), [3, -1], atol=0.6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_log_odds__must_be_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        marginals(torch.tensor([0.0, bad]), np.array([0, 2]), free_counts(1))


def test_impossible_counts__are_refused():
    with pytest.raises(ValueError, match="bag 0 must lie in"):
        marginals(torch.zeros(2), np.array([0, 2]), hard_counts(np.array([3])))


def test_empty__gives_nothing():
    found = marginals(torch.zeros(0), np.array([0]), Counts(*join_counts([free_counts(0)])))
    assert found.beliefs.shape == found.log_evidence.shape == (0,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu__agrees_with_the_cpu():
    q, start, counts = make_bags(6, [5, 60, 130])
    found = marginals(torch.from_numpy(q).cuda(), start, counts)
    np.testing.assert_allclose(
        found.beliefs.cpu().numpy(), plain.marginals(q, start, counts).beliefs, atol=1e-13
    )
