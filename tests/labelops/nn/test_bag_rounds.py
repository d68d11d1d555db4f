"""Oracles: all labelings of tiny bags, planted clusters and noise; held-out counts unseen."""

import numpy as np
import pytest

from labelops.nn.bag_rounds import (
    choose_class_strength,
    choose_strength,
    neighbour_edges,
    spread_beliefs,
    strengthened,
)
from labelops.nn.bag_start import fit_start
from labelops.nn.bags import BagTraining, SoftLabels, fit, logits_of
from labelops.proportions.edges import no_edges
from tests.oracles.bag_classes import listed_classes

TRAINING = BagTraining(hidden=(32,), epochs=15, batch_rows=64, learning_rate=0.01)


def clusters(n_bags=60, size=8, *, n_classes=3, seed=0):
    """Tight clusters of one class each, in no linear order."""
    rng = np.random.default_rng(seed)
    centre, kind = rng.normal(size=(21, 3)) * 3, np.arange(21) % n_classes
    which = rng.integers(0, 21, n_bags * size)
    x = (centre[which] + 0.1 * rng.normal(size=(len(which), 3))).astype(np.float32)
    y, start = kind[which], np.arange(0, len(which) + 1, size)
    counts = np.stack([np.add.reduceat((y == k) * 1, start[:-1]) for k in range(n_classes)], axis=1)
    return x, y, start, counts


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rounds__find_planted_clusters_from_counts_alone(n_classes):
    x, y, start, counts = clusters(n_bags=100, n_classes=n_classes)
    first = fit_start(x, start, counts, most_items=10_000, n_fourier=20, seed=0)
    edges = neighbour_edges(x, n_threads=1)
    strength = choose_class_strength(
        first.held_logits, start, counts, edges, first.held_out, n_threads=1
    )
    assert strength > 0
    propagated = spread_beliefs(first.logits, start, counts, strengthened(edges, strength=strength))
    np.testing.assert_allclose(np.add.reduceat(propagated.beliefs, start[:-1]), counts, atol=1e-8)
    assert (propagated.beliefs.argmax(axis=1) == y).mean() > 0.97
    fitted = fit(
        x, start, counts, SoftLabels(propagated.beliefs, start, counts), training=TRAINING, seed=0
    )
    assert (logits_of(fitted.net, x).argmax(axis=1) == y).mean() > 0.85


def test_strength__of_noise_is_none_for_three_classes():
    x, y, start, counts = clusters()
    noise = neighbour_edges(np.random.default_rng(1).normal(size=x.shape), n_threads=1)
    told = 1.5 * np.eye(3)[y] + np.random.default_rng(2).normal(size=(len(y), 3))
    held = np.arange(0, 60, 6)
    assert choose_class_strength(told, start, counts, noise, held, n_threads=1) == 0


def test_strength__without_edges_is_none():
    x, _, start, counts = clusters(n_bags=4)
    held_logits = np.zeros((len(x), 3))
    assert choose_class_strength(held_logits, start, counts, no_edges(), np.array([0])) == 0


def test_strength__of_two_classes_is_that_of_the_second():
    x, _, start, counts = clusters(n_classes=2)
    edges, held = neighbour_edges(x, n_threads=1), np.arange(0, 60, 6)
    held_logits = np.random.default_rng(0).normal(size=(len(x), 2))
    got = choose_class_strength(held_logits, start, counts, edges, held, n_threads=1)
    log_odds = held_logits[:, 1] - held_logits[:, 0]
    assert got == choose_strength(log_odds, start, counts[:, 1], edges, held, n_threads=1)


def test_strength__does_not_depend_on_the_order_of_classes():
    x, _, start, counts = clusters()
    edges, held = neighbour_edges(x, n_threads=1), np.arange(0, 60, 6)
    held_logits = np.random.default_rng(0).normal(size=(len(x), 3))
    got = [
        choose_class_strength(held_logits[:, o], start, counts[:, o], edges, held, n_threads=1)
        for o in ([0, 1, 2], [2, 0, 1])
    ]
    assert got[0] == got[1]


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_beliefs__without_neighbours_are_those_of_all_labelings(n_classes):
    rng = np.random.default_rng(n_classes)
    start = np.array([0, 1, 5, 10])
    logits = 2 * rng.normal(size=(10, n_classes))
    labels = rng.integers(0, n_classes, 10)
    counts = np.stack([np.add.reduceat((labels == k) * 1, start[:-1]) for k in range(n_classes)], 1)
    propagated = spread_beliefs(logits, start, counts, no_edges())
    for b in range(3):
        rows = slice(start[b], start[b + 1])
        size = int(start[b + 1] - start[b])
        want, _ = listed_classes(logits[rows], np.array([0, size]), counts[b : b + 1])
        np.testing.assert_allclose(propagated.beliefs[rows], want, atol=1e-12)
    assert propagated.convergence.converged.all()
    assert propagated.is_exact.all()


def test_strength__clusters_get_a_say_and_noise_gets_none():
    x, y, start, counts = clusters(n_classes=2)
    k = counts[:, 1]
    edges = neighbour_edges(x, k=5, n_threads=1)
    held = np.arange(0, 60, 6)
    held_logits = np.zeros(len(x))
    assert choose_strength(held_logits, start, k, edges, held, n_threads=1) > 0
    noise = neighbour_edges(np.random.default_rng(1).normal(size=x.shape), k=5, n_threads=1)
    told = np.where(y == 1, 1.5, -1.5) + np.random.default_rng(2).normal(size=len(y))
    assert choose_strength(told, start, k, noise, held, n_threads=1) == 0


def test_strength__counts_of_held_out_bags_are_compared_with_not_propagated():
    x, _, start, counts = clusters(n_classes=2)
    k = counts[:, 1]
    edges = neighbour_edges(x, k=5, n_threads=1)
    held, wrong = np.arange(0, 60, 6), k.copy()
    wrong[held] = 8 - wrong[held]
    # Had they taken part, neighbours would have been moved towards the wrong counts, and every
    # strength would explain these better than none.
    assert choose_strength(np.zeros(len(x)), start, wrong, edges, held, n_threads=1) == 0


def test_edges__do_not_depend_on_the_scale_of_the_vectors():
    x, *_ = clusters(n_classes=2)
    one, ten = neighbour_edges(x, n_threads=1), neighbour_edges(10 * x, n_threads=1)
    np.testing.assert_array_equal(one.first, ten.first)
    # Positions were rounded to single precision, at another scale.
    np.testing.assert_allclose(one.weight, ten.weight, rtol=1e-3)
