"""Oracles: simulation with known rates; scipy's distributions; closed ends."""

import numpy as np
import pytest
from scipy import stats

from labelops.confident.intervals import class_intervals, total_interval


def simulate(rng, rates, sizes, counted):
    """Draw items of each class, wrong with its rate, and count some of them."""
    n_classes = len(rates)
    n_counted = rng.binomial(sizes, counted)
    n_wrong = rng.binomial(n_counted, rates)
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.fill_diagonal(counts, n_counted - n_wrong)
    counts[np.arange(n_classes), (np.arange(n_classes) + 1) % n_classes] += n_wrong
    return counts


SETTINGS = {
    "few classes": ([0.02, 0.1, 0.3], [400, 300, 200], 0.6),
    "rare errors": ([0.005, 0.002], [2000, 3000], 0.7),
    "many small classes": (np.linspace(0.01, 0.2, 100), np.full(100, 12), 0.5),
    "tiny classes": (np.linspace(0.0, 0.3, 200), np.full(200, 5), 0.6),
    "unequal classes": ([0.4, 0.05, 0.05, 0.2], [20, 5000, 300, 40], 0.6),
    "heavy noise": ([0.6, 0.45, 0.5], [500, 100, 900], 0.4),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_total_interval__covers_the_true_rate_as_often_as_it_says(name):
    rates, sizes, counted = (np.asarray(value) for value in SETTINGS[name])
    rng = np.random.default_rng(2)
    truth = float(np.sum(rates * sizes) / sizes.sum())
    trials = 1000
    covered = 0
    for _ in range(trials):
        low, high = total_interval(simulate(rng, rates, sizes, counted), sizes)
        covered += low <= truth <= high
    # Three standard errors of 1000 trials are 0.021.
    assert 0.93 <= covered / trials <= 0.985


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_class_intervals__cover_the_true_rate_on_average(rate):
    rng = np.random.default_rng(3)
    rates, sizes = np.full(50, rate), np.full(50, 300)
    covered = []
    for _ in range(100):
        ends = class_intervals(simulate(rng, rates, sizes, 0.6))
        covered.append((ends.low <= rate) & (rate <= ends.high))
    # Jeffreys' coverage swings around its level with n and p.
    assert 0.925 <= np.mean(covered) <= 0.98


def test_class_intervals__are_quantiles_of_the_posterior():
    counts = np.array([[40, 3, 2], [0, 10, 1], [4, 4, 0]])
    ends = class_intervals(counts)
    wrong, right = np.array([5, 1, 8]), np.array([40, 10, 0])
    posterior = stats.beta(wrong + 0.5, right + 0.5)
    assert np.allclose(ends.low, posterior.ppf(0.025))
    assert np.allclose(ends.high[:2], posterior.ppf(0.975)[:2])
    assert ends.high[2] == 1


def test_total_interval__of_one_class_is_nearly_the_interval_of_that_class():
    counts = np.array([[900, 100], [0, 0]])
    low, high = total_interval(counts, np.array([1500, 0]))
    ends = class_intervals(counts)
    assert (low, high) == pytest.approx((ends.low[0], ends.high[0]), abs=1e-3)


def test_total_interval__closes_at_nought_and_opens_without_counts():
    assert total_interval(np.diag([50, 50]), np.array([60, 60]))[0] == 0
    assert total_interval(np.array([[0, 9], [8, 0]]), np.array([10, 10]))[1] == 1
    assert total_interval(np.zeros((2, 2), int), np.array([5, 5])) == (0.0, 1.0)


def test_intervals__shrink_with_the_root_of_the_counts():
    counts = np.array([[90, 10], [5, 45]])
    widths = []
    for factor in (1, 100):
        low, high = total_interval(counts * factor, np.array([150, 80]) * factor)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.1)
