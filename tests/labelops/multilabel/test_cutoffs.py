"""Oracle: every cutoff tried in a loop, with F1 as it is defined."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.multilabel.cutoffs import choose_cutoffs, choose_cutoffs_from_positives, sets_from
from labelops.multilabel.labels import from_states, label_sets
from tests.labelops.multilabel.data import make


def f1(state: np.ndarray, said: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN)."""
    hits = np.sum((state == 1) & said)
    return 2 * hits / max((state == 1).sum() + said.sum(), 1)


@settings(max_examples=15)
@examples(seed=st.integers(0, 2**32 - 1), unknown=st.sampled_from([0.0, 0.3]))
def test_cutoffs__no_other_gives_a_class_a_larger_f1(seed, unknown):
    scores, table, _ = make(seed, n=20, n_classes=3, unknown=unknown)
    cutoffs = choose_cutoffs(scores, from_states(table), pseudo_positives=0.0)
    for c in range(3):
        known = table[:, c] >= 0
        score, state = scores[known, c], table[known, c]
        options = [*np.unique(score), np.inf]
        best = max(f1(state, score >= t) for t in options)
        assert f1(state, score >= cutoffs[c]) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_cutoffs__with_much_shrinkage_are_that_of_all_classes_together(seed):
    scores, table, _ = make(seed, n=50)
    cutoffs = choose_cutoffs(scores, from_states(table), pseudo_positives=1e9)
    assert len(set(cutoffs)) == 1
    options = [*np.unique(scores), np.inf]
    best = max(f1(table.ravel(), scores.ravel() >= t) for t in options)
    assert f1(table.ravel(), scores.ravel() >= cutoffs[0]) == pytest.approx(best)


def test_cutoffs__of_rare_classes_profit_from_the_others():
    """Ten classes of one kind, few held-out items: F1 on fresh items, with and without."""
    rng = np.random.default_rng(0)

    def draw(n):
        truth = rng.random((n, 10)) < 0.05
        return truth, np.where(truth, 1.0, -1.0) + rng.normal(size=(n, 10))

    held_out, scores = draw(80)
    fresh, fresh_scores = draw(5000)
    labels = from_states(held_out.astype(np.int8))
    quality = [
        np.mean([f1(fresh[:, c], sets[:, c]) for c in range(10)])
        for s in (0.0, 10.0)
        for sets in [sets_from(fresh_scores, choose_cutoffs(scores, labels, pseudo_positives=s))]
    ]
    assert quality[1] > quality[0] + 0.02


def test_cutoffs__move_with_classes_and_stay_with_repeated_items():
    scores, table, _ = make(1, n=40)
    classes = [3, 0, 4, 1, 2]
    want = choose_cutoffs(scores, from_states(table))
    moved = choose_cutoffs(scores[:, classes], from_states(table[:, classes]))
    assert np.array_equal(moved, want[classes])
    twice = choose_cutoffs(
        np.tile(scores, (2, 1)), from_states(np.tile(table, (2, 1))), pseudo_positives=0.0
    )
    once = choose_cutoffs(scores, from_states(table), pseudo_positives=0.0)
    assert np.array_equal(twice, once)


def test_cutoffs__few_tried_are_nearly_as_good():
    scores, table, _ = make(2, n=2000)
    labels = from_states(table)
    best, coarse = (choose_cutoffs(scores, labels, max_tried=n) for n in (100_000, 512))
    for c in range(5):
        fine, rough = (f1(table[:, c], scores[:, c] >= t[c]) for t in (best, coarse))
        assert rough == pytest.approx(fine, abs=0.005)


def test_cutoffs__of_equal_scores_nothing_known_nobody_and_everybody():
    tied = choose_cutoffs(np.full((3, 1), 0.5), label_sets([[0], [0], []], n_classes=1))
    assert sets_from(np.array([[0.5], [0.4]]), tied).ravel().tolist() == [True, False]
    unknown = choose_cutoffs(np.ones((2, 2)), label_sets([[], []], [[], []], n_classes=2))
    assert np.isinf(unknown).all()
    assert np.isinf(choose_cutoffs(np.ones((0, 1)), label_sets([], n_classes=1))).all()
    nobody = choose_cutoffs(np.array([[0.2], [0.9]]), label_sets([[], []], n_classes=1))
    assert not sets_from(np.array([[0.9]]), nobody).any()
    everybody = choose_cutoffs(np.array([[0.2], [0.9]]), label_sets([[0], [0]], n_classes=1))
    assert sets_from(np.array([[0.2]]), everybody).all()


