"""Oracle: every cutoff tried in a loop, with F1 as it is defined."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.multilabel.cutoffs import choose_cutoffs, sets_from
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
    found = [
        np.mean([f1(fresh[:, c], sets[:, c]) for c in range(10)])
        for s in (0.0, 10.0)
        for sets in [sets_from(fresh_scores, choose_cutoffs(scores, labels, pseudo_positives=s))]
    ]
    assert found[1] > found[0] + 0.02


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
    with pytest.raises(ValueError, match=r"finite scores of shape \(2, 2\)"):
        choose_cutoffs(scores, label_sets([[0], []], n_classes=2))
