"""Oracles: BFGS of SciPy in double precision, a dense Laplace, the integral."""

import numpy as np
import pytest
import torch

from labelops.nn import bag_fourier
from labelops.nn.bag_evidence import LEFT, BagCounts
from labelops.nn.bag_fourier import Basis, basis, draw_fourier
from tests.oracles.bag_evidence import integral, laplace, log_posterior, optimum


def planted(n_bags, size, *, seed=0, n_features=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_bags * size, n_features)).astype(np.float32)
    y = rng.random(len(x)) < 1 / (1 + np.exp(-2 * x[:, 0] + x[:, -1] + 0.5))
    start = np.arange(0, len(x) + 1, size)
    return x, start, np.add.reduceat(y, start[:-1], dtype=float)


def prepared(x, start, k, *, n_fourier=3):
    fourier = draw_fourier(x, width=1.0, n_fourier=n_fourier, seed=0)
    counts = BagCounts(Basis(fourier, x), start, k)
    return counts, np.column_stack([basis(fourier, x), np.ones(len(x))]).astype(float)


@pytest.mark.parametrize("prior", [(0.3, 0.3), (3.0, 3.0), (100.0, 30.0)])
@pytest.mark.parametrize(("n_bags", "size"), [(200, 1), (80, 8), (30, 300)])
def test_optimum__is_that_of_another_method_in_double_precision(n_bags, size, prior):
    x, start, k = planted(n_bags, size)
    counts, phi = prepared(x, start, k)
    precision = counts.precision(prior)
    best = counts.maximise(prior)
    want = optimum(phi, start, k, counts.centre, precision)
    of = (phi, start, k, counts.centre, precision)
    gap = log_posterior(want, *of) - log_posterior(best.coefficients, *of)
    assert best.left <= LEFT
    # What a step would still gain, and single precision.
    assert abs(gap) < 2 * LEFT
    # 6e-4 nats off are at most 0.035 posterior standard deviations, of two and more far out.
    np.testing.assert_allclose(phi @ best.coefficients, phi @ want, atol=0.1)
    # Second differences of values in the hundreds, and the determinant a bit off the optimum.
    assert best.log_evidence == pytest.approx(laplace(best.coefficients, *of), abs=0.01)
    less = counts.maximise(prior, least_evidence=0.0)
    assert best.log_evidence <= less.log_evidence < 0


def test_optimum__the_slope_there_is_flat_however_large_the_bags():
    # What 30 steps of scoring by expected information left unfinished, by a hundred nats.
    rng = np.random.default_rng(0)
    y = rng.random(20 * 1000) < np.repeat(rng.beta(2, 5, 20), 1000)
    x = rng.normal(size=(len(y), 8)) + np.outer(y - 0.5, np.full(8, 0.7))
    start = np.arange(0, len(y) + 1, 1000)
    counts, phi = prepared(x.astype(np.float32), start, np.add.reduceat(y * 1.0, start[:-1]))
    for prior in ((1.0, 1.0), (9.0, 3.0)):
        optimum = counts.maximise(prior)
        precision = counts.precision(prior)
        point = counts._point(optimum.coefficients, precision)
        slope = phi.T @ point.fit.gradient - precision * (optimum.coefficients - counts.centre)
        hessian = _hessian(counts, point) + np.diag(precision)
        # What is left to gain is half the squared slope in units of the curvature.
        assert slope @ np.linalg.solve(hessian, slope) / 2 < 2 * LEFT
        assert np.linalg.eigvalsh(hessian).min() > 0
        assert optimum.n_steps < 30


def _hessian(counts, point):
    return counts._observed(point).numpy()


def test_curvature__of_bags_that_go_over_blocks_is_that_of_differences(monkeypatch):
    monkeypatch.setattr(bag_fourier, "BLOCK_ROWS", 7)
    monkeypatch.setattr(bag_fourier, "KEPT_BYTES", 0)
    rng = np.random.default_rng(0)
    sizes = np.array([1, 20, 3, 7, 7, 2, 30, 5])
    start = np.concatenate([[0], np.cumsum(sizes)])
    x = rng.normal(size=(sizes.sum(), 2)).astype(np.float32)
    k = np.array([1, 4, 0, 7, 3, 1, 22, 2.0])
    counts, phi = prepared(x, start, k)
    precision = counts.precision((1.0, 1.0))
    w = rng.normal(size=phi.shape[1])

    def slope(v):
        return phi.T @ counts._point(v, precision).fit.gradient

    step = 1e-3
    rows = [(slope(w - step * e) - slope(w + step * e)) / (2 * step) for e in np.eye(len(w))]
    # Log-odds in single precision, 1e-6, over the step.
    np.testing.assert_allclose(_hessian(counts, counts._point(w, precision)), rows, atol=0.02)
    p = 1 / (1 + np.exp(-phi @ w))
    variance = p * (1 - p)
    of_bag = np.add.reduceat(phi * variance[:, None], start[:-1])
    of_bag /= np.sqrt(np.add.reduceat(variance, start[:-1]))[:, None]
    model = counts._model(counts._point(w, precision), precision, torch.zeros(()))
    np.testing.assert_allclose(model.expected.numpy(), of_bag.T @ of_bag, atol=1e-4)


@pytest.mark.parametrize(("n_bags", "size"), [(30, 1), (30, 6), (12, 200)])
def test_evidence__is_near_the_integral_over_two_coefficients(n_bags, size):
    x, start, k = planted(n_bags, size, n_features=1)
    counts, phi = prepared(x, start, k, n_fourier=0)
    optimum = counts.maximise((1.0, 1.0))
    of = (phi, start, k, counts.centre, counts.precision((1.0, 1.0)))
    exact = integral(optimum.coefficients, *of)
    # Laplace's own error: a skewed posterior of a dozen counts, and the mean of its curvature.
    assert optimum.log_evidence == pytest.approx(exact, abs=0.25)


def test_optimum__from_another_prior_is_the_same_as_from_nothing():
    x, start, k = planted(100, 40)
    counts, _ = prepared(x, start, k)
    cold = counts.maximise((9.0, 1.0))
    warm = counts.maximise((9.0, 1.0), counts.maximise((1.0, 1.0)))
    assert warm.n_steps < cold.n_steps
    # The determinant of points that are some hundredths of a standard deviation apart.
    assert warm.log_evidence == pytest.approx(cold.log_evidence, abs=0.01)


def test_optimum__does_not_depend_on_whether_the_basis_is_kept(monkeypatch):
    x, start, k = planted(30, 300)
    kept = prepared(x, start, k)[0].maximise((3.0, 3.0))
    monkeypatch.setattr(bag_fourier, "KEPT_BYTES", 0)
    made = prepared(x, start, k)[0].maximise((3.0, 3.0))
    np.testing.assert_array_equal(made.coefficients, kept.coefficients)
    assert made.log_evidence == kept.log_evidence


@pytest.mark.parametrize("share", [0, 1])
def test_optimum__of_bags_of_one_class_is_finite(share):
    x, start, _ = planted(20, 5)
    optimum = prepared(x, start, np.full(20, 5.0 * share))[0].maximise((10.0, 10.0))
    assert np.isfinite(optimum.coefficients).all()
    assert np.isfinite(optimum.log_evidence)
    assert optimum.left <= LEFT