@pytest.mark.parametrize("scores", [np.ones((2, 3)), np.full((2, 2), np.nan)])
def test_cutoffs__scores_that_do_not_fit_are_refused(scores):
    for choose in (choose_cutoffs, choose_cutoffs_from_positives):
        with pytest.raises(ValueError, match=r"finite scores of shape \(2, 2\)"):
            choose(scores, label_sets([[0], []], n_classes=2))


def only_some(table: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Hide all that is absent, and present classes at random."""
    return np.where((table == 1) & (rng.random(table.shape) < share), 1, -1).astype(np.int8)


@settings(max_examples=15)
@examples(seed=st.integers(0, 2**32 - 1))
def test_positives__no_other_cutoff_is_better_by_the_definition(seed):
    scores, table, _ = make(seed, n=20, n_classes=3)
    known = only_some(table, np.random.default_rng(seed), 0.6)
    # Something to know of each class.
    known[np.arange(3), np.arange(3)] = 1
    cutoffs = choose_cutoffs_from_positives(scores, from_states(known), pseudo_positives=0.0)

    def value(c, t):
        recall = np.mean(scores[known[:, c] == 1, c] >= t)
        return recall**2 / max(np.mean(scores[:, c] >= t), 1e-12)

    for c in range(3):
        best = max(value(c, t) for t in np.unique(scores[:, c]))
        assert value(c, cutoffs[c]) == pytest.approx(best)


def test_positives__cutoffs_are_nearly_those_that_the_whole_truth_would_give():
    """Precision × recall on fresh items; a third of the present classes was known, nothing else."""
    rng = np.random.default_rng(0)

    def draw(n):
        truth = rng.random((n, 4)) < [0.1, 0.2, 0.3, 0.4]
        return truth, np.where(truth, 1.0, -1.0) + rng.normal(size=(n, 4))

    truth, scores = draw(4000)
    fresh, fresh_scores = draw(20_000)
    known = only_some(truth.astype(np.int8), rng, 0.33)
    cutoffs = choose_cutoffs_from_positives(scores, from_states(known))
    for c in range(4):

        def quality(t, c=c):
            said = fresh_scores[:, c] >= t
            hits = (said & fresh[:, c]).sum()
            return hits**2 / max(said.sum() * fresh[:, c].sum(), 1)

        best = max(quality(t) for t in np.linspace(-2, 3, 101))
        assert quality(cutoffs[c]) > 0.97 * best


def test_positives__move_with_classes_and_stay_with_repeated_items():
    scores, table, _ = make(1, n=40)
    known, classes = only_some(table, np.random.default_rng(0), 0.7), [3, 0, 4, 1, 2]
    want = choose_cutoffs_from_positives(scores, from_states(known))
    moved = choose_cutoffs_from_positives(scores[:, classes], from_states(known[:, classes]))
    assert np.array_equal(moved, want[classes])
    once, twice = (
        choose_cutoffs_from_positives(
            np.tile(scores, (n, 1)), from_states(np.tile(known, (n, 1))), pseudo_positives=0.0
        )
        for n in (1, 2)
    )
    assert np.array_equal(twice, once)


def test_positives__of_nothing_known_nobody_everybody_and_ties():
    unknown = label_sets([[], []], [[], []], n_classes=2)
    assert np.isinf(choose_cutoffs_from_positives(np.ones((2, 2)), unknown)).all()
    assert np.isinf(choose_cutoffs_from_positives(np.ones((0, 1)), label_sets([], n_classes=1)))
    both = label_sets([[0], [0]], [[], []], n_classes=1)
    everybody = choose_cutoffs_from_positives(np.array([[0.2], [0.9]]), both)
    assert sets_from(np.array([[0.2]]), everybody).all()
    one = label_sets([[0], [], []], [[], [], []], n_classes=1)
    tied = choose_cutoffs_from_positives(np.full((3, 1), 0.5), one)
    assert sets_from(np.array([[0.5], [0.4]]), tied).ravel().tolist() == [True, False]
    # A class without known items gets what suits the average one.
    scores = np.array([[0.9, 0.9], [0.1, 0.1]])
    cutoffs = choose_cutoffs_from_positives(scores, label_sets([[0], []], [[], []], n_classes=2))
    assert cutoffs[0] == cutoffs[1] == 0.5
