"""Oracles: scikit-learn, loops over items, enumeration of the unknown, ReaL as published."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from labelops.multilabel.accuracy import real_share, variable_top_k
from labelops.multilabel.evaluate import average_precisions, rank_measures, set_measures
from labelops.multilabel.labels import from_flat, from_states, label_sets
from labelops.multilabel.resampling import average, draws, measure
from tests.labelops.multilabel.data import make

seeds = st.integers(0, 2**32 - 1)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def sets_of(predicted, table):
    return set_measures(predicted, from_states(table), rng=generator(), n_draws=20)


def ranks_of(scores, table):
    return rank_measures(scores, from_states(table), rng=generator(), n_draws=20)


@settings(max_examples=40)
@examples(seed=seeds, n=st.integers(1, 30), is_tied=st.booleans())
def test_measures__are_those_of_scikit_learn_where_all_is_known(seed, n, is_tied):
    scores, table, _ = make(seed, n=n, n_classes=4)
    scores = np.round(scores * 4) / 4 if is_tied else scores
    predicted = scores > 0.5
    measures, ranks = sets_of(predicted, table), ranks_of(scores, table)
    with warnings.catch_warnings():
        # A class that nobody has.
        warnings.simplefilter("ignore")
        f1 = f1_score(table, predicted, average=None, zero_division=np.nan)
        macro = f1_score(table, predicted, average="macro", zero_division=np.nan)
        micro = f1_score(table, predicted, average="micro", zero_division=np.nan)
    pairs = zip(table.T, scores.T, strict=True)
    ap = [average_precision_score(t, s) if t.any() else np.nan for t, s in pairs]
    np.testing.assert_allclose(measures.class_f1, f1, atol=1e-12)
    np.testing.assert_allclose(measures.macro_f1.value, macro, atol=1e-12)
    np.testing.assert_allclose(measures.micro_f1.value, micro, atol=1e-12)
    assert measures.subset_accuracy.value == pytest.approx(accuracy_score(table, predicted))
    np.testing.assert_allclose(ranks.class_average_precision, ap, atol=1e-12)
    if table.any():
        assert ranks.mean_average_precision.value == pytest.approx(np.nanmean(ap))


@settings(max_examples=30)
@examples(seed=seeds)
def test_measures__unknown_cells_are_as_if_they_were_not_there(seed):
    """Loops over the known cells of each class, or of each item."""
    scores, table, _ = make(seed, n=25, n_classes=4, unknown=0.4)
    predicted = scores > 0.5
    measures, ranks = sets_of(predicted, table), ranks_of(scores, table)
    f1, ap = [], []
    for c in range(4):
        known = table[:, c] >= 0
        state, said = table[known, c], predicted[known, c]
        n = 2 * (state & said).sum() + (state != said).sum()
        f1.append(2 * (state & said).sum() / n if n else np.nan)
        ap.append(average_precision_score(state, scores[known, c]) if state.any() else np.nan)
    np.testing.assert_allclose(measures.class_f1, f1, atol=1e-12)
    np.testing.assert_allclose(ranks.class_average_precision, ap, atol=1e-12)
    whole, recall = [], []
    for row, said, score in zip(table, predicted, scores, strict=True):
        known = np.flatnonzero(row >= 0)
        if len(known):
            whole.append((row[known] == said[known]).all())
        present = set(np.flatnonzero(row == 1))
        if present:
            top = known[np.argsort(-score[known])][: len(present)]
            recall.append(len(present & set(top)) / len(present))
    assert measures.subset_accuracy.value == pytest.approx(np.mean(whole))
    assert ranks.multilabel_accuracy.value == pytest.approx(np.mean(recall))
    assert ranks.exact_set_accuracy.value == pytest.approx(np.mean(np.array(recall) == 1))


def test_measures__what_is_unknown_cannot_change_them():
    """Every way of filling in two unknown cells that drop out moves none of the known ones."""
    scores, table, _ = make(1, n=12, n_classes=3)
    hidden = [(2, 1), (7, 0)]
    for i, c in hidden:
        table[i, c] = -1
    base = sets_of(scores > 0.5, table)
    for values in itertools.product([0.0, 1.0], repeat=2):
        other = scores.copy()
        for (i, c), value in zip(hidden, values, strict=True):
            other[i, c] = value
        measures = sets_of(other > 0.5, table)
        assert measures.micro_f1 == base.micro_f1
        assert measures.subset_accuracy == base.subset_accuracy
        got = ranks_of(other, table)
        want = ranks_of(scores, table)
        np.testing.assert_array_equal(got.class_average_precision, want.class_average_precision)
        assert got.multilabel_accuracy == want.multilabel_accuracy


@pytest.mark.parametrize("seed", range(3))
def test_average_precision__of_a_draw_is_that_of_the_repeated_items(seed):
    rng = np.random.default_rng(seed)
    scores, is_yes = np.round(rng.random(15), 1), rng.random(15) < 0.4
    weights = draws(15, rng=rng, n_draws=10)
    precisions = average_precisions(scores, is_yes, weights)
    for weight, value in zip(weights.astype(int), precisions, strict=True):
        state = np.repeat(is_yes, weight)
        if state.any():
            repeated = average_precision_score(state, np.repeat(scores, weight))
            assert value == pytest.approx(repeated, abs=1e-12)
        else:
            assert np.isnan(value)


def test_real__is_what_was_published_for_imagenet(shared_data):
    path = shared_data / "imagenet_val_labels_real.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    with np.load(path) as archive:
        image, class_id = archive["real_pairs"].T
        predicted, given = archive["pred_argmax"], archive["given"]
    start = np.searchsorted(image, np.arange(50_001))
    truth = from_flat(class_id, start, n_classes=1000)
    shares = [real_share(one, truth) for one in (predicted, given)]
    assert shares[0].out_of.sum() == 46_837  # images that have any label after the review
    ones = np.ones((1, 50_000))
    assert average(shares[0], ones)[0] == pytest.approx(0.7761385, abs=5e-8)
    # "originals are missing from 9.98 % of non-empty sets"
    assert 1 - average(shares[1], ones)[0] == pytest.approx(0.0998, abs=5e-5)
    # Of more labels than one: "15.89 %".
    n_labels = np.diff(truth.start)
    assert (n_labels > 1).sum() / (n_labels > 0).sum() == pytest.approx(0.1589, abs=5e-5)


def test_real__prediction_that_nobody_judged_drops_out():
    truth = label_sets([[0], [0], [0], []], [[1], [1], [1], [0]], n_classes=3)
    share = real_share(np.array([0, 1, 2, 0]), truth)
    assert share.hits.tolist() == [1, 0, 0, 0]
    assert share.out_of.tolist() == [1, 1, 0, 0]


def test_top_k__equal_scores_go_by_class():
    recall, exact = variable_top_k(np.full((1, 3), 0.5), label_sets([[0, 2]], n_classes=3))
    assert recall.hits.tolist() == [0.5]
    assert exact.hits.tolist() == [0.0]


def test_measures__do_not_depend_on_order_and_repetition_of_items_and_order_of_classes():
    scores, table, _ = make(2, n=40, unknown=0.2)
    items, classes = np.random.default_rng(0).permutation(40), np.array([3, 0, 4, 1, 2])
    for change in (
        lambda x: x[items][:, classes],
        lambda x: np.tile(x, (2, 1)),
    ):
        for measures in (sets_of, ranks_of):
            first = scores > 0.5 if measures is sets_of else scores
            want, got = measures(first, table), measures(change(first), change(table))
            for name, value in want._asdict().items():
                if not name.startswith("class_"):
                    assert getattr(got, name).value == pytest.approx(value.value, abs=1e-12)


def test_measures__a_class_that_nobody_has_or_predicts_changes_nothing():
    scores, table, _ = make(3, n=40)
    wider = np.concatenate([scores, np.zeros((40, 1))], axis=1)
    absent = np.concatenate([table, np.zeros((40, 1), np.int8)], axis=1)
    assert ranks_of(wider, absent).mean_average_precision == ranks_of(scores, table)[0]
    want, got = sets_of(scores > 0.5, table), sets_of(wider > 0.5, absent)
    assert (got.macro_f1, got.micro_f1) == (want.macro_f1, want.micro_f1)
    assert np.isnan(got.class_f1[5])


@pytest.mark.parametrize("n", [0, 3])
def test_measures__of_nothing_known_are_not_numbers(n):
    measures = sets_of(np.ones((n, 2), bool), np.full((n, 2), -1, np.int8))
    ranks = ranks_of(np.ones((n, 2)), np.full((n, 2), -1, np.int8))
    for one in (*measures[:3], ranks.mean_average_precision, *ranks[2:]):
        assert np.isnan(one).all()


def test_measures__of_perfect_predictions_are_one():
    table = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], np.int8)
    for one in (*sets_of(table == 1, table)[:3], *ranks_of(table * 1.0, table)[2:]):
        assert one == (1.0, 1.0, 1.0)


def test_intervals__cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        table = (rng.random((150, 1)) < 0.5).astype(np.int8)
        said = (rng.random((150, 1)) < 0.7) == (table == 1)
        one = set_measures(said, from_states(table), rng=rng, n_draws=100).subset_accuracy
        covered += one.low <= 0.7 <= one.high
    # 95 % of 200, give or take three standard deviations, and a little for 100 draws.
    assert 176 <= covered <= 200


def test_intervals__are_repeatable_and_hold_the_value():
    scores, table, _ = make(4)
    first, again = (ranks_of(scores, table) for _ in range(2))
    assert first.mean_average_precision == again.mean_average_precision
    assert first[0].low < first[0].value < first[0].high
    assert measure(np.array([np.nan, 0.5])) != measure(np.array([0.5, np.nan]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: real_share(np.zeros(3, int), t), "must be 2 classes, one an item .* int64"),
        (lambda t: real_share(np.array([0, 2]), t), "lie in 0…1; item 1 has 2"),
        (lambda t: variable_top_k(np.ones((2, 3)), t), "2 rows and 2 columns .* got"),
        (lambda t: variable_top_k(np.array([[0, 1], [np.nan, 0]]), t), "row 1 has NaN"),
    ],
)
def test_inputs__that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(label_sets([[0], [1]], n_classes=2))
