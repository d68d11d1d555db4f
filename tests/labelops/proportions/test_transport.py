"""Oracles: the paper's Sinkhorn loop, the optimal plan's conditions, two classes by bisection."""

import numpy as np
import pytest
from scipy.optimize import brentq, linear_sum_assignment

from labelops.proportions.transport import transport


def sinkhorn(z: np.ndarray, counts: np.ndarray, regulariser: float, n: int = 20_000) -> np.ndarray:
    """Cuturi's loop on one bag."""
    kernel = np.exp(z / regulariser)
    v = np.ones(z.shape[1])
    for _ in range(n):
        u = 1 / (kernel @ v)
        v = counts / (kernel.T @ u)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("regulariser", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_transport__is_what_sinkhorn_ends_at(seed, regulariser):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, (12, 4))
    counts = rng.multinomial(12, np.ones(4) / 4)
    plan = transport(z, np.array([0, 12]), counts[None], regulariser=regulariser)
    assert plan.converged.all()
    # Sinkhorn's columns are exact and its rows converge linearly.
    np.testing.assert_allclose(plan.beliefs, sinkhorn(z, counts, regulariser), atol=1e-8)


def test_transport__of_two_classes_is_a_shift_of_the_log_odds():
    rng = np.random.default_rng(0)
    q = rng.normal(0, 3, 50)
    plan = transport(np.stack([0 * q, q], 1), np.array([0, 50]), np.array([[41.5, 8.5]]))
    theta = brentq(lambda t: (1 / (1 + np.exp(-q - t))).sum() - 8.5, -50, 50, xtol=1e-13)
    np.testing.assert_allclose(plan.beliefs[:, 1], 1 / (1 + np.exp(-q - theta)), atol=1e-11)


@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_transport__meets_rows_and_counts_however_sure_the_logits(spread):
    rng = np.random.default_rng(1)
    sizes = np.array([1, 8, 100, 2000, 8])
    start = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.stack([rng.multinomial(n, [0.7, 0.25, 0.05]) for n in sizes])
    z = rng.normal(0, spread, (sizes.sum(), 3))
    plan = transport(z, start, counts)
    assert plan.converged.all()
    np.testing.assert_allclose(plan.beliefs.sum(axis=1), 1, atol=1e-13)
    off = np.abs(np.add.reduceat(plan.beliefs, start[:-1]) - counts).max(axis=1)
    np.testing.assert_allclose(off, plan.count_error, atol=1e-12)
    assert (off <= 1e-12 * sizes).all()


def test_transport__small_regularisers_end_at_the_best_assignment():
    rng = np.random.default_rng(2)
    z, counts = rng.normal(0, 1, (9, 3)), np.array([4, 3, 2])
    slots = np.repeat(np.arange(3), counts)
    rows, columns = linear_sum_assignment(-z[:, slots])
    want = np.eye(3)[slots[columns[np.argsort(rows)]]]
    plan = transport(z, np.array([0, 9]), counts[None], regulariser=0.005)
    np.testing.assert_allclose(plan.beliefs, want, atol=1e-3)


def test_transport__bags_items_and_classes_can_be_permuted_and_repeated():
    rng = np.random.default_rng(3)
    z, counts = rng.normal(0, 2, (10, 3)), np.array([[5, 3, 2]])
    beliefs = transport(z, np.array([0, 10]), counts).beliefs
    order = rng.permutation(10)
    moved = transport(z[order][:, [1, 2, 0]], np.array([0, 10]), counts[:, [1, 2, 0]]).beliefs
    np.testing.assert_allclose(moved, beliefs[order][:, [1, 2, 0]], atol=1e-11)
    twice = transport(np.repeat(z, 2, axis=0), np.array([0, 20]), 2 * counts).beliefs
    np.testing.assert_allclose(twice[::2], beliefs, atol=1e-11)


def test_transport__an_unfinished_plan_says_so():
    z = np.random.default_rng(4).normal(0, 5, (30, 3))
    plan = transport(z, np.array([0, 30]), np.array([[20, 5, 5]]), max_steps=1)
    assert not plan.converged.any()
    assert plan.count_error[0] > 1e-3


def test_transport__corners():
    assert transport(np.zeros((0, 2)), np.array([0]), np.zeros((0, 2))).beliefs.shape == (0, 2)
    one = transport(np.array([[3.0, 0.0]]), np.array([0, 1]), np.array([[0.0, 1.0]]))
    assert one.beliefs.tolist() == [[0, 1]]
    assert one.shift.tolist() == [[-np.inf, 0]]
    with pytest.raises(ValueError, match=r"regulariser must be above 0, got 0"):
        transport(np.zeros((1, 2)), np.array([0, 1]), np.array([[0, 1]]), regulariser=0)
