"""Functions for compiled loops, beside those of numpy in double precision."""

import numpy as np
import pytest

from labelops.fast.jit import compiled
from labelops.fast.logistic import exp, log, sides


@compiled()
def _over(z, powers, logs, four):
    for i in range(len(z)):
        powers[i] = exp(-abs(z[i]))
        logs[i] = log(powers[i])
        four[0, i], four[1, i], four[2, i], four[3, i] = sides(z[i])


def found(z):
    outs = np.empty_like(z), np.empty_like(z), np.empty((4, len(z)), np.float32)
    _over(z, *outs)
    return outs


def test_functions__are_those_of_double_precision_within_rounding():
    z = np.concatenate([np.linspace(-86, 86, 100_001), np.logspace(-30, 0, 1000)])
    z = z.astype(np.float32)
    powers, logs, (p, q, cost_yes, cost_no) = found(z)
    x = z.astype(np.float64)
    np.testing.assert_allclose(powers, np.exp(-abs(x)), rtol=2e-7)
    np.testing.assert_allclose(logs, np.log(powers.astype(np.float64)), rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-x)), rtol=4e-7)
    np.testing.assert_allclose(q, 1 / (1 + np.exp(x)), rtol=4e-7)
    np.testing.assert_allclose(cost_yes, np.logaddexp(0, -x), rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(cost_no, np.logaddexp(0, x), rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("size", [0.0, 88.0, 1e4, 3e38])
def test_functions__bear_any_logit(size):
    z = np.array([size, -size], np.float32)
    _, _, (p, q, cost_yes, cost_no) = found(z)
    np.testing.assert_allclose(p, [1, 0] if size else 0.5, atol=1e-37)
    np.testing.assert_allclose(p + q, 1)
    np.testing.assert_allclose(cost_yes, np.logaddexp(0, -z), rtol=2e-7, atol=1e-37)
    np.testing.assert_allclose(cost_no, np.logaddexp(0, z), rtol=2e-7, atol=1e-37)
