"""Oracles: the normal distribution in closed form, and planted overdispersion."""

import numpy as np
import pytest
from scipy.stats import norm

from labelops.overdispersion import deviations, dispersion, widened_p_values
from labelops.proportions.tail import false_discovery_rates


def tails(z: np.ndarray) -> np.ndarray:
    """Log of the smaller tail of normal deviations."""
    return np.asarray(norm.logsf(np.abs(z)))


def test_deviations__are_those_of_the_normal_distribution_also_far_out() -> None:
    z = np.array([0.0, 0.5, 3.0, 30.0, 300.0])
    np.testing.assert_allclose(deviations(tails(z)), z, rtol=1e-9, atol=1e-12)
    assert deviations(np.array([-np.inf]))[0] == np.inf


@pytest.mark.parametrize("factor", [1.0, 4.0, 25.0])
def test_dispersion__finds_a_planted_factor_in_spite_of_a_few_wild_ones(factor: float) -> None:
    z = np.random.default_rng(0).normal(size=20_000) * np.sqrt(factor)
    z[:200] = 1000
    # Standard error of the median of z², and one per cent of outliers: some three per cent.
    assert dispersion(tails(z)) == pytest.approx(factor, rel=0.06)


def test_dispersion__is_never_below_1() -> None:
    assert dispersion(tails(np.random.default_rng(0).normal(size=500) / 3)) == 1.0


def test_widened__are_the_p_values_of_a_normal_of_that_variance() -> None:
    z = np.array([0.0, 1.0, 5.0, 20.0])
    wanted = 2 * norm.sf(z / 3)
    np.testing.assert_allclose(widened_p_values(tails(z), dispersion=9.0), wanted, rtol=1e-9)


def test_widened__keep_the_order_and_an_impossible_count_is_0() -> None:
    log_tails = np.array([-1.0, -50.0, -np.inf, -800.0])
    p = widened_p_values(log_tails, dispersion=2.0)
    assert np.argsort(p).tolist() == [2, 3, 1, 0]
    assert p[2] == 0.0


@pytest.mark.parametrize("n_possible", range(4))
def test_widened__where_most_counts_are_impossible_these_are_0_and_no_other_is_improbable(
    n_possible: int,
) -> None:
    log_tails = np.array([-np.inf] * 3 + [-1.0, -60.0, -800.0][:n_possible])
    assert dispersion(log_tails) == np.inf
    p = widened_p_values(log_tails, dispersion=np.inf)
    assert p.tolist() == [0.0] * 3 + [1.0] * n_possible
    # Not a number is no p-value.
    assert (false_discovery_rates(p)[:3] == 0).all()
