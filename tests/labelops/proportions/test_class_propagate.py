"""Oracles: all labelings of trees and small graphs; two-class propagation."""

import numpy as np
import pytest

from labelops.fast.class_propagate import propagate_classes as fast
from labelops.proportions.class_propagate import potts_message, propagate_classes
from labelops.proportions.counts import hard_counts
from labelops.proportions.edges import Edges, no_edges
from labelops.proportions.propagate import edge_message, propagate
from tests.labelops.proportions.data import make_edges
from tests.oracles.bag_classes import listed_classes

BOTH = pytest.mark.parametrize("run", [propagate_classes, fast], ids=["numpy", "numba"])
START = np.array([0, 4, 8])


def edges_of(*triples):
    a, b, w = zip(*triples, strict=True)
    return Edges(np.array(a), np.array(b), np.array(w))


def problem(seed, n_classes=3):
    rng = np.random.default_rng(seed)
    h = rng.normal(0, 1, (8, n_classes))
    y = rng.integers(0, n_classes, (2, 4))
    return h, np.stack([np.bincount(row, minlength=n_classes) for row in y])


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_tree__is_exact(run, seed):
    h, counts = problem(seed)
    edges = edges_of((1, 6, 0.8))
    propagated = run(h, START, counts, edges, tolerance=1e-13)
    want = listed_classes(h, START, counts, zip(*edges, strict=True))[0]
    assert propagated.convergence.converged.all()
    np.testing.assert_allclose(propagated.beliefs, want, atol=1e-12)


@BOTH
def test_loops__stay_near_the_exact_beliefs(run):
    errors = []
    for seed in range(3):
        h, counts = problem(seed)
        edges = edges_of((0, 4, 1.0), (1, 5, 0.7), (2, 6, 0.5), (0, 1, 0.3), (3, 7, 0.9))
        propagated = run(h, START, counts, edges)
        want = listed_classes(h, START, counts, zip(*edges, strict=True))[0]
        errors.append(np.abs(propagated.beliefs - want).mean())
    # The specification's tolerance for loopy graphs with weights up to one.
    assert max(errors) < 0.06


@BOTH
def test_two_classes__are_binary_propagation(run):
    rng = np.random.default_rng(0)
    sizes = np.array([1, 5, 8, 16, 30])
    start = np.concatenate([[0], np.cumsum(sizes)])
    k = rng.binomial(sizes, 0.4)
    q, edges = rng.normal(0, 1, 60), make_edges(1, 60, 180)
    two = run(
        np.stack([0 * q, q], axis=1), start, np.stack([sizes - k, k], axis=1), edges, damping=0.6
    )
    one = propagate(q, start, hard_counts(k), edges, damping=0.6)
    np.testing.assert_allclose(two.beliefs[:, 1], one.beliefs, atol=1e-10)
    np.testing.assert_array_equal(two.convergence.n_sweeps, one.convergence.n_sweeps)
    np.testing.assert_array_equal(two.convergence.converged, one.convergence.converged)


def test_compiled__equals_the_definition_after_any_number_of_sweeps():
    rng = np.random.default_rng(1)
    start = np.array([0, 10, 40, 240])
    counts = np.array([[3, 3, 4, 0], [10, 10, 5, 5], [100, 50, 30, 20]])
    h, edges = rng.normal(0, 1, (240, 4)), make_edges(2, 240, 720)
    for sweeps in (1, 2, 7):
        want = propagate_classes(h, start, counts, edges, max_sweeps=sweeps)
        actual = fast(h, start, counts, edges, max_sweeps=sweeps, n_threads=1)
        np.testing.assert_allclose(actual.beliefs, want.beliefs, atol=1e-10)
        np.testing.assert_allclose(actual.logits, want.logits, atol=1e-10)
        np.testing.assert_array_equal(
            actual.beliefs, fast(h, start, counts, edges, max_sweeps=sweeps, n_threads=3).beliefs
        )
        # After every sweep, converged or not.
        np.testing.assert_allclose(actual.beliefs.sum(axis=1), 1, atol=1e-12)
        sums = np.add.reduceat(actual.beliefs, start[:-1])
        np.testing.assert_allclose(sums, counts, atol=1e-9)


def test_potts_message__of_two_classes_is_the_edge_message():
    rng = np.random.default_rng(2)
    w, a = rng.exponential(2, 50), rng.normal(0, 5, 50)
    m = potts_message(w, np.stack([np.zeros(50), a], axis=1))
    np.testing.assert_allclose(m[:, 1] - m[:, 0], edge_message(w, a), atol=1e-12)
    assert (np.ptp(potts_message(w, rng.normal(0, 20, (50, 4))), axis=1) <= w + 1e-12).all()


@BOTH
def test_propagate__permuting_classes_permutes_beliefs(run):
    h, counts = problem(5)
    edges = edges_of((0, 4, 1.0), (1, 5, 0.7))
    turn = [2, 0, 1]
    beliefs = run(h, START, counts, edges, tolerance=1e-12).beliefs
    turned = run(h[:, turn], START, counts[:, turn], edges, tolerance=1e-12).beliefs
    np.testing.assert_allclose(turned, beliefs[:, turn], atol=1e-10)


@BOTH
def test_propagate__without_edges_or_bags_has_nothing_to_do(run):
    h, counts = problem(6)
    propagated = run(h, START, counts, no_edges())
    assert propagated.convergence.n_sweeps.tolist() == [1, 1]
    np.testing.assert_allclose(propagated.beliefs, listed_classes(h, START, counts)[0], atol=1e-12)
    none = run(np.zeros((0, 3)), np.array([0]), np.zeros((0, 3), int), no_edges())
    assert none.beliefs.shape == (0, 3)


def test_propagate__what_does_not_settle_says_so():
    h, counts = problem(7)
    propagated = fast(h, START, counts, edges_of((0, 4, 3.0), (1, 4, 3.0)), max_sweeps=3)
    assert not propagated.convergence.converged.any()
