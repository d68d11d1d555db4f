"""Opinions of cells: a search over a grid, Bayes' rule written out, loops, and scikit-learn."""

import itertools

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from labelops.fast.neighbours import Voters
from labelops.fast.trees import predict_trees
from labelops.opinions.nearest import N_VOTERS, refer
from labelops.opinions.sets import fit_cell_weights, pool_cells
from labelops.opinions.trees import MAX_LEAVES, N_ROUNDS, fit_trees


def cells(n=400, k=3, seed=0):
    """Return two opinions of cells, one better than the other, and states, some unknown."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, k))
    states = (rng.random((n, k)) < 1 / (1 + np.exp(-z))).astype(np.int8)
    states[rng.random((n, k)) < 0.2] = -1
    said = np.stack([z + rng.normal(0, s, (n, k)) for s in (0.5, 3.0)])
    return 1 / (1 + np.exp(-said)), states


def product(probs, weights):
    yes, no = np.ones(probs.shape[1:]), np.ones(probs.shape[1:])
    for p, w in zip(probs, weights, strict=True):
        yes, no = yes * p**w, no * (1 - p) ** w
    return yes / (yes + no)


def loss(probs, states, weights):
    known = states != -1
    p = product(probs, weights)[known]
    return -np.log(np.where(states[known] == 1, p, 1 - p)).mean()


def test_pool__is_the_normalised_product_of_powers():
    probs, _ = cells()
    np.testing.assert_allclose(pool_cells(probs, [0.7, 0.2]), product(probs, [0.7, 0.2]))


def test_weights__are_the_best_of_a_grid():
    probs, states = cells()
    grid = np.linspace(0, 1.5, 31)
    best = min(itertools.product(grid, grid), key=lambda w: loss(probs, states, w))
    found = fit_cell_weights(probs, states)
    np.testing.assert_allclose(found, best, atol=0.05)
    assert loss(probs, states, found) <= loss(probs, states, best)


def test_what_is_unknown__counts_for_nothing():
    probs, states = cells()
    again = probs.copy()
    again[:, states == -1] = 0.123
    assert np.array_equal(fit_cell_weights(again, states), fit_cell_weights(probs, states))
    assert fit_cell_weights(probs, np.full_like(states, -1)).tolist() == [0.5, 0.5]


def test_weights__of_one_sided_answers_are_equal():
    """Where only what is there was said, whoever always says yes is always right."""
    probs, states = cells()
    assert fit_cell_weights(probs, np.where(states == 1, 1, -1)).tolist() == [0.5, 0.5]
    assert fit_cell_weights(probs, np.where(states == 0, 0, -1)).tolist() == [0.5, 0.5]


def test_sure_answers__stay_finite_and_a_row_stands_alone():
    probs = np.array([[[0.0, 1.0], [0.5, 1.0]], [[1.0, 1.0], [0.5, 0.2]]])
    whole = pool_cells(probs, [1.0, 2.0])
    assert np.isfinite(whole).all()
    assert whole[0, 0] > 0.99
    assert np.array_equal(whole[1:], pool_cells(probs[:, 1:], [1.0, 2.0]))


def test_pool__of_many_blocks_is_that_of_one(monkeypatch):
    probs, _ = cells()
    whole = pool_cells(probs, [0.7, 0.2])
    monkeypatch.setattr("labelops.opinions.sets.BLOCK_CELLS", 10)
    assert np.array_equal(pool_cells(probs, [0.7, 0.2]), whole)


def table(n=300, k=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    states = (x @ rng.normal(size=(5, k)) + rng.normal(0, 0.5, (n, k)) > 1).astype(np.int8)
    states[rng.random((n, k)) < 0.3] = -1
    return x, states


def test_votes__are_those_of_a_loop_without_the_item_itself():
    x, states = table()
    hashes = np.arange(len(x), dtype=np.uint64)[::-1].copy()
    n_known = 200
    voters = Voters(refer(x[:n_known], states[:n_known], hashes[:n_known]), n_classes=4)
    found = voters.votes(x, hashes)
    exact = x.astype(float)
    ready = (exact - exact[:n_known].mean(axis=0)) / exact[:n_known].std(axis=0)
    for i in range(len(x)):
        others = [j for j in range(n_known) if j != i]
        others.sort(key=lambda j: np.square(ready[i] - ready[j]).sum())
        for c in range(4):
            known = [states[j, c] for j in others if states[j, c] != -1]
            share = (sum(known) + 0.5) / (len(known) + 1)
            near = [states[j, c] for j in others[:N_VOTERS] if states[j, c] != -1]
            assert found[i, c] == pytest.approx((sum(near) + share) / (len(near) + 1), abs=1e-6)


def test_trees__are_those_of_scikit_learn_on_what_is_known_of_a_class():
    x, states = table()
    fold = np.arange(len(x)) % 3
    found = predict_trees(
        fit_trees(x, states, fold, n_classes=4, n_folds=3), x, fold, link="sigmoid"
    )
    for f, c in itertools.product(range(3), range(4)):
        train = (fold != f) & (states[:, c] != -1)
        model = HistGradientBoostingClassifier(
            max_iter=N_ROUNDS, max_leaf_nodes=MAX_LEAVES, early_stopping=False
        ).fit(x[train].astype(float), states[train, c])
        want = model.predict_proba(x[fold == f].astype(float))[:, 1]
        np.testing.assert_allclose(found[fold == f, c], want, atol=1e-6)


def test_class_that_all_have_or_nobody_has_or_nobody_knows__is_believed_by_how_many_say_so():
    x, fold = np.zeros((8, 1), np.float32), np.zeros(8, np.int64)
    states = np.tile(np.array([1, 0, -1], np.int8), (8, 1))
    trees = fit_trees(x, states, fold, n_classes=3, n_folds=2)
    assert predict_trees(trees, x[:1], fold[:1] + 1, link="sigmoid")[0] == pytest.approx(
        [8.5 / 9, 0.5 / 9, 0.5]
    )
    assert predict_trees(trees, x[:1], fold[:1], link="sigmoid").tolist() == [[0.5] * 3]
    hashes = np.arange(8, dtype=np.uint64)
    votes = Voters(refer(x, states, hashes), n_classes=3).votes(x, hashes)
    # Seven others: (7 + 7.5 / 8) / 8.
    assert votes[0] == pytest.approx([(7 + 7.5 / 8) / 8, 0.5 / 64, 0.5])
