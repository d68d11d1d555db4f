"""Oracles: exact counts, planted clusters and planted noise; held-out counts unseen."""

import numpy as np

from labelops.fast.cardinality import marginals
from labelops.nn.bag_rounds import (
    begin,
    choose_strength,
    neighbour_edges,
    net_log_odds,
    play_round,
    strengthened,
)
from labelops.nn.bags import BagTraining
from labelops.proportions.counts import hard_counts

TRAINING = BagTraining(hidden=(16,), epochs=10, batch_rows=128, learning_rate=0.01)


def clusters(n_bags=60, size=8, *, seed=0):
    """Twenty tight clusters of one class each, in no linear order."""
    rng = np.random.default_rng(seed)
    centre, kind = rng.normal(size=(20, 3)) * 3, np.arange(20) % 2
    which = rng.integers(0, 20, n_bags * size)
    x = centre[which] + 0.1 * rng.normal(size=(len(which), 3))
    y, start = kind[which], np.arange(0, len(which) + 1, size)
    return x, y, start, np.add.reduceat(y, start[:-1])


def test_strength__clusters_get_a_say_and_noise_gets_none():
    x, y, start, k = clusters()
    edges = neighbour_edges(x, k=5, n_threads=1)
    held = np.arange(0, 60, 6)
    held_logits = np.zeros(len(x))
    assert choose_strength(held_logits, start, k, edges, held, n_threads=1) > 0
    noise = neighbour_edges(np.random.default_rng(1).normal(size=x.shape), k=5, n_threads=1)
    told = np.where(y == 1, 1.5, -1.5) + np.random.default_rng(2).normal(size=len(y))
    assert choose_strength(told, start, k, noise, held, n_threads=1) == 0


def test_strength__counts_of_held_out_bags_are_compared_with_not_propagated():
    x, _, start, k = clusters()
    edges = neighbour_edges(x, k=5, n_threads=1)
    held, wrong = np.arange(0, 60, 6), k.copy()
    wrong[held] = 8 - wrong[held]
    # Had they taken part, neighbours would have been moved towards the wrong counts, and every
    # strength would explain these better than none.
    assert choose_strength(np.zeros(len(x)), start, wrong, edges, held, n_threads=1) == 0


def test_begin__held_out_bags_do_not_reach_the_blind_log_odds():
    x, _, start, k = clusters()
    first = begin(x, start, k, n_fourier=20, seed=0)
    other = k.copy()
    other[first.held_out] = 8 - other[first.held_out]
    model = first.model
    again = begin(x, start, other, n_fourier=20, seed=0)
    # The prior is chosen on all bags; here it comes out the same.
    assert (again.model.prior, again.model.width) == (model.prior, model.width)
    np.testing.assert_array_equal(again.held_logits, first.held_logits)
    assert np.abs(again.log_odds - first.log_odds).max() > 0


def test_round__without_neighbours_is_the_exact_posterior_and_sums_to_counts():
    x, _, start, k = clusters()
    h = np.random.default_rng(0).normal(size=len(x))
    edges = strengthened(neighbour_edges(x, n_threads=1), strength=0.0)
    found = play_round(x, h, start, k, edges, training=TRAINING, seed=0, n_threads=1)
    want = marginals(h, start, hard_counts(k)).beliefs
    np.testing.assert_allclose(found.beliefs, want, atol=1e-12)
    np.testing.assert_allclose(np.add.reduceat(found.beliefs, start[:-1]), k, atol=1e-9)
    assert found.n_open == 0


def test_rounds__find_planted_clusters_from_counts_alone():
    x, y, start, k = clusters(n_bags=100)
    first = begin(x, start, k, n_fourier=50, seed=0)
    edges = neighbour_edges(x, n_threads=1)
    strength = choose_strength(first.held_logits, start, k, edges, first.held_out, n_threads=1)
    found = play_round(
        x,
        first.log_odds,
        start,
        k,
        strengthened(edges, strength=strength),
        training=TRAINING,
        seed=0,
    )
    assert ((found.beliefs > 0.5) == y).mean() > 0.97
    assert ((net_log_odds(found.fitted, x) > 0) == y).mean() > 0.85


def test_edges__do_not_depend_on_the_scale_of_the_vectors():
    x, *_ = clusters()
    one, ten = neighbour_edges(x, n_threads=1), neighbour_edges(10 * x, n_threads=1)
    np.testing.assert_array_equal(one.first, ten.first)
    # Positions were rounded to single precision, at another scale.
    np.testing.assert_allclose(one.weight, ten.weight, rtol=1e-3)
