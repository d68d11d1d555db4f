"""Oracles: all labelings of small bags; the exact two-class posterior; what counting must keep."""

import itertools

import numpy as np
import pytest

from labelops.fast.bag_classes import fast_class_posterior
from labelops.proportions.cardinality import marginals
from labelops.proportions.classes import class_posterior, states_of
from labelops.proportions.counts import hard_counts
from labelops.proportions.transport import transport
from tests.oracles.bag_classes import listed_classes

BOTH = pytest.mark.parametrize(
    "posterior", [class_posterior, fast_class_posterior], ids=["numpy", "numba"]
)


def bags(sizes, n_classes, *, seed, spread=1.5):
    """Logits, starts, and counts of labels drawn from the logits."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, spread, (sum(sizes), n_classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) > rng.random((len(z), 1))).argmax(axis=1)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    counts = np.array(
        [np.bincount(y[a:b], minlength=n_classes) for a, b in itertools.pairwise(start)]
    )
    return z, start, counts.reshape(-1, n_classes)


@BOTH
@pytest.mark.parametrize(("n", "n_classes"), [(1, 3), (2, 3), (5, 3), (7, 3), (5, 4), (3, 5)])
def test_posterior__is_that_of_all_labelings(posterior, n, n_classes):
    for seed in range(6):
        z, start, counts = bags([n], n_classes, seed=seed, spread=0.5 + seed)
        actual = posterior(z, start, counts)
        assert actual.is_exact.all()
        # Only positive numbers are added and multiplied.
        np.testing.assert_allclose(
            actual.beliefs, listed_classes(z, start, counts)[0], rtol=1e-12, atol=1e-15
        )


@BOTH
def test_posterior__of_two_classes_is_the_cardinality_posterior(posterior):
    z, start, counts = bags([1, 4, 9, 60], 2, seed=1)
    want = marginals(z[:, 1] - z[:, 0], start, hard_counts(counts[:, 1])).beliefs
    np.testing.assert_allclose(posterior(z, start, counts).beliefs[:, 1], want, atol=1e-12)


def test_posterior__compiled_equals_the_definition_and_any_number_of_threads():
    z, start, counts = bags([30, 1, 17, 40, 3, 200], 3, seed=2)
    want = class_posterior(z, start, counts)
    one = fast_class_posterior(z, start, counts, n_threads=1)
    two = fast_class_posterior(z, start, counts, n_threads=3)
    assert want.is_exact.tolist() == [True] * 5 + [False]
    # Sums of up to a thousand positive terms in another order.
    np.testing.assert_allclose(one.beliefs, want.beliefs, rtol=1e-11, atol=1e-15)
    np.testing.assert_array_equal(one.beliefs, two.beliefs)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_saddle_point__error_falls_with_the_square_of_the_spread(n_classes):
    errors, plain = [], []
    for n in (8, 32):
        z, start, counts = bags([n] * 12, n_classes, seed=3)
        exact = class_posterior(z, start, counts, most_states=10**9).beliefs
        saddle = class_posterior(z, start, counts, most_states=0).beliefs
        errors.append(np.abs(saddle - exact).mean())
        plain.append(np.abs(transport(z, start, counts).beliefs - exact).mean())
    # Four times the items: a sixteenth of the error, that of transport alone a quarter.
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 8
    assert plain[1] > plain[0] / 8
    assert errors[1] < plain[1] / 5


# The largest error over 200 draws, rounded up: the docstring of `class_posterior` says so.
@pytest.mark.parametrize(
    ("counts", "spread", "largest"),
    [
        ([14, 8, 5, 3, 2, 2, 1, 1], 1.0, 0.07),
        ([14, 8, 5, 3, 2, 2, 1, 1], 2.0, 0.12),
        ([14, 8, 5, 3, 2, 2, 1, 1], 3.0, 0.15),
        ([14, 10, 6], 1.0, 0.006),
        ([14, 10, 6], 3.0, 0.05),
    ],
)
def test_saddle_point__no_item_is_further_off_than_is_said(counts, spread, largest):
    n, off = sum(counts), []
    for seed in range(30):
        z = np.random.default_rng(seed).normal(0, spread, (n, len(counts)))
        bag = z, np.array([0, n]), np.array([counts])
        exact = fast_class_posterior(*bag, most_states=10**9).beliefs
        off.append(np.abs(class_posterior(*bag, most_states=0).beliefs - exact))
    # Nor are the single items much better than is said.
    assert largest / 3 < np.max(off) <= largest
    assert np.mean(off) < 0.005


@pytest.mark.parametrize("most_states", [0, 10**9])
def test_posterior__rows_sum_to_one_and_classes_to_their_counts(most_states):
    z, start, counts = bags([40, 1, 12, 25], 3, seed=4, spread=4)
    beliefs = class_posterior(z, start, counts, most_states=most_states).beliefs
    np.testing.assert_allclose(beliefs.sum(axis=1), 1, atol=1e-12)
    # `transport` meets counts to 5e-13 an item.
    np.testing.assert_allclose(np.add.reduceat(beliefs, start[:-1]), counts, atol=1e-10)
    assert (beliefs >= 0).all()


@pytest.mark.parametrize("most_states", [0, 10**9])
def test_posterior__permuting_items_or_classes_permutes_it(most_states):
    z, start, counts = bags([6, 15], 3, seed=5)
    beliefs = class_posterior(z, start, counts, most_states=most_states).beliefs
    order = np.concatenate([np.random.default_rng(0).permutation(6), np.arange(20, 5, -1)])
    moved = class_posterior(z[order], start, counts, most_states=most_states).beliefs
    np.testing.assert_allclose(moved, beliefs[order], atol=1e-10)
    turned = class_posterior(
        z[:, [2, 0, 1]], start, counts[:, [2, 0, 1]], most_states=most_states
    ).beliefs
    np.testing.assert_allclose(turned, beliefs[:, [2, 0, 1]], atol=1e-10)


@pytest.mark.parametrize("most_states", [0, 10**9])
def test_posterior__an_absent_class_and_shifted_logits_change_nothing(most_states):
    z, start, counts = bags([6, 15], 3, seed=6)
    beliefs = class_posterior(z, start, counts, most_states=most_states).beliefs
    # More of a class everywhere in a bag is undone by its count; more of all in an item is nothing.
    other = z + np.array([3.0, -2.0, 0.5]) + np.linspace(-5, 5, 21)[:, None]
    wide = np.concatenate([other, np.full((21, 1), 50.0)], axis=1)
    more = np.concatenate([counts, np.zeros((2, 1), int)], axis=1)
    again = class_posterior(wide, start, more, most_states=most_states).beliefs
    np.testing.assert_allclose(again[:, :3], beliefs, atol=1e-9)
    assert (again[:, 3] == 0).all()


@pytest.mark.parametrize("most_states", [0, 10**9])
def test_posterior__bags_are_by_themselves(most_states):
    z, start, counts = bags([6, 15, 4], 3, seed=7)
    beliefs = class_posterior(z, start, counts, most_states=most_states).beliefs
    for b in range(3):
        rows = slice(start[b], start[b + 1])
        alone = class_posterior(
            z[rows], np.array([0, len(z[rows])]), counts[b : b + 1], most_states=most_states
        ).beliefs
        np.testing.assert_allclose(beliefs[rows], alone, atol=1e-10)


@BOTH
def test_posterior__corners(posterior):
    none = posterior(np.zeros((0, 3)), np.array([0]), np.zeros((0, 3), int))
    assert none.beliefs.shape == (0, 3)
    one = posterior(np.array([[9.0, 0, 0]]), np.array([0, 1]), np.array([[0, 0, 1]]))
    assert one.beliefs.tolist() == [[0, 0, 1]]
    same = posterior(np.zeros((6, 3)), np.array([0, 6]), np.array([[3, 2, 1]]))
    np.testing.assert_allclose(same.beliefs, np.tile([1 / 2, 1 / 3, 1 / 6], (6, 1)), atol=1e-14)
    pure = posterior(np.random.default_rng(0).normal(size=(5, 2)), np.array([0, 5]), [[0, 5]])
    assert (pure.beliefs == [0, 1]).all()
    far = np.array([[500.0, 0, 0], [0, 500.0, 0], [0, 500.0, 0]])
    sure = posterior(far, np.array([0, 3]), np.array([[1, 1, 1]])).beliefs
    np.testing.assert_allclose(sure, [[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]], atol=1e-12)


def test_posterior__inputs_are_not_changed():
    z, start, counts = bags([6, 200], 3, seed=8)
    before = z.copy(), counts.copy()
    fast_class_posterior(z, start, counts)
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(counts, before[1])


def test_posterior__bad_counts_are_refused():
    z, start = np.zeros((3, 2)), np.array([0, 3])
    with pytest.raises(TypeError, match=r"round_class_counts"):
        class_posterior(z, start, np.array([[1.5, 1.5]]))
    with pytest.raises(ValueError, match=r"bag 0 of 3 items says \[1.0, 1.0\]"):
        class_posterior(z, start, np.array([[1, 1]]))
    with pytest.raises(ValueError, match=r"add up to its size"):
        class_posterior(z, start, np.array([[4, -1]]))
    with pytest.raises(ValueError, match=r"ordered by bag"):
        class_posterior(z, np.array([0, 2]), np.array([[1, 1]]))
    with pytest.raises(ValueError, match=r"item 1 has"):
        class_posterior(np.array([[0, 0], [0, np.inf], [0, 0]]), start, np.array([[1, 2]]))


def test_states__are_those_of_counting_all_classes_but_the_most_frequent():
    assert states_of(np.array([[5, 2, 1], [0, 0, 3]])).tolist() == [6, 1]
