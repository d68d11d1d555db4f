"""Oracles: fixtures of the specification, all labelings of trees and of small graphs."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.proportions.cardinality import marginals
from labelops.proportions.counts import (
    Counts,
    free_counts,
    hard_counts,
    join_counts,
    log_potential,
    soft_counts,
)
from labelops.proportions.edges import Edges, no_edges
from labelops.proportions.propagate import edge_message, propagate
from tests.labelops.proportions.data import make_bags, make_edges
from tests.oracles.bags import listed_graph

H = np.array([0.4, -0.2, 1.0, 0.0, -0.5, 0.3])
TWO_BAGS = np.array([0, 3, 6])
FIXTURE = hard_counts(np.array([1, 2]))


def edges_of(*triples: tuple[int, int, float]) -> Edges:
    a, b, w = zip(*triples, strict=True)
    return Edges(np.array(a), np.array(b), np.array(w))


def listed(h, start, counts, edges):
    log_f = [log_potential(counts, b, start[b + 1] - start[b]) for b in range(len(start) - 1)]
    return listed_graph(h, start, log_f, list(zip(*edges, strict=True)))


def test_tree__gives_the_printed_digits():
    propagated = propagate(H, TWO_BAGS, FIXTURE, edges_of((0, 3, 1.0)), tolerance=1e-13)
    want = [0.382309, 0.142980, 0.474711, 0.620271, 0.572029, 0.807700]
    np.testing.assert_allclose(propagated.beliefs, want, atol=6e-7)


def test_graph_with_cycles__gives_the_printed_digits():
    edges = edges_of((0, 3, 1.0), (0, 1, 0.3), (1, 4, 0.7), (2, 5, 0.5))
    exact = [0.297133, 0.117090, 0.585777, 0.665412, 0.479136, 0.855452]
    np.testing.assert_allclose(listed(H, TWO_BAGS, FIXTURE, edges), exact, atol=6e-7)
    propagated = propagate(H, TWO_BAGS, FIXTURE, edges, tolerance=1e-13)
    want = [0.301011, 0.126753, 0.572236, 0.669510, 0.471838, 0.858652]
    np.testing.assert_allclose(propagated.beliefs, want, atol=6e-7)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", ["hard", "any"])
def test_trees__are_exact(seed, kind):
    # Bags as nodes, each joined to an earlier one by one edge.
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 4)
    h, start, counts = make_bags(seed, sizes.tolist(), kind=kind)
    triples = []
    for b in range(1, 4):
        a = int(rng.integers(0, b))
        i, j = (int(rng.integers(start[x], start[x + 1])) for x in (a, b))
        triples.append((i, j, rng.exponential(2.0)))
    edges = edges_of(*triples)
    propagated = propagate(h, start, counts, edges, tolerance=1e-14, damping=0.3)
    np.testing.assert_allclose(propagated.beliefs, listed(h, start, counts, edges), atol=1e-12)
    assert propagated.convergence.converged.all()


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs__are_close(seed):
    h, start, counts = make_bags(seed, [4, 4, 4], spread=1.0, kind="hard")
    edges = make_edges(seed, 12, 12)
    propagated = propagate(h, start, counts, edges)
    # The specification's tolerance for the mean over items of graphs of this size.
    assert np.abs(propagated.beliefs - listed(h, start, counts, edges)).mean() < 0.06


def test_no_edges__are_the_marginals_of_the_bags_in_one_sweep():
    h, start, counts = make_bags(3, [4, 1, 9, 0, 20])
    posterior, want = propagate(h, start, counts, no_edges()), marginals(h, start, counts)
    np.testing.assert_array_equal(posterior.beliefs, want.beliefs)
    np.testing.assert_array_equal(posterior.log_evidence, want.log_evidence)
    assert posterior.convergence.n_sweeps.tolist() == [1] * 5
    assert posterior.convergence.converged.all()


def test_edge_message__is_the_sum_over_both_labels_of_the_sender():
    w, a = np.random.default_rng(0).exponential(1, 50), np.random.default_rng(1).normal(0, 5, 50)
    want = np.log(np.exp(-w) + np.exp(a)) - np.log(1 + np.exp(a - w))
    np.testing.assert_allclose(edge_message(w, a), want, atol=1e-13)
    np.testing.assert_allclose(edge_message(w, -a), -want, atol=1e-13)
    assert (np.abs(edge_message(w, 1e6 * a)) <= w + 1e-9).all()


def test_first_sweep_without_log_odds__does_not_pass_for_converged():
    h, start = np.zeros(8), np.array([0, 4, 8])
    edges = edges_of((0, 4, 1.0), (1, 5, 1.0))
    propagated = propagate(h, start, hard_counts(np.array([1, 4])), edges)
    assert propagated.convergence.n_sweeps[0] >= 3
    # Items with a neighbour in the bag that is all positive are the likelier ones.
    assert propagated.beliefs[0] == pytest.approx(propagated.beliefs[1])
    assert propagated.beliefs[0] > 0.3 > propagated.beliefs[2]


def test_counts__are_kept_in_every_sweep():
    h, start, counts = make_bags(8, [5, 9, 30, 1], kind="hard")
    edges = make_edges(8, len(h), 3 * len(h), strength=3.0)
    for max_sweeps in range(1, 12):
        propagated = propagate(h, start, counts, edges, max_sweeps=max_sweeps)
        total = np.add.reduceat(propagated.beliefs, start[:-1])
        np.testing.assert_allclose(total, counts.low, atol=1e-10)


def test_counts__undo_a_shift_of_all_log_odds_in_a_bag():
    h, start, counts = make_bags(2, [6, 10], kind="hard")
    edges = make_edges(2, 16, 32)
    shift = np.repeat([5.0, -3.0], [6, 10])
    propagated = propagate(h, start, counts, edges, tolerance=1e-12)
    shifted = propagate(h + shift, start, counts, edges, tolerance=1e-12)
    np.testing.assert_allclose(shifted.beliefs, propagated.beliefs, atol=1e-10)


def test_components__are_what_they_would_be_alone():
    one = make_bags(1, [4, 7])
    two = make_bags(2, [3, 3, 3])
    edges_one, edges_two = make_edges(1, 11, 22), make_edges(2, 9, 27, strength=4.0)
    alone = [propagate(*one, edges_one), propagate(*two, edges_two)]
    together = propagate(
        np.concatenate([one[0], two[0]]),
        np.concatenate([one[1], 11 + two[1][1:]]),
        join_counts([one[2], two[2]]),
        Edges(
            np.concatenate([edges_one.first, 11 + edges_two.first]),
            np.concatenate([edges_one.second, 11 + edges_two.second]),
            np.concatenate([edges_one.weight, edges_two.weight]),
        ),
    )
    np.testing.assert_array_equal(
        together.beliefs, np.concatenate([component.beliefs for component in alone])
    )
    for field in ("converged", "n_sweeps", "last_change"):
        want = np.concatenate([getattr(component.convergence, field) for component in alone])
        np.testing.assert_array_equal(getattr(together.convergence, field), want)
    assert len(np.unique(together.convergence.n_sweeps)) > 1


def test_component_that_does_not_settle__is_reported_and_the_others_are_not_held_up():
    # Two sweeps are too few for the first; the second has no edge.
    h, start = np.array([1.0, -1, 0, 2]), np.array([0, 1, 2, 4])
    counts = join_counts([free_counts(2), hard_counts(np.array([1]))])
    propagated = propagate(h, start, counts, edges_of((0, 1, 2.0)), max_sweeps=2)
    assert propagated.convergence.component_of_bag.tolist() == [0, 0, 1]
    assert propagated.convergence.converged.tolist() == [False, True]
    # Two, and two more with each step of damping.
    assert propagated.convergence.n_sweeps.tolist() == [6, 1]
    assert propagated.convergence.last_change[0] > 1e-4
    assert propagated.convergence.damping[1] == 0.5


@settings(max_examples=25)
@examples(seed=st.integers(0, 999))
def test_permuting_items__permutes_beliefs(seed):
    h, start, counts = make_bags(seed, [5, 5], spread=1.0)
    edges = make_edges(seed, 10, 20)
    rng = np.random.default_rng(seed)
    to = np.concatenate([rng.permutation(5), 5 + rng.permutation(5)])
    moved = np.empty(10)
    moved[to] = h
    a, b = to[edges.first], to[edges.second]
    turned = Edges(np.minimum(a, b), np.maximum(a, b), edges.weight)
    propagated = propagate(h, start, counts, edges)
    other = propagate(moved, start, counts, turned)
    np.testing.assert_allclose(other.beliefs[to], propagated.beliefs, atol=1e-10)


def test_turning_all_labels_around__turns_beliefs_around():
    h, start, counts = make_bags(11, [5, 6], kind="hard")
    edges = make_edges(11, 11, 33)
    sizes = np.diff(start)
    turned = Counts(sizes - counts.high, sizes - counts.low, sizes - counts.centre, counts.strength)
    propagated, other = propagate(h, start, counts, edges), propagate(-h, start, turned, edges)
    np.testing.assert_allclose(other.beliefs, 1 - propagated.beliefs, atol=1e-12)


def test_equal_shares_and_no_log_odds__tell_nothing():
    start = np.arange(0, 41, 4)
    propagated = propagate(np.zeros(40), start, hard_counts(np.full(10, 2)), make_edges(0, 40, 80))
    np.testing.assert_allclose(propagated.beliefs, 0.5, atol=1e-12)


def test_certain_items__convince_their_neighbours():
    h = np.array([np.inf, 0.0, 0.0, -np.inf])
    start = np.arange(5)
    exact = propagate(h, start, free_counts(4), edges_of((0, 1, 2.0), (2, 3, 2.0)), tolerance=1e-12)
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(exact.beliefs, [1, p, 1 - p, 0], atol=1e-11)


def test_empty__gives_nothing():
    propagated = propagate(np.empty(0), np.array([0]), free_counts(0), no_edges())
    assert len(propagated.beliefs) == len(propagated.convergence.converged) == 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"damping": 1.0}, "damping"),
        ({"damping": -0.1}, "damping"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_sweeps": 0}, "max_sweeps"),
    ],
)
def test_settings__that_go_nowhere_are_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        propagate(
            np.zeros(1),
            np.array([0, 1]),
            soft_counts(np.ones(1), strength=1),
            no_edges(),
            **wrong,
        )
