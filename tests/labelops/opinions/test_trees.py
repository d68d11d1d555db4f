"""Trees kept as arrays, against scikit-learn's own predictions."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from labelops.fast.trees import predict_trees
from labelops.opinions.trees import MAX_LEAVES, N_ROUNDS, Trees, fit_trees, n_items


def table(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, classes and folds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    given = (np.abs(x[:, 0] * x[:, 1]) * 3 + rng.normal(0, 0.3, n)).clip(0, n_classes - 1)
    return x, given.astype(np.int64), rng.integers(0, 3, n)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_are_those_of_scikit_learn(n_classes: int) -> None:
    x, given, fold = table(600, n_classes)
    found = predict_trees(fit_trees(x, given, fold, n_classes=n_classes, n_folds=3), x, fold)
    for f in range(3):
        model = HistGradientBoostingClassifier(
            max_iter=N_ROUNDS, max_leaf_nodes=MAX_LEAVES, early_stopping=False
        ).fit(x[fold != f].astype(np.float64), given[fold != f])
        expected = model.predict_proba(x[fold == f].astype(np.float64))
        assert found[fold == f] == pytest.approx(expected, abs=1e-6)


def test_the_number_of_threads_and_the_cut_of_items_change_nothing() -> None:
    x, given, fold = table(500, 3)
    one, two = (
        fit_trees(x, given, fold, n_classes=3, n_folds=3, n_threads=threads) for threads in (1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    whole = predict_trees(one, x, fold)
    parts = [predict_trees(one, x[a:b], fold[a:b]) for a, b in ((0, 1), (1, 333), (333, 500))]
    assert np.array_equal(whole, np.concatenate(parts))


def test_arrays_bring_back_the_same_trees() -> None:
    x, given, fold = table(200, 2)
    trees = fit_trees(x, given, fold, n_classes=2, n_folds=3)
    again = Trees.of(dict(trees.arrays()))
    assert np.array_equal(predict_trees(again, x, fold), predict_trees(trees, x, fold))


def test_a_class_that_a_fold_has_not_seen_gets_nothing() -> None:
    x, _, _ = table(90, 3)
    given, fold = np.repeat([0, 2, 3], 30), np.tile([0, 1, 2], 30)
    fold[given == 3] = 1
    probs = predict_trees(fit_trees(x, given, fold, n_classes=5, n_folds=3), x, fold)
    assert probs.sum(axis=1) == pytest.approx(np.ones(90))
    # Class 3 is in fold 1 only, classes 1 and 4 nowhere.
    assert (probs[fold == 1][:, [1, 3, 4]] == 0).all()
    assert (probs[fold == 0][:, 3] > 0).all()


@pytest.mark.parametrize("n", [1, 4])
def test_one_class_or_nothing_to_learn_from(n: int) -> None:
    x, given, fold = np.zeros((n, 2)), np.ones(n, np.int64), np.zeros(n, np.int64)
    trees = fit_trees(x, given, fold, n_classes=2, n_folds=2)
    # Everything is in fold 0, whose model has seen nothing; the other has seen one class.
    assert predict_trees(trees, x, fold).tolist() == [[0.5, 0.5]] * n
    assert predict_trees(trees, x, fold + 1).tolist() == [[0.0, 1.0]] * n


def test_as_many_items_as_memory_allows() -> None:
    assert n_items(10_000) * 10_000 * 8 <= 256 * 2**20 + 80_000
