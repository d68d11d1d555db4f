"""Oracles: the exact probability of a count, differences of the likelihood, bisection."""

import numpy as np
import pytest
from scipy.optimize import brentq

from labelops.proportions import likelihood
from labelops.proportions.cardinality import marginals, sigmoid
from labelops.proportions.counts import hard_counts
from labelops.proportions.likelihood import count_curvature, count_fit, count_tilt
from tests.oracles.bags import labelings, listed_posterior, log_sum


def draw(n, *, seed):
    rng = np.random.default_rng(seed)
    q = rng.normal(2 * rng.normal(), rng.choice([0.3, 1, 3]), n)
    return q, np.array([0, n]), np.array([rng.integers(0, n + 1)])


# The largest error of the saddle point over many more draws of this kind, rounded up.
@pytest.mark.parametrize(("n", "near"), [(1, 1e-12), (2, 0.22), (8, 0.25), (40, 0.1), (200, 0.02)])
def test_count_fit__is_near_the_exact_log_probability(n, near):
    for seed in range(40):
        q, start, k = draw(n, seed=seed)
        exact = marginals(q, start, hard_counts(k)).log_evidence[0]
        assert count_fit(q, start, k).log_likelihood[0] == pytest.approx(exact, abs=near)


@pytest.mark.parametrize("size", [50.0, 1e3, 1e6])
def test_count_fit__log_odds_of_any_size_are_near_all_labelings(size):
    y, start = labelings(8), np.array([0, 8])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        q = rng.normal(0, 1, 8) + size * rng.choice([-1, 0, 1], 8)
        for k in range(9):
            has = y[y.sum(1) == k]
            log_weight = has @ q
            log_p = log_sum(log_weight) - np.logaddexp(0, q).sum()
            fit = count_fit(q, start, np.array([k]))
            assert fit.log_likelihood[0] == pytest.approx(log_p, rel=1e-12, abs=0.25)
            gradient = listed_posterior(has, log_weight) - sigmoid(q)
            np.testing.assert_allclose(fit.gradient, gradient, atol=0.1)
            curvature = count_curvature(q, start, np.array([k]), fit.tilt)
            assert all(np.isfinite(values).all() for values in curvature)


@pytest.mark.parametrize("k", [0, 5])
def test_count_fit__is_exact_where_the_count_leaves_no_choice(k):
    q = np.array([0.5, -3, 8, 0, 1.0])
    fit = count_fit(q, np.array([0, 5]), np.array([k]))
    sign = 1 if k else -1
    assert fit.log_likelihood[0] == pytest.approx(np.log(sigmoid(sign * q)).sum())
    np.testing.assert_allclose(fit.gradient, (k > 0) - sigmoid(q))


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_count_fit__gradient_is_that_of_differences(n):
    for seed in range(10):
        q, start, k = draw(n, seed=seed)
        step = 1e-5
        slopes = [
            (
                count_fit(q + step * e, start, k).log_likelihood[0]
                - count_fit(q - step * e, start, k).log_likelihood[0]
            )
            / (2 * step)
            for e in np.eye(n)
        ]
        # Second differences of order step², rounding of order 1e-15 / step.
        np.testing.assert_allclose(count_fit(q, start, k).gradient, slopes, atol=1e-7)


def test_count_tilt__expects_the_counts_of_all_bags():
    rng = np.random.default_rng(0)
    sizes = np.array([1, 3, 50, 2000, 7])
    start = np.concatenate([[0], np.cumsum(sizes)])
    q = rng.normal(0, 4, sizes.sum())
    k = np.array([1, 0, 49, 3, 4])
    theta = count_tilt(q, start, k)
    assert theta[:2].tolist() == [np.inf, -np.inf]
    for b in (2, 3, 4):
        bag = q[start[b] : start[b + 1]]
        want = brentq(lambda t, bag=bag, k=k[b]: sigmoid(bag + t).sum() - k, -60, 60, xtol=1e-12)
        assert theta[b] == pytest.approx(want, abs=1e-7)


def test_count_tilt__takes_few_steps_however_many_bags(monkeypatch):
    seen = []
    monkeypatch.setattr(likelihood, "sigmoid", lambda x: (seen.append(1), sigmoid(x))[1])
    rng = np.random.default_rng(0)
    for size in (2, 8, 32):
        start = np.arange(0, 300 * size + 1, size)
        seen.clear()
        count_tilt(rng.normal(0, 2, 300 * size), start, rng.integers(0, size + 1, 300))
        # Bags that were there already used to be sent away by the wait for the others: 40 steps.
        assert len(seen) < 15


def test_count_fit__the_likelihood_has_a_maximum_however_certain_the_items():
    # With −½ log V alone, certain items would be infinitely likely.
    start, k = np.array([0, 2]), np.array([1])
    values = [
        count_fit(np.array([t, -t]), start, k).log_likelihood[0] for t in (1.0, 5.0, 20.0, 35.0)
    ]
    assert (np.diff(values) >= 0).all()
    assert values[-1] <= 1e-12
