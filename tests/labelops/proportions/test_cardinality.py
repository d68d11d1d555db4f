"""Oracles: fixtures of the specification, all labelings, recursion in logarithms, binomials."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from scipy import stats

from labelops.proportions.cardinality import bag_marginals, marginals
from labelops.proportions.counts import (
    NO_LIMIT,
    Counts,
    free_counts,
    hard_counts,
    interval_counts,
    log_potential,
    soft_counts,
)
from tests.labelops.proportions.data import make_bags, small_bags, starts
from tests.oracles.bags import listed_bag, log_domain_bag

ONE_BAG = np.array([0, 4])


def hard(n: int, k: int) -> np.ndarray:
    return np.where(np.arange(n + 1) == k, 0.0, -np.inf)


def test_hard_count__gives_the_printed_digits():
    q = np.array([0.5, -1, 2, 0.3])
    exact = marginals(q, ONE_BAG, hard_counts(np.array([2])))
    np.testing.assert_allclose(exact.beliefs, [0.532363, 0.135493, 0.881978, 0.450166], atol=5e-7)


def test_soft_count__gives_the_printed_digits():
    q = np.array([0.5, -1, 2, 0.3])
    exact = marginals(q, ONE_BAG, soft_counts(np.array([2.0]), strength=1.0))
    np.testing.assert_allclose(exact.beliefs, [0.569935, 0.176933, 0.882643, 0.504442], atol=5e-7)


def test_messages__give_the_printed_digits():
    q = np.array([3.0, 0, -3, 1, -1])
    posterior = marginals(q, np.array([0, 5]), hard_counts(np.array([2])))
    beliefs = [0.950899, 0.265807, 0.013775, 0.669073, 0.100447]
    messages = [-0.036477, -1.016004, -1.271011, -0.296006, -1.192272]
    np.testing.assert_allclose(posterior.beliefs, beliefs, atol=6e-7)
    np.testing.assert_allclose(posterior.messages, messages, atol=6e-7)


def test_equal_items__share_the_count():
    posterior = marginals(np.zeros(3), np.array([0, 3]), hard_counts(np.array([1])))
    np.testing.assert_allclose(posterior.beliefs, 1 / 3, atol=1e-15)


@examples(bags=small_bags())
def test_marginals__are_those_of_all_labelings(bags):
    q, start, counts = bags
    posterior = marginals(q, start, counts)
    for b in range(len(start) - 1):
        items = slice(start[b], start[b + 1])
        log_f = log_potential(counts, b, start[b + 1] - start[b])
        with np.errstate(invalid="ignore", divide="ignore"):
            beliefs, messages, log_evidence = listed_bag(q[items], log_f)
        # The list adds up to 128 weights between e^−140 and e^140 as logarithms: 14 digits of them.
        np.testing.assert_allclose(posterior.beliefs[items], beliefs, atol=1e-12)
        np.testing.assert_allclose(posterior.messages[items], messages, rtol=1e-12, atol=1e-12)
        assert posterior.log_evidence[b] == pytest.approx(log_evidence, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("k", range(13))
def test_bag_of_twelve__is_that_of_all_4096_labelings(k):
    q = np.random.default_rng(k).normal(0, 2, 12)
    posterior, want = bag_marginals(q, hard(12, k)), listed_bag(q, hard(12, k))
    np.testing.assert_allclose(posterior.beliefs, want[0], atol=1e-14)
    np.testing.assert_allclose(posterior.messages, want[1], atol=1e-12)
    assert posterior.log_evidence[0] == pytest.approx(want[2], abs=1e-12)


@pytest.mark.parametrize(
    ("n", "k", "tolerance"), [(200, 60, 2e-14), (200, 3, 2e-14), (700, 200, 1e-12)]
)
def test_tilt__agrees_with_counting_in_logarithms(n, k, tolerance):
    q = np.random.default_rng(n + k).normal(-0.5, 1.5, n)
    beliefs, messages = log_domain_bag(q, hard(n, k))
    posterior = bag_marginals(q, hard(n, k))
    # What is left is the rounding of the logarithms, which grows with n.
    np.testing.assert_allclose(posterior.beliefs, beliefs, atol=tolerance)
    np.testing.assert_allclose(posterior.messages, messages, atol=100 * tolerance)


def test_evidence__of_equal_items_is_binomial():
    n, p = 60, 0.3
    q = np.full(n, np.log(p / (1 - p)))
    for k in (0, 1, 18, 59, 60):
        posterior = bag_marginals(q, hard(n, k))
        assert posterior.log_evidence[0] == pytest.approx(stats.binom.logpmf(k, n, p), rel=1e-12)
        np.testing.assert_allclose(posterior.beliefs, k / n, atol=1e-14)


@pytest.mark.parametrize("low", [0, 10, 30, 55])
def test_interval__evidence_is_a_difference_of_binomial_tails(low):
    n, p, high = 60, 0.3, 57
    q = np.full(n, np.log(p / (1 - p)))
    posterior = marginals(q, np.array([0, n]), interval_counts(np.array([low]), np.array([high])))
    want = stats.binom.pmf(np.arange(low, high + 1), n, p)
    assert posterior.log_evidence[0] == pytest.approx(np.log(want.sum()), rel=1e-11)
    expected = want @ np.arange(low, high + 1) / want.sum() / n
    np.testing.assert_allclose(posterior.beliefs, expected, rtol=1e-12)


@examples(seed=st.integers(0, 9999), shift=st.floats(-300, 300))
def test_hard_count__undoes_any_constant_shift(seed, shift):
    q, start, counts = make_bags(seed, [1, 5, 30], kind="hard")
    posterior, shifted = marginals(q, start, counts), marginals(q + shift, start, counts)
    # q + 300 keeps 13 decimals of q.
    np.testing.assert_allclose(shifted.beliefs, posterior.beliefs, atol=1e-12)
    np.testing.assert_allclose(shifted.messages, posterior.messages - shift, atol=1e-11)


@examples(seed=st.integers(0, 9999))
def test_marginals__turning_all_labels_around_turns_beliefs_around(seed):
    q, start, counts = make_bags(seed, [3, 20], kind="any")
    sizes = np.diff(start)
    high = np.minimum(counts.high, sizes)
    turned = Counts(sizes - high, sizes - counts.low, sizes - counts.centre, counts.strength)
    posterior, other = marginals(q, start, counts), marginals(-q, start, turned)
    np.testing.assert_allclose(other.beliefs, 1 - posterior.beliefs, atol=1e-13)


@examples(seed=st.integers(0, 9999))
def test_marginals__permuting_items_permutes_beliefs(seed):
    q, start, counts = make_bags(seed, [25], spread=3.0)
    order = np.random.default_rng(seed).permutation(25)
    posterior, other = marginals(q, start, counts), marginals(q[order], start, counts)
    np.testing.assert_allclose(other.beliefs, posterior.beliefs[order], atol=1e-13)


def test_marginals__permuting_bags_permutes_them_to_the_same_bits():
    q, start, counts = make_bags(0, [4, 7, 1, 9])
    order = np.array([2, 0, 3, 1])
    parts = [np.arange(start[b], start[b + 1]) for b in order]
    items = np.concatenate(parts)
    posterior = marginals(q, start, counts)
    moved = marginals(q[items], starts(np.diff(start)[order]), Counts(*(c[order] for c in counts)))
    np.testing.assert_array_equal(moved.beliefs, posterior.beliefs[items])
    np.testing.assert_array_equal(moved.log_evidence, posterior.log_evidence[order])


def test_soft_count__goes_from_no_count_to_an_exact_one():
    q = np.random.default_rng(3).normal(0, 2, 30)
    start = np.array([0, 30])
    weak = marginals(q, start, soft_counts(np.array([9.0]), strength=1e-12))
    strong = marginals(q, start, soft_counts(np.array([9.0]), strength=1e6))
    exact = marginals(q, start, hard_counts(np.array([9])))
    free = marginals(q, start, free_counts(1))
    # λ (s − k)² ≤ 1e-12 · 21².
    np.testing.assert_allclose(weak.beliefs, free.beliefs, atol=1e-9)
    np.testing.assert_allclose(strong.beliefs, exact.beliefs, atol=1e-14)
    np.testing.assert_allclose(strong.log_evidence, exact.log_evidence, atol=1e-12)


@pytest.mark.parametrize(("k", "belief", "message"), [(0, 0.0, -np.inf), (4, 1.0, np.inf)])
def test_bag_all_of_one_kind__leaves_no_choice(k, belief, message):
    q = np.array([-800.0, 0, 3, 40])
    posterior = marginals(q, ONE_BAG, hard_counts(np.array([k])))
    assert (posterior.beliefs == belief).all()
    assert (posterior.messages == message).all()
    want = -np.logaddexp(0, q if k == 0 else -q).sum()
    assert posterior.log_evidence[0] == pytest.approx(want)


def test_bags_of_one_and_none__are_what_their_counts_say():
    start = np.array([0, 1, 1, 2])
    posterior = marginals(np.array([5.0, -5]), start, hard_counts(np.array([0, 0, 1])))
    assert posterior.beliefs.tolist() == [0, 1]
    assert posterior.log_evidence[1] == 0
    soft = marginals(np.array([0.7]), np.array([0, 1]), soft_counts(np.array([1.0]), strength=2.0))
    assert soft.messages[0] == pytest.approx(2.0)


def test_no_bags__give_nothing():
    posterior = marginals(np.empty(0), np.array([0]), free_counts(0))
    assert len(posterior.beliefs) == len(posterior.log_evidence) == 0


def test_certain_items__leave_the_rest_of_the_count_to_the_others():
    q = np.array([np.inf, 0.5, -np.inf, -1.0, np.inf, 2.0, 0.3])
    posterior = marginals(q, np.array([0, 7]), hard_counts(np.array([4])))
    rest = marginals(q[[1, 3, 5, 6]], ONE_BAG, hard_counts(np.array([2])))
    assert posterior.beliefs[[0, 2, 4]].tolist() == [1, 0, 1]
    assert posterior.messages[[0, 2, 4]].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(posterior.beliefs[[1, 3, 5, 6]], rest.beliefs)
    np.testing.assert_array_equal(posterior.log_evidence, rest.log_evidence)


def test_far_apart_items__are_ordered_without_overflow():
    q = np.array([2000.0, 1000, 0, -1000, -2000])
    posterior = marginals(q, np.array([0, 5]), hard_counts(np.array([2])))
    assert posterior.beliefs.tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("q", "start", "counts", "why"),
    [
        ([0.0, np.nan], [0, 2], hard_counts(np.array([1])), "item 1"),
        ([0.0, 0.0], [0, 1], hard_counts(np.array([1])), "ordered by bag"),
        ([0.0, 0.0], [0, 2, 1, 2], hard_counts(np.array([1, 0, 0])), "ordered by bag"),
        ([0.0, 0.0], [0.0, 2.0], hard_counts(np.array([1])), "integers"),
        ([0.0, 0.0], [0, 2], hard_counts(np.array([1, 1])), "counts for 2"),
        ([0.0, 0.0], [0, 2], hard_counts(np.array([3])), "bag 0 must lie in"),
        ([0.0, 0.0], [0, 2], hard_counts(np.array([-1])), "bag 0 must lie in"),
        ([0.0], [0, 1], interval_counts(np.array([1]), np.array([0])), "must lie in"),
        ([np.inf, 0.0], [0, 2], hard_counts(np.array([0])), "1 being certainly positive"),
        ([-np.inf, 0.0], [0, 2], hard_counts(np.array([2])), "1 certainly negative"),
    ],
)
def test_bad_bags__are_refused_by_name(q, start, counts, why):
    with pytest.raises(ValueError, match=why):
        marginals(np.array(q), np.array(start), counts)


def test_inputs__are_not_modified():
    q, start, counts = make_bags(5, [3, 50])
    for array in (q, start, *counts):
        array.flags.writeable = False
    marginals(q, start, counts)
    assert NO_LIMIT > 1e9
