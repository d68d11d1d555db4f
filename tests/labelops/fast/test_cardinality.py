"""Oracle: the definitions in `labelops.proportions`; and the recursion in logarithms."""

import numpy as np
import pytest
from hypothesis import example
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.fast import cardinality as fast
from labelops.proportions.cardinality import marginals
from labelops.proportions.counts import (
    free_counts,
    hard_counts,
    interval_counts,
    join_counts,
    log_potential,
    soft_counts,
)
from tests.labelops.proportions.data import KINDS, make_bags, small_bags, starts
from tests.oracles.bags import log_domain_bag, longdouble_bag

SIZES = [0, 1, 2, 15, 16, 17, 47, 48, 49, 64, 97, 160, 333]


def assert_same(actual, want):
    np.testing.assert_allclose(actual.beliefs, want.beliefs, atol=3e-15)
    # Both sum numbers of the size of n · |q|.
    np.testing.assert_allclose(actual.log_evidence, want.log_evidence, rtol=1e-13, atol=1e-12)


@examples(bags=small_bags())
@example(bags=make_bags(1024, [1, 0, 0, 1], spread=0.0))
def test_small_bags__are_those_of_the_definition(bags):
    posterior, want = fast.marginals(*bags), marginals(*bags)
    assert_same(posterior, want)
    # Of a belief below e⁻⁷⁰⁰ the message may be infinite: there doubles end.
    messages = (np.clip(one.messages, -700, 700) for one in (posterior, want))
    np.testing.assert_allclose(*messages, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("seed", range(2))
def test_bags_of_all_sizes__are_those_of_the_definition(kind, spread, seed):
    bags = make_bags(seed, SIZES, spread=spread, kind=kind)
    want = marginals(*bags)
    assert_same(fast.marginals(*bags, accuracy=0.0), want)
    posterior, bound = fast.bounded_marginals(*bags)
    assert_same(posterior, want)
    assert (bound <= 1e-12).all()
    uncertain = np.abs(want.beliefs - 0.5) < 0.49999
    # A message is the logarithm of a ratio of beliefs, here down to 1e-5, which are right to 3e-15.
    np.testing.assert_allclose(
        posterior.messages[uncertain], want.messages[uncertain], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("accuracy", [1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_large_bags__are_off_by_less_than_they_say(accuracy, spread):
    bags = make_bags(7, [500, 1000, 2049], spread=spread, kind="hard")
    exact = fast.marginals(*bags, accuracy=0.0).beliefs
    posterior, bound = fast.bounded_marginals(*bags, accuracy=accuracy)
    off = np.maximum.reduceat(np.abs(posterior.beliefs - exact), bags[1][:-1])
    assert (bound <= accuracy).all()
    assert (off <= bound + 1e-13).all()
    # Whatever is cut, what is left are labelings with the right count.
    total = np.add.reduceat(posterior.beliefs, bags[1][:-1])
    np.testing.assert_allclose(total, bags[2].low, atol=1e-10)


@pytest.mark.parametrize("k", [5, 700, 1990])
def test_bag_of_2000__agrees_with_counting_in_logarithms(k):
    q = np.random.default_rng(k).normal(0, 1.5, 2000)
    log_f = np.where(np.arange(2001) == k, 0.0, -np.inf)
    posterior = fast.marginals(q, np.array([0, 2000]), hard_counts(np.array([k])))
    # Rounding of logarithms of sums up to 2000 · log 2: see the next test for ours.
    np.testing.assert_allclose(posterior.beliefs, log_domain_bag(q, log_f)[0], atol=4e-12)


@pytest.mark.parametrize("k", [5, 200])
def test_bag_of_600__agrees_with_extended_precision(k):
    if np.finfo(np.longdouble).eps >= np.finfo(float).eps:
        pytest.skip("this machine has no extended precision")
    q = np.random.default_rng(k).normal(0, 1.5, 600)
    log_f = np.where(np.arange(601) == k, 0.0, -np.inf)
    theta = -4.0 if k == 5 else -1.0
    posterior = fast.marginals(q, np.array([0, 600]), hard_counts(np.array([k])))
    np.testing.assert_allclose(posterior.beliefs, longdouble_bag(q, log_f, theta), atol=1e-15)


@examples(seed=st.integers(0, 9999), shift=st.floats(-300, 300))
def test_hard_count__undoes_any_constant_shift(seed, shift):
    q, start, counts = make_bags(seed, [1, 40, 90], kind="hard")
    posterior, shifted = fast.marginals(q, start, counts), fast.marginals(q + shift, start, counts)
    np.testing.assert_allclose(shifted.beliefs, posterior.beliefs, atol=2e-12)


@pytest.mark.parametrize("n_threads", [1, 3, 8])
def test_threads__change_no_bit(n_threads, monkeypatch):
    monkeypatch.setattr(fast, "CHUNK_ITEMS", 70)
    bags = make_bags(3, SIZES * 3)
    posterior, want = fast.marginals(*bags, n_threads=n_threads), fast.marginals(*bags, n_threads=1)
    for a, b in zip(posterior, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bags__are_worked_on_alone_to_the_same_bits():
    q, start, counts = make_bags(4, SIZES)
    together = fast.marginals(q, start, counts)
    for b in range(len(SIZES)):
        items = slice(start[b], start[b + 1])
        one = type(counts)(*(column[b : b + 1] for column in counts))
        alone = fast.marginals(q[items], starts(np.array([SIZES[b]])), one)
        np.testing.assert_array_equal(alone.beliefs, together.beliefs[items])
        np.testing.assert_array_equal(alone.messages, together.messages[items])


def test_certain_items__are_those_of_the_definition():
    q, start, _ = make_bags(5, [100, 8])
    q[::7], q[3::9] = np.inf, -np.inf
    for counts in (
        hard_counts(np.array([40, 5])),
        soft_counts(np.array([40.3, 5]), strength=0.3),
        interval_counts(np.array([50, 2]), np.array([60, 4])),
    ):
        posterior, want = fast.marginals(q, start, counts), marginals(q, start, counts)
        assert_same(posterior, want)
        np.testing.assert_allclose(posterior.messages, want.messages, atol=1e-11)


def test_far_apart_items__find_their_tilt():
    for gap in (20.0, 100.0, 1000.0):
        q = np.concatenate([np.full(60, gap), np.full(40, -gap)])
        for k in (1, 59, 60, 61, 99):
            posterior = fast.marginals(q, np.array([0, 100]), hard_counts(np.array([k])))
            want = [min(k, 60) / 60, max(k - 60, 0) / 40]
            # 60 e^−40 of the count is on the other side where the gap is 20.
            np.testing.assert_allclose(posterior.beliefs[[0, 99]], want, atol=1e-14)


@pytest.mark.parametrize("kind", ["hard", "soft", "interval"])
@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e8])
def test_log_odds_of_any_size__are_those_of_the_definition(kind, size):
    # Between items this far apart the expected count stands still however a bag is tilted, and
    # steps of one did not get across.
    for seed in range(20):
        q, start, counts = make_bags(seed, [2, 5, 20, 60], kind=kind)
        is_large = np.random.default_rng(seed).random(len(q)) < 0.5
        q[is_large] *= size
        posterior, want = fast.marginals(q, start, counts), marginals(q, start, counts)
        # Tilts of such a size round log-odds to 1e-16 of it; sums and logarithms round further.
        near = {"rtol": 1e-12, "atol": 1e-12 + 1e-14 * size}
        np.testing.assert_allclose(posterior.beliefs, want.beliefs, **near)
        np.testing.assert_allclose(posterior.log_evidence, want.log_evidence, **near)
        some = slice(start[2], start[3])
        with np.errstate(over="ignore"):
            beliefs, _ = log_domain_bag(q[some], log_potential(counts, 2, 20))
        np.testing.assert_allclose(posterior.beliefs[some], beliefs, **near)


@pytest.mark.parametrize("size", [1e20, 1e100, 1e300])
def test_log_odds_of_absurd_size__still_give_beliefs_that_sum_to_the_count(size):
    q = np.array([1.0, 0.3, -0.2, 0.5, 0.0, -1.0]) * [size, 1, 1, -size, 1, size]
    for k in range(1, 6):
        posterior = fast.marginals(q, np.array([0, 6]), hard_counts(np.array([k])))
        assert posterior.beliefs.sum() == pytest.approx(k, abs=1e-12)


def test_giant_bag__beliefs_sum_to_its_count():
    q = np.random.default_rng(0).normal(-2, 1, 200_000)
    start = np.array([0, len(q)])
    posterior, bound = fast.bounded_marginals(q, start, hard_counts(np.array([12_345])))
    # Rounding of as many additions, in pairs.
    assert posterior.beliefs.sum() == pytest.approx(12_345, abs=1e-8)
    assert 0 < bound[0] < 1e-12


def test_first_order__is_what_a_large_bag_tends_to():
    # σ(q + θ) with Σ σ = k is off by O(1 / V); V = Σ p (1 − p) is about 2 800 here.
    q = np.random.default_rng(1).normal(0, 1, 20_000)
    k = round(float((1 / (1 + np.exp(-q - 0.5))).sum()))
    posterior = fast.marginals(q, np.array([0, len(q)]), hard_counts(np.array([k])))
    assert np.abs(posterior.beliefs - 1 / (1 + np.exp(-q - 0.5))).max() < 1 / 2800


@pytest.mark.parametrize("strength", [1e-310, 1e-12, 1e12, 1e300])
def test_soft_count__extreme_strengths_are_no_count_or_an_exact_one(strength):
    q, start = np.random.default_rng(0).normal(0, 2, 100), np.array([0, 100])
    posterior = fast.marginals(q, start, soft_counts(np.array([30.0]), strength=strength))
    sure = hard_counts(np.array([30])) if strength > 1 else free_counts(1)
    # λ (s − k)² is at most 1e-12 · 70² where it is small.
    np.testing.assert_allclose(posterior.beliefs, marginals(q, start, sure).beliefs, atol=1e-8)


@examples(seed=st.integers(0, 9999))
def test_repeating_every_bag__repeats_its_beliefs_to_the_same_bits(seed):
    q, start, counts = make_bags(seed, [5, 70])
    twice = fast.marginals(
        np.concatenate([q, q]),
        np.concatenate([start, start[-1] + start[1:]]),
        join_counts([counts, counts]),
    )
    want = fast.marginals(q, start, counts).beliefs
    np.testing.assert_array_equal(twice.beliefs, np.concatenate([want, want]))


def test_items_that_cannot_be_positive__change_nothing_for_the_others():
    q = np.random.default_rng(1).normal(0, 2, 90)
    more = np.concatenate([q, np.full(30, -600.0)])
    posterior = fast.marginals(more, np.array([0, 120]), hard_counts(np.array([25])))
    want = fast.marginals(q, np.array([0, 90]), hard_counts(np.array([25])))
    np.testing.assert_allclose(posterior.beliefs[:90], want.beliefs, atol=1e-14)
    assert (posterior.beliefs[90:] < 1e-200).all()


def test_empty__gives_nothing():
    posterior = fast.marginals(np.empty(0), np.array([0]), free_counts(0))
    assert len(posterior.beliefs) == 0


@pytest.mark.parametrize("accuracy", [-1.0, np.nan])
def test_accuracy__must_be_one(accuracy):
    with pytest.raises(ValueError, match="accuracy"):
        fast.marginals(np.zeros(1), np.array([0, 1]), free_counts(1), accuracy=accuracy)
