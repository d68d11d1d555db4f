"""Oracles: Bayes' rule by enumeration, planted noise, people's errors on CIFAR-10."""

from pathlib import Path

import numpy as np
import pytest

from labelops.belief import (
    COARSE,
    UNIT,
    believe,
    best_temperature,
    fine_grid,
    loss_through_noise,
    sound_noise,
)


def fit(probs: np.ndarray, given: np.ndarray, noise: np.ndarray) -> float:
    best = best_temperature(COARSE, loss_through_noise(probs, given, noise, COARSE))
    grid = fine_grid(best)
    return best_temperature(grid, loss_through_noise(probs, given, noise, grid))


def test_believe__is_the_mean_of_prediction_and_bayes_rule_class_by_class():
    rng = np.random.default_rng(0)
    noise = sound_noise(rng.dirichlet(np.ones(4), 4).T)
    q = rng.dirichlet(np.ones(4), 30)
    given = rng.integers(0, 4, 30)
    got = believe(q, given, noise, temperature=1.0)
    for i in range(30):
        joint = [q[i, b] * noise[given[i], b] for b in range(4)]
        for b in range(4):
            assert got[i, b] == pytest.approx((q[i, b] + joint[b] / sum(joint)) / 2)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_temperature__through_the_noise_is_found_again(true_temperature):
    rng = np.random.default_rng(1)
    n, k = 20_000, 5
    noise = sound_noise(0.6 * np.eye(k) + 0.4 * rng.dirichlet(np.ones(k), k).T)
    logits = rng.normal(0, 2, (n, k))
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = (q.cumsum(1) > rng.random((n, 1))).argmax(1)
    given = (noise.T[true].cumsum(1) > rng.random((n, 1))).argmax(1)
    # What a model reports whose temperature is off by the factor that is to be found.
    z = logits * true_temperature
    reported = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    # Two standard errors at this size are some four per cent.
    assert fit(reported, given, noise) == pytest.approx(true_temperature, rel=0.06)


def test_loss__adds_up_over_shards_exactly():
    rng = np.random.default_rng(2)
    q, given = rng.dirichlet(np.ones(3), 100), rng.integers(0, 3, 100)
    noise = sound_noise(np.eye(3) * 0.8 + 0.1)
    whole = loss_through_noise(q, given, noise, COARSE)
    for cut in (1, 37, 99):
        parts = [
            loss_through_noise(q[s], given[s], noise, COARSE)
            for s in (slice(0, cut), slice(cut, None))
        ]
        np.testing.assert_array_equal(parts[0] + parts[1], whole)


def test_loss__is_the_negative_log_likelihood():
    rng = np.random.default_rng(3)
    q, given = rng.dirichlet(np.ones(3), 50), rng.integers(0, 3, 50)
    noise = sound_noise(np.array([[0.9, 0.2, 0], [0.1, 0.7, 0], [0, 0.1, 1]]))
    want = -sum(np.log(sum(noise[given[i], b] * q[i, b] for b in range(3))) for i in range(50))
    assert loss_through_noise(q, given, noise, np.ones(1))[0] / UNIT == pytest.approx(want)


def test_believe__certain_predictions_and_zero_probabilities_stay_finite():
    probs = np.array([[1.0, 0.0], [0.0, 1.0]])
    belief = believe(probs, np.array([1, 1]), sound_noise(np.eye(2)), temperature=0.1)
    assert np.isfinite(belief).all()
    np.testing.assert_allclose(belief.sum(axis=1), 1)


def test_sound_noise__class_that_nobody_has_is_given_as_it_is():
    noise = np.array([[0.9, np.nan, 0.0], [0.1, np.nan, 0.0], [0.0, np.nan, 1.0]])
    np.testing.assert_allclose(sound_noise(noise)[:, 1], [0, 1, 0], atol=1e-5)


@pytest.mark.parametrize("model", ["resnet18", "swin"])
@pytest.mark.parametrize(("noise_name", "column"), [("worst", "worse"), ("aggre", "aggre")])
def test_belief__keeps_its_promise_on_peoples_errors(
    shared_data: Path, model: str, noise_name: str, column: str
) -> None:
    from cleanlab.count import compute_confident_joint, estimate_latent
    from cleanlab.filter import find_label_issues

    data = np.load(shared_data / "cifar10n_small_5k_with_images.npz")
    probs = data[f"pred_probs_{noise_name}_{model}"].astype(np.float64)
    given, true = data[f"{column}_label"].astype(int), data["clean_label"].astype(int)
    _, noise, _ = estimate_latent(compute_confident_joint(given, probs), given)
    noise = sound_noise(noise)
    belief = believe(probs, given, noise, temperature=fit(probs, given, noise))
    top = belief.argmax(axis=1)
    sure = (belief.max(axis=1) >= 0.9) & (top != given) & find_label_issues(given, probs)
    right = (top == true)[sure].mean()
    promised = belief.max(axis=1)[sure].mean()
    assert sure.sum() > 50
    # The allowance of the gate, which this is the reason for.
    assert abs(right - promised) < 0.1
    # Hardly a right label is changed.
    assert (given == true)[sure].mean() < 0.05
