"""Oracle: the toy of the published method, cleanlab, and the two formulas as loops."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings

from labelops.fast import multilabel as fast
from labelops.multilabel.labels import from_states, label_sets
from labelops.multilabel.scores import cell_scores, row_scores
from tests.labelops.multilabel.data import make, problems

TOY = label_sets([[0, 2], [1], [], [0, 1, 2]], n_classes=3)
TOY_PROBS = np.array([[0.9, 0.2, 0.6], [0.1, 0.3, 0.1], [0.2, 0.1, 0.05], [0.8, 0.9, 0.95]])


def loop_ema(scores: list[float]) -> float:
    ordered = sorted(scores, reverse=True)
    average = ordered[0] if ordered else 1.0
    for score in ordered[1:]:
        average = 0.8 * score + 0.2 * average
    return average


def loop_softmin(scores: list[float]) -> float:
    weights = [np.exp((1 - score) / 0.1) for score in scores]
    return sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights) if scores else 1


LOOPS = {"ema": loop_ema, "softmin": loop_softmin}
both_scores = pytest.mark.parametrize("score", list(LOOPS))


def test_ema__of_the_toy():
    assert row_scores(TOY_PROBS, TOY).round(3).tolist() == [0.644, 0.42, 0.822, 0.822]


@both_scores
@settings(max_examples=30)
@examples(problem=problems(unknown=(0.0, 0.3, 1.0)))
def test_rows__are_scored_as_the_formula_says_without_unknown_classes(score, problem):
    probs, table = problem
    got = row_scores(probs, from_states(table), score=score)
    compiled = fast.row_scores(probs, from_states(table), score=score)
    np.testing.assert_allclose(compiled, got, atol=1e-12)
    for i, row in enumerate(table):
        p = probs[i].astype(np.float64)
        known = [p[c] if row[c] == 1 else 1 - p[c] for c in range(len(row)) if row[c] >= 0]
        # Sums of up to seven terms in two orders.
        assert got[i] == pytest.approx(LOOPS[score](known), abs=1e-12)


@both_scores
def test_rows__are_scored_as_by_cleanlab(score):
    from cleanlab.multilabel_classification import get_label_quality_scores

    probs, table, _ = make(1)
    aggregate = {
        "ema": {"method": "exponential_moving_average", "alpha": 0.8},
        "softmin": {"method": "softmin", "temperature": 0.1},
    }[score]
    named = [np.flatnonzero(row).tolist() for row in table]
    want = get_label_quality_scores(named, probs, aggregator_kwargs=aggregate)
    np.testing.assert_allclose(row_scores(probs, from_states(table), score=score), want, atol=1e-12)


@both_scores
def test_rows__do_not_depend_on_the_order_of_items_and_classes(score):
    probs, table, _ = make(2, unknown=0.2)
    items, classes = np.random.default_rng(0).permutation(200), [3, 0, 4, 1, 2]
    want = row_scores(probs, from_states(table), score=score)[items]
    moved = from_states(table[items][:, classes])
    got = row_scores(probs[items][:, classes], moved, score=score)
    # A sum of five terms in two orders.
    np.testing.assert_allclose(got, want, atol=1e-15)


@both_scores
def test_rows__of_nothing_known_certain_and_impossible_labels(score):
    probs = np.array([[0.3, 0.4], [1.0, 0.0], [0.0, 1.0]])
    labels = from_states(np.array([[-1, -1], [1, 0], [1, 0]]))
    assert row_scores(probs, labels, score=score).tolist() == [1.0, 1.0, 0.0]
    assert row_scores(probs[:0], label_sets([], n_classes=2), score=score).shape == (0,)


@both_scores
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_rows__of_many_classes_are_scored_alike_by_both_loops(score, unknown):
    probs, table, _ = make(3, n=50, n_classes=300, unknown=unknown)
    labels = from_states(table)
    want = row_scores(probs, labels, score=score)
    # Sums of 300 terms in two orders.
    np.testing.assert_allclose(fast.row_scores(probs, labels, score=score), want, atol=1e-12)


def test_cells__unknown_ones_have_no_score():
    scores = cell_scores(np.array([[0.2, 0.2, 0.2]]), from_states(np.array([[1, 0, -1]])))
    np.testing.assert_array_equal(scores, [[0.2, 0.8, np.nan]])


def test_scores__unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"one of \['ema', 'softmin'\], got 'mean'"):
        row_scores(TOY_PROBS, TOY, score="mean")
    with pytest.raises(ValueError, match=r"one of \['ema', 'softmin'\], got 'mean'"):
        fast.row_scores(TOY_PROBS, TOY, score="mean")
