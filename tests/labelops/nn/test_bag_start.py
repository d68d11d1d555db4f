"""The regression that a stage begins with. Oracle: planted log-odds, and fits without a bag."""

import numpy as np
import pytest
from scipy.special import softmax

from labelops.nn import bag_start as module
from labelops.nn.bag_regression import fit_bag_model, refit_bag_model
from labelops.nn.bag_start import as_logits, fit_start


def planted(n_bags: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    share = rng.beta(1, 1, n_bags)
    true = rng.random(n_bags * size) < np.repeat(share, size)
    x = rng.normal(size=(n_bags * size, 3)).astype(np.float32)
    x[:, 0] += 2.0 * true
    start = np.arange(0, n_bags * size + 1, size)
    k = np.add.reduceat(true.astype(np.int64), start[:-1])
    return x, start, np.stack([size - k, k], axis=1), true


def fit(
    x: np.ndarray, start: np.ndarray, counts: np.ndarray, most_items: int = 10_000
) -> module.StartModel:
    return fit_start(x, start, counts, most_items=most_items, n_fourier=8, seed=0)


def test_judging__does_not_use_the_counts_of_the_own_fold() -> None:
    x, start, counts, _ = planted(30, 6)
    fold = module._folds(30, 0)
    fitted = fit(x, start, counts)
    rest = np.flatnonzero(fold != fold[4])
    items = np.concatenate([np.arange(start[b], start[b + 1]) for b in rest])
    cut = np.arange(0, len(items) + 1, 6)
    model = fit_bag_model(x, start, counts[:, 1], n_fourier=8, seed=0)
    without = refit_bag_model(model, x[items], cut, counts[rest, 1])
    rows = slice(start[4], start[5])
    log_odds = module._Problem(x, start, counts[:, 1]).log_odds(without)
    wanted = softmax(as_logits(log_odds[:, None]), axis=1)
    np.testing.assert_allclose(fitted.judging[rows], wanted[rows], atol=1e-12)


@pytest.mark.parametrize("most_items", [10_000, 300])
def test_start__tells_planted_classes_apart_also_from_some_of_the_bags(
    most_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRIOR_ITEMS", 150)
    x, start, counts, true = planted(100, 8)
    fitted = fit(x, start, counts, most_items)
    assert fitted.n_fitted == (100 if most_items == 10_000 else 37)
    for logits in (fitted.logits, fitted.held_logits):
        right = (logits[:, 1] > logits[:, 0]) == true
        # Two spreads apart: 84 of 100 is what the best rule gets without totals of bags.
        assert right.mean() > 0.78
    assert softmax(fitted.logits, axis=1).sum(axis=1) == pytest.approx(1)


def test_start__of_each_class_against_the_rest_makes_probabilities_of_all() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 240)
    x = (3 * np.eye(3)[true] + rng.normal(size=(240, 3))).astype(np.float32)
    start = np.arange(0, 241, 6)
    counts = np.stack([np.add.reduceat((true == k) * 1, start[:-1]) for k in range(3)], axis=1)
    fitted = fit(x, start, counts)
    assert fitted.judging.shape == (240, 3)
    assert (fitted.logits.argmax(axis=1) == true).mean() > 0.85


def test_start__says_how_far_from_converged_the_worst_class_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, start, counts, _ = planted(30, 6)
    three = np.concatenate([counts, np.zeros((30, 1), int)], axis=1)
    left = iter([0.25, 3.0, 0.5])

    def fitted(*args: object, **settings: object) -> object:
        return fit_bag_model(*args, **settings)._replace(left=next(left))

    assert fit(x, start, counts).left < 1e-3
    monkeypatch.setattr(module, "fit_bag_model", fitted)
    assert fit(x, start, three).left == 3.0
