"""Oracles: closed forms, and SciPy's bounded minimiser on the same likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from labelops.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    apply_temperature,
    fit_temperature,
)


def draw(seed: int, n: int = 20_000, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    log_p = log_softmax(rng.normal(0, 2, (n, k)), axis=1)
    given = (np.exp(log_p).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, k - 1)
    return log_p, given


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("true", [0.5, 1.0, 2.0, 5.0])
def test_temperature__sharpened_logits_give_back_their_factor(true: float, seed: int) -> None:
    log_p, given = draw(seed)
    # Standard error of T at 20 000 items is below 1 %; five of them.
    assert fit_temperature(true * log_p, given) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_temperature__is_where_scipy_finds_the_minimum(seed: int) -> None:
    log_p, given = draw(seed, n=500)
    log_p *= np.random.default_rng(seed).uniform(0.3, 4)

    def loss(inverse: float) -> float:
        return float(-log_softmax(inverse * log_p, axis=1)[np.arange(500), given].mean())

    best = minimize_scalar(loss, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-9})
    assert 1 / fit_temperature(log_p, given) == pytest.approx(best.x, rel=1e-5)


def test_temperature__two_kinds_of_rows_have_a_closed_form() -> None:
    # With a share a right at odds r the best odds are a / (1 − a): T = log r / log(a / (1 − a)).
    log_p = np.log([[0.9, 0.1]] * 5)
    expected = np.log(9) / np.log(4)
    assert fit_temperature(log_p, np.array([0, 0, 0, 0, 1])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("given", "expected"), [([0, 0], MIN_TEMPERATURE), ([1, 1], MAX_TEMPERATURE)]
)
def test_temperature__stays_in_its_range(given: list[int], expected: float) -> None:
    assert fit_temperature(np.log([[0.9, 0.1]] * 2), np.array(given)) == expected


@pytest.mark.parametrize(
    "log_p", [np.empty((0, 3)), np.zeros((4, 1)), np.log(np.full((4, 3), 1 / 3))]
)
def test_temperature__is_one_where_nothing_can_be_learned(log_p: np.ndarray) -> None:
    assert fit_temperature(log_p, np.zeros(len(log_p), np.int64)) == 1.0


def test_temperature__shifting_the_logits_of_a_row_changes_nothing() -> None:
    log_p, given = draw(1, n=200)
    shifted = log_p + np.arange(200)[:, None]
    assert fit_temperature(shifted, given) == pytest.approx(fit_temperature(log_p, given), rel=1e-9)


def test_temperature__infinite_logits_are_refused_by_row() -> None:
    log_p = np.array([[0.0, 0.0], [0.0, -np.inf]])
    with pytest.raises(ValueError, match=r"^log_probs must be finite; row 1 is not\. Take the log"):
        fit_temperature(log_p, np.array([0, 0]))


def test_apply_temperature__equals_the_softmax_of_the_scaled_logits() -> None:
    log_p, _ = draw(2, n=50)
    expected = np.exp(log_softmax(log_p / 3, axis=1))
    np.testing.assert_allclose(
        apply_temperature(np.exp(log_p), temperature=3.0), expected, rtol=1e-12
    )


def test_apply_temperature__keeps_certainty_finite() -> None:
    sure = apply_temperature(np.array([[1.0, 0.0]]), temperature=1.0)
    np.testing.assert_allclose(sure, [[1.0, 2.0**-149]], rtol=1e-12)
