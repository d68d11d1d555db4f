"""The opinion that is made of several, against a grid, a temperature and planted opinions."""

import itertools

import numpy as np
import pytest

from labelops.calibration import log_safe
from labelops.fast.pool import pool_and_lead
from labelops.opinions.pool import MAX_WEIGHT, fit_weights, log_opinions, pool
from labelops.temperature import fit_temperature


def opinions(n: int, n_classes: int, noise: tuple[float, ...], seed: int = 0) -> tuple:
    """Return labels, and opinions whose logits are off by so much."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, n_classes, n)
    logits = [2 * np.eye(n_classes)[given] + rng.normal(0, s, (n, n_classes)) for s in noise]
    probs = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in logits]
    return given, np.stack(probs)


def loss(probs: np.ndarray, given: np.ndarray, weights: tuple[float, ...]) -> float:
    """Return the mean of −log of the pooled probability of the given class, by its definition."""
    total = 0.0
    for i, mine in enumerate(given):
        z = [
            sum(w * np.log(p[i, k]) for w, p in zip(weights, probs, strict=True))
            for k in range(probs.shape[2])
        ]
        total += np.log(sum(np.exp(z))) - z[mine]
    return total / len(given)


def test_weights_are_the_best_of_a_grid() -> None:
    given, probs = opinions(100, 3, (1.5, 2.0))
    found = fit_weights(probs, given)
    grid = [w / 10 for w in range(20)]
    best = min(itertools.product(grid, grid), key=lambda w: loss(probs, given, w))
    assert loss(probs, given, tuple(found)) <= loss(probs, given, best)
    assert found == pytest.approx(best, abs=0.1)


def test_one_opinion_gets_its_temperature() -> None:
    given, probs = opinions(2000, 4, (1.5,))
    temperature = fit_temperature(log_safe(probs[0]), given)
    assert 1 / fit_weights(probs, given)[0] == pytest.approx(temperature, rel=1e-3)


def test_an_opinion_that_knows_nothing_is_left_out_and_others_correct_each_other() -> None:
    given, probs = opinions(4000, 5, (1.5, 1.5))
    rng = np.random.default_rng(1)
    nothing = rng.dirichlet(np.ones(5), 4000)
    weights = fit_weights(np.stack([*probs, nothing]), given)
    assert weights[2] < 0.05
    assert weights[0] == pytest.approx(weights[1], rel=0.2)
    right = [(p.argmax(axis=1) == given).mean() for p in probs]
    assert (pool(probs, weights[:2]).argmax(axis=1) == given).mean() > max(right) + 0.05


def test_an_opinion_that_says_the_opposite_is_not_turned_round() -> None:
    given, probs = opinions(500, 2, (0.5,))
    assert fit_weights(probs[:, :, ::-1], given).tolist() == [0.0]


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    _, probs = opinions(50, 7, (1.0, 2.0, 3.0))
    weights = np.array([0.3, 0.9, 0.1])
    whole = pool(probs, weights)
    alone = np.concatenate([pool(probs[:, i : i + 1], weights) for i in range(50)])
    assert np.array_equal(whole, alone)


def test_what_is_impossible_to_one_is_only_improbable() -> None:
    probs = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])
    assert pool(probs, np.ones(2))[0, 1] == pytest.approx(1e-6, rel=1e-3)
    assert np.isfinite(log_opinions(probs)).all()


@pytest.mark.parametrize(("n", "n_classes"), [(0, 3), (5, 1), (1, 2)])
def test_corners(n: int, n_classes: int) -> None:
    probs = np.full((2, n, n_classes), 1 / n_classes)
    weights = fit_weights(probs, np.zeros(n, np.int64))
    assert weights.tolist() == [0.5, 0.5]
    assert pool(probs, weights) == pytest.approx(probs[0])


def test_labels_that_are_all_right_stop_at_the_bound() -> None:
    probs = np.tile([[[0.9, 0.1]]], (1, 20, 1))
    weight = fit_weights(probs, np.zeros(20, np.int64))[0]
    assert 1 < weight <= MAX_WEIGHT
    assert pool(probs, np.array([weight]))[0, 0] > 0.999


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_compiled_pool__is_that_of_the_formula_and_says_who_leads(dtype: type, n: int) -> None:
    """With exact 0 and 1, and ties."""
    _, probs = opinions(n, 4, (1.5, 2.0, 3.0))
    probs = probs.astype(dtype)
    probs[0, : n // 2] = np.round(probs[0, : n // 2])
    probs[1, n // 2 :: 3] = 0.25
    weights = np.array([0.7, 2.0, 0.0])
    pooled, leading = pool_and_lead(probs, weights)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, pool(probs, weights), rtol=1e-6, atol=1e-12)
    assert np.array_equal(leading, probs.argmax(axis=2).T)


def test_compiled_pool__of_a_row_is_the_same_whatever_is_beside_it() -> None:
    _, probs = opinions(200, 7, (1.0, 2.0))
    weights = np.array([0.3, 0.9])
    whole, _ = pool_and_lead(probs, weights)
    for rows in (slice(0, 1), slice(13, 57), slice(199, 200)):
        assert np.array_equal(pool_and_lead(probs[:, rows], weights)[0], whole[rows])
