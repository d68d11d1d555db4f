"""Companions of true classes: enumeration of all sets, loops, planted rates, and permutations."""

from itertools import product

import numpy as np
import pytest
from scipy.special import softmax

from labelops.partial.candidate_pairs import (
    NEVER,
    PRIOR_ITEMS,
    fit_rates,
    log_likelihoods,
    pair_loss,
    pair_weights,
)

K = 4


def some_rates(n_classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.95, (n_classes, n_classes))


def draw(true: np.ndarray, rates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return sets with the true class and its companions."""
    sets = np.random.default_rng(seed).random((len(true), len(rates))) < rates[true]
    sets[np.arange(len(true)), true] = True
    return sets


def likelihood(a: int, members: set[int], rates: np.ndarray) -> float:
    """Return P(C | a), one class after the other."""
    if a not in members:
        return 0.0
    p = 1.0
    for b in range(len(rates)):
        if b != a:
            p *= rates[a, b] if b in members else 1 - rates[a, b]
    return p


def test_likelihoods__are_those_of_loops_and_sum_to_one_over_all_sets() -> None:
    rates = some_rates(K)
    every = np.array(list(product([False, True], repeat=K)))
    found = np.exp(log_likelihoods(rates, every))
    np.testing.assert_allclose(found.sum(axis=0), 1)
    for i, members in enumerate(every):
        for a in range(K):
            assert found[i, a] == pytest.approx(likelihood(a, {*np.flatnonzero(members)}, rates))


def test_weights_and_loss__are_bayes_rule_by_loops() -> None:
    rng, n = np.random.default_rng(1), 40
    true, fold = rng.integers(0, K, n), np.arange(n) % 2
    sets, probs = draw(true, some_rates(K)), softmax(rng.normal(size=(n, K)), axis=1)
    rates, total = some_rates(K, 2), 0.0
    weights = pair_weights(probs, sets, rates)
    for i in range(n):
        members = {*np.flatnonzero(sets[i])}
        joint = [probs[i, a] * likelihood(a, members, rates) for a in range(K)]
        np.testing.assert_allclose(weights[i], np.array(joint) / sum(joint))
        others = fit_rates(probs[fold != fold[i]], sets[fold != fold[i]])
        total -= np.log(sum(probs[i, a] * likelihood(a, members, others) for a in range(K)))
    assert pair_loss(probs, sets, fold) == pytest.approx(total / n)


def test_rates__of_known_classes_are_counts_drawn_to_the_mean() -> None:
    true = np.repeat(np.arange(K), [5, 50, 500, 0])
    sets, probs = draw(true, some_rates(K)), np.eye(K)[true]
    found = fit_rates(probs, sets)
    for a in range(K):
        for b in range(K):
            if a == b:
                continue
            mean = sets[true != b, b].mean()
            n, together = (true == a).sum(), sets[true == a, b].sum()
            wanted = (together + PRIOR_ITEMS * mean) / (n + PRIOR_ITEMS)
            assert found[a, b] == pytest.approx(wanted, abs=2e-3)


def test_rates__that_were_planted_are_found_from_unsure_predictions() -> None:
    rng, n, planted = np.random.default_rng(0), 20_000, some_rates(K, 3)
    probs = softmax(3 * rng.normal(size=(n, K)), axis=1)
    true = (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    found = fit_rates(probs, draw(true, planted))
    off = ~np.eye(K, dtype=bool)
    assert np.abs(found - planted)[off].max() < 0.06


def test_evenly_drawn_companions__leave_probabilities_as_they_are() -> None:
    rng, n = np.random.default_rng(0), 4000
    probs = softmax(2 * rng.normal(size=(n, K)), axis=1)
    true = (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    sets = draw(true, np.full((K, K), 0.3))
    kept = np.where(sets, probs, 0)
    found = pair_weights(probs, sets, fit_rates(probs, sets))
    assert np.abs(found - kept / kept.sum(axis=1, keepdims=True)).mean() < 0.01


def test_classes_and_items__may_be_permuted_and_absent_classes_added() -> None:
    rng, n = np.random.default_rng(0), 60
    true, fold = rng.integers(0, K, n), np.arange(n) % 3
    sets, probs = draw(true, some_rates(K)), softmax(rng.normal(size=(n, K)), axis=1)
    rates, loss = fit_rates(probs, sets), pair_loss(probs, sets, fold)
    turn, order = rng.permutation(K), rng.permutation(n)
    turned = fit_rates(probs[order][:, turn], sets[order][:, turn])
    np.testing.assert_allclose(turned, rates[turn][:, turn])
    assert pair_loss(probs[order], sets[order], fold[order]) == pytest.approx(loss)
    more = np.pad(probs, ((0, 0), (0, 1))), np.pad(sets, ((0, 0), (0, 1)))
    np.testing.assert_allclose(fit_rates(*more)[:K, :K], rates, atol=1e-4)


def test_corners() -> None:
    nothing = np.zeros((0, K))
    assert fit_rates(nothing, nothing.astype(bool)).shape == (K, K)
    assert pair_loss(nothing, nothing.astype(bool), np.zeros(0, np.int64)) == 0
    one = np.eye(K, dtype=bool)[:1]
    rates = fit_rates(one.astype(float), one)
    assert np.isfinite(np.log(rates)).all()
    assert (rates[~np.eye(K, dtype=bool)] == NEVER).all()
    assert pair_weights(np.array([[0.0, 1.0, 0.0, 0.0]]), one, rates).tolist() == [[1, 0, 0, 0]]
    whole = np.ones((30, K), bool)
    weights = pair_weights(
        np.full((30, K), 1 / K), whole, fit_rates(np.full((30, K), 1 / K), whole)
    )
    np.testing.assert_allclose(weights, 1 / K)
    with pytest.raises(ValueError, match="at least one"):
        fit_rates(np.full((2, K), 0.25), np.zeros((2, K), bool))
