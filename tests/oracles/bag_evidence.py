"""The evidence of bags' counts: in double precision, with nothing but the likelihood's value."""

import numpy as np
from scipy.optimize import minimize

from labelops.proportions.likelihood import count_fit


def log_posterior(w, phi, start, k, centre, precision):
    """Log-likelihood of the counts minus what the prior costs; phi has a column of ones."""
    fit = count_fit(phi @ w, start, k)
    return fit.log_likelihood.sum() - 0.5 * precision @ (w - centre) ** 2


def optimum(phi, start, k, centre, precision):
    """By another's quasi-Newton method."""

    def down(w):
        fit = count_fit(phi @ w, start, k)
        value = fit.log_likelihood.sum() - 0.5 * precision @ (w - centre) ** 2
        return -value, precision * (w - centre) - phi.T @ fit.gradient

    return minimize(down, centre, jac=True, method="BFGS", options={"gtol": 1e-7}).x


def curvature(w, of, *, step=1e-3):
    """Minus the second derivative at w, from differences of values."""

    def value(v):
        return log_posterior(v, *of)

    each = step * np.eye(len(w))
    return -np.array(
        [
            [
                value(w + a + b) - value(w + a - b) - value(w - a + b) + value(w - a - b)
                for b in each
            ]
            for a in each
        ]
    ) / (4 * step**2)


def information(w, phi, start, k, centre, precision):
    """The covariance of the slope over counts as they come: of bag b, Σ s φ Σ s φᵀ / Σ s."""
    total = np.zeros((len(w), len(w)))
    for b in range(len(k)):
        rows = phi[start[b] : start[b + 1]]
        p = 1 / (1 + np.exp(-rows @ w))
        slope = p * (1 - p) @ rows
        total += np.outer(slope, slope) / (p * (1 - p)).sum()
    return total


def laplace(w, *of):
    """Laplace's approximation at w: with the second derivative, or the information if larger."""
    prior = np.diag(of[-1])
    dets = [np.linalg.slogdet(m) for m in (curvature(w, of), information(w, *of) + prior)]
    log_det = max(value for sign, value in dets if sign > 0) - np.log(of[-1]).sum()
    return log_posterior(w, *of) - 0.5 * log_det


def integral(w, *of, reach=6.0, n=31):
    """The evidence itself, of two coefficients, on a grid of posterior standard deviations."""
    root = np.linalg.cholesky(np.linalg.inv(curvature(w, of)))
    z = np.linspace(-reach, reach, n)
    values = np.array([[log_posterior(w + root @ [a, b], *of) for b in z] for a in z])
    top = values.max()
    cell = (z[1] - z[0]) ** 2 * root[0, 0] * root[1, 1]
    return top + np.log(np.exp(values - top).sum() * cell * np.sqrt(of[-1].prod()) / (2 * np.pi))
