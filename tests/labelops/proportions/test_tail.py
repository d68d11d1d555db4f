"""Oracles: all labelings, the binomial distribution, scipy's correction, planted wrong counts."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from scipy import stats

from labelops.fast.cardinality import marginals as fast
from labelops.proportions.cardinality import marginals
from labelops.proportions.tail import (
    count_tails,
    false_discovery_rates,
)
from tests.labelops.proportions.data import starts
from tests.oracles.bags import labelings, log_sum


def listed_distribution(p: np.ndarray) -> np.ndarray:
    y = labelings(len(p))
    weight = np.where(y == 1, p, 1 - p).prod(1)
    return np.bincount(y.sum(1).astype(int), weight, len(p) + 1)


@pytest.mark.parametrize("find", [marginals, fast])
@examples(seed=st.integers(0, 9999))
def test_tails__are_sums_over_all_labelings(find, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, 5)
    # With probabilities of exactly 0 and 1, and counts that these exclude.
    p = np.clip(rng.normal(0.5, 0.5, sizes.sum()), 0, 1)
    start, k = starts(sizes), rng.integers(0, sizes + 1)
    tails = count_tails(p, start, k, find=find)
    for b in range(5):
        pmf = listed_distribution(p[start[b] : start[b + 1]])
        lower, upper = pmf[: k[b] + 1].sum(), pmf[k[b] :].sum()
        assert np.exp(tails.log_lower[b]) == pytest.approx(lower, abs=1e-14)
        assert np.exp(tails.log_upper[b]) == pytest.approx(upper, abs=1e-14)
        assert tails.p_value[b] == pytest.approx(min(1, 2 * min(lower, upper)), abs=1e-14)
        assert tails.expected[b] == pytest.approx(pmf @ np.arange(sizes[b] + 1))
        variance = pmf @ (np.arange(sizes[b] + 1) - tails.expected[b]) ** 2
        assert tails.std[b] == pytest.approx(np.sqrt(variance), abs=1e-7)


@pytest.mark.parametrize("find", [marginals, fast])
def test_tails__keep_their_digits_however_improbable_the_count(find):
    n, p = 400, 0.2
    k = np.array([0, 10, 60, 80, 100, 200, 330, 400])
    tails = count_tails(np.full(n * 8, p), np.arange(9) * n, k, find=find)
    np.testing.assert_allclose(tails.log_lower, stats.binom.logcdf(k, n, p), rtol=1e-9, atol=1e-12)
    for a, log_upper in zip(k, tails.log_upper, strict=True):
        terms = stats.binom.logpmf(np.arange(a, n + 1), n, p)
        total = terms.max() + np.log(np.exp(terms - terms.max()).sum())
        assert log_upper == pytest.approx(total, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("find", [marginals, fast])
def test_tails__of_items_that_are_next_to_certain_are_those_of_all_labelings(find):
    q = np.array([40.0, 35, 300, 700, -50, 0.3, 33, -700])
    p, rest = np.exp(-np.logaddexp(0, -q)), np.exp(-np.logaddexp(0, q))
    y = labelings(8)
    log_weight = y @ q - np.logaddexp(0, q).sum()
    start, total = np.array([0, 8]), y.sum(1)
    for k in range(9):
        tails = count_tails(p, start, np.array([k]), rest=rest, find=find)
        lower, upper = log_sum(log_weight[total <= k]), log_sum(log_weight[total >= k])
        assert tails.log_lower[0] == pytest.approx(lower, rel=1e-12, abs=1e-12)
        assert tails.log_upper[0] == pytest.approx(upper, rel=1e-12, abs=1e-12)
        turned = count_tails(rest, start, np.array([8 - k]), rest=p, find=find)
        assert turned.log_upper[0] == pytest.approx(lower, rel=1e-12, abs=1e-12)
        assert turned.std[0] == pytest.approx(tails.std[0], rel=1e-12)


def test_tails__rest_changes_no_bit_of_what_is_not_lost():
    rng = np.random.default_rng(0)
    q = rng.uniform(-30, 30, 500)
    p, rest = 1 / (1 + np.exp(-q)), 1 / (1 + np.exp(q))
    start, k = np.arange(0, 501, 25), rng.integers(0, 26, 20)
    tails, want = count_tails(p, start, k, rest=rest), count_tails(p, start, k)
    for a, b in zip(tails, want, strict=True):
        np.testing.assert_array_equal(a, b)


@examples(p=st.lists(st.floats(0, 1), max_size=30))
def test_rates__are_scipys(p):
    want = stats.false_discovery_control(np.array(p)) if p else np.empty(0)
    np.testing.assert_allclose(false_discovery_rates(np.array(p)), want, rtol=1e-14)


def test_p_values__of_a_right_model_are_small_as_seldom_as_they_say():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 3, 40_000)
    start = np.arange(0, 40_001, 20)
    k = np.add.reduceat((rng.random(40_000) < p).astype(int), start[:-1])
    tails = count_tails(p, start, k, find=fast)
    for level in (0.01, 0.05, 0.2, 0.5):
        # Three standard errors of a share of 2000 bags.
        slack = 3 * np.sqrt(level * (1 - level) / 2000)
        assert (tails.p_value <= level).mean() <= level + slack


def test_tails__refuse_what_is_no_probability():
    for wrong in (np.nan, -0.1, 1.5):
        with pytest.raises(ValueError, match="item 1"):
            count_tails(np.array([0.5, wrong]), np.array([0, 2]), np.array([1]))
        with pytest.raises(ValueError, match="rest must be in"):
            count_tails(np.ones(2), np.array([0, 2]), np.array([1]), rest=np.array([0.5, wrong]))
    with pytest.raises(ValueError, match="p-values"):
        false_discovery_rates(np.array([np.nan]))
