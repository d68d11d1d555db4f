"""Oracles: scipy's exact binomial interval, and coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from labelops.gate import (
    Evidence,
    expected_gain,
    judge,
    measured_gain,
    share_interval,
    variance,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (7, 30), (30, 30), (499, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.975])
def test_share_interval__is_scipys_exact_one(hits, n, level):
    want = binomtest(hits, n).proportion_ci(confidence_level=level, method="exact")
    got = share_interval(hits, n, level=level)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)


def test_share_interval__of_nothing_is_everything():
    assert share_interval(0, 0)[1:] == (0, 1)


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("shares", [(0.9, 0.05), (0.5, 0.5), (0.6, 0.1), (0.02, 0.01)])
def test_measured_gain__covers_at_least_as_often_as_it_says(n, shares):
    rng = np.random.default_rng(n)
    draws = rng.multinomial(n, [*shares, 1 - sum(shares)], size=600)
    true = shares[0] - shares[1]
    inside = [
        gain.low <= true <= gain.high
        for gain in (measured_gain(int(f), int(b), n) for f, b, _ in draws)
    ]
    # 600 draws: 0.95 minus three standard errors.
    assert np.mean(inside) >= 0.923


@pytest.mark.parametrize("overconfident", [0.0, 0.05, 0.09])
def test_expected_gain__covers_when_beliefs_promise_up_to_a_tenth_too_much(overconfident):
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        p_new = rng.uniform(0.9, 1.0, 60)
        p_given = (1 - p_new) * rng.random(60)
        u = rng.random(60)
        fixed = u < p_new - overconfident
        broken = u > 1 - p_given
        evidence = Evidence(60, p_new.sum(), p_given.sum(), variance(p_new, p_given).sum(), 0, 0, 0)
        gain = expected_gain(evidence)
        inside.append(gain.low <= (fixed.sum() - broken.sum()) / 60 <= gain.high)
    assert np.mean(inside) >= 0.93


def test_variance__is_that_of_the_three_outcomes():
    for p_new, p_given in [(0.7, 0.2), (0.9, 0.1), (1.0, 0.0), (0.3, 0.3)]:
        outcomes, p = np.array([1, -1, 0]), np.array([p_new, p_given, 1 - p_new - p_given])
        want = (p * outcomes**2).sum() - (p * outcomes).sum() ** 2
        assert variance(np.array([p_new]), np.array([p_given]))[0] == pytest.approx(want)


def test_judge__a_rule_that_breaks_as_much_as_it_fixes_is_held_back():
    verdict = judge(Evidence(200, 180, 10, 15, 40, 18, 17), must_be_measured=False)
    assert not verdict.ships
    assert verdict.is_measured
    assert "18 fixed, 17 broken" in verdict.why
    assert "held back" in verdict.why


def test_judge__expectation_is_called_so_and_is_not_enough_when_measure_is_asked_for():
    evidence = Evidence(200, 195, 2, 5, 0, 0, 0)
    verdict = judge(evidence, must_be_measured=False)
    assert verdict.ships
    assert not verdict.is_measured
    assert verdict.why.startswith("expected, not measured: gain +0.9")
    assert not judge(evidence, must_be_measured=True).ships


def test_judge__nothing_proposed_ships_nothing():
    assert not judge(Evidence(0, 0, 0, 0, 0, 0, 0), must_be_measured=False).ships


def test_judge__doubtful_beliefs_do_not_ship():
    # 55 % against 42 %: the mean gain of 0.13 is hardly above the allowance.
    e = Evidence(50, 27.5, 21.0, 50 * 0.95, 0, 0, 0)
    assert not judge(e, must_be_measured=False).ships
