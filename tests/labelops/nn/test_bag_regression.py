"""Oracles: logistic regression for bags of one, planted log-odds, invariances of the likelihood."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labelops.nn import bag_regression
from labelops.nn.bag_evidence import BagCounts
from labelops.nn.bag_fourier import Basis, basis, draw_fourier
from labelops.nn.bag_regression import bag_log_odds, fit_bag_model, refit_bag_model


def planted(n_bags, size, *, seed=0, n_features=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_bags * size, n_features))
    log_odds = 2 * x[:, 0] - x[:, 1] - 0.5
    y = rng.random(len(x)) < 1 / (1 + np.exp(-log_odds))
    start = np.arange(0, len(x) + 1, size)
    return x, start, np.add.reduceat(y, start[:-1], dtype=int), log_odds


def test_bags_of_one__are_logistic_regression_with_the_same_penalty():
    x, start, y, _ = planted(300, 1)
    fourier = draw_fourier(x, width=1.0, n_fourier=0, seed=0)
    counts = BagCounts(Basis(fourier, x.astype(np.float32)), start, y.astype(float))
    coefficients = counts.maximise((2.0, 1.0)).coefficients
    # Σ loss + ‖w‖² / (2 · 2): scikit-learn's C is the prior variance.
    want = LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(basis(fourier, x), y)
    # A step that gains 3e-4 nats is left; the curvature is some 30 nats a unit. The weak prior of
    # the bias, a variance of 100, is less than that.
    np.testing.assert_allclose(coefficients[:-1], want.coef_[0], atol=0.01)
    assert coefficients[-1] == pytest.approx(want.intercept_[0], abs=0.01)


@pytest.mark.parametrize("size", [4, 32])
def test_fit__finds_planted_log_odds_from_counts(size):
    x, start, k, log_odds = planted(300, size)
    model = fit_bag_model(x, start, k, n_fourier=20, seed=0)
    predicted = bag_log_odds(model, x)
    assert np.corrcoef(predicted, log_odds)[0, 1] > 0.97
    # Shrunk, but not by much: 300 counts say much about four coefficients.
    assert np.polyfit(log_odds, predicted, 1)[0] == pytest.approx(1, abs=0.3)


def test_fit__waves_follow_what_is_not_linear():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    is_near = (x**2).sum(axis=1) < 1.2
    start = np.arange(0, 4001, 10)
    k = np.add.reduceat(is_near, start[:-1], dtype=int)
    linear = bag_log_odds(fit_bag_model(x, start, k, n_fourier=0, seed=0), x) > 0
    smooth = bag_log_odds(fit_bag_model(x, start, k, n_fourier=40, seed=0), x) > 0
    assert (linear == is_near).mean() < 0.65
    assert (smooth == is_near).mean() > 0.9


def test_fit__counts_without_variance_say_the_share_and_nothing_else():
    x, start, _, _ = planted(40, 10)
    model = fit_bag_model(x, start, np.full(40, 3), n_fourier=10, seed=0)
    p = 1 / (1 + np.exp(-bag_log_odds(model, x)))
    assert p.mean() == pytest.approx(0.3, abs=0.02)
    assert p.std() < 0.1


@pytest.mark.parametrize("k", [0, 10])
def test_fit__bags_of_one_class_give_finite_log_odds_of_it(k):
    x, start, _, _ = planted(20, 10)
    predicted = bag_log_odds(fit_bag_model(x, start, np.full(20, k), n_fourier=10, seed=0), x)
    assert np.isfinite(predicted).all()
    assert (np.sign(predicted) == (1 if k else -1)).all()


def test_fit__the_order_of_items_in_a_bag_and_of_bags_does_not_matter():
    x, start, k, _ = planted(60, 8)
    model = fit_bag_model(x, start, k, n_fourier=10, seed=0)
    order = np.random.default_rng(0).permutation(60)
    rows = (order[:, None] * 8 + np.arange(8)[::-1]).ravel()
    moved = fit_bag_model(x[rows], start, k[order], n_fourier=10, seed=0)
    assert moved.prior == model.prior
    # Sums in single precision in another order.
    np.testing.assert_allclose(bag_log_odds(moved, x), bag_log_odds(model, x), atol=5e-3)


def test_fit__classes_exchanged_give_the_opposite_log_odds():
    x, start, k, _ = planted(60, 8)
    model = fit_bag_model(x, start, k, n_fourier=10, seed=0)
    other = fit_bag_model(x, start, 8 - k, n_fourier=10, seed=0)
    np.testing.assert_allclose(bag_log_odds(other, x), -bag_log_odds(model, x), atol=5e-3)


def test_fit__any_number_of_threads_gives_the_same_bits():
    x, start, k, _ = planted(100, 8)
    before = torch.get_num_threads()
    predictions = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        predictions.append(bag_log_odds(fit_bag_model(x, start, k, n_fourier=16, seed=0), x))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*predictions)


def test_refit__on_the_same_bags_is_the_same_model_and_on_others_another():
    x, start, k, _ = planted(60, 8)
    model = fit_bag_model(x, start, k, n_fourier=10, seed=0)
    again = refit_bag_model(model, x, start, k)
    np.testing.assert_allclose(bag_log_odds(again, x), bag_log_odds(model, x), atol=0.05)
    fewer = refit_bag_model(model, x[: 8 * 20], start[:21], k[:20])
    assert np.abs(bag_log_odds(fewer, x) - bag_log_odds(model, x)).max() > 0.2


def test_refit__begun_with_some_of_the_bags_is_the_same_model(monkeypatch):
    x, start, k, _ = planted(120, 8)
    model = fit_bag_model(x, start, k, n_fourier=10, seed=0)
    at_once = refit_bag_model(model, x, start, k)
    monkeypatch.setattr(bag_regression, "COARSE_ITEMS", 200)
    begun = refit_bag_model(model, x, start, k)
    assert begun.left < 1e-3
    assert begun.log_evidence == pytest.approx(at_once.log_evidence, abs=0.01)
    np.testing.assert_allclose(bag_log_odds(begun, x), bag_log_odds(at_once, x), atol=0.02)


def test_fit__what_is_no_bag_table_is_refused():
    x, start, k, _ = planted(10, 4)
    with pytest.raises(ValueError, match=r"one item or more and cover all 40"):
        fit_bag_model(x, start[:-1], k[:-1], seed=0)
    with pytest.raises(ValueError, match=r"between 0 and the size of the bag"):
        fit_bag_model(x, start, k + 4, seed=0)
    with pytest.raises(ValueError, match=r"features must be finite"):
        fit_bag_model(np.where(x > 2, np.nan, x), start, k, seed=0)
