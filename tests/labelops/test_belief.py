"""Oracles: Bayes' rule by enumeration, planted noise, people's errors on CIFAR-10."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from labelops.belief import (
    COARSE,
    DOUBT,
    LEFT,
    UNIT,
    believe,
    best_temperature,
    fine_grid,
    less_noise,
    loss_through_noise,
    most_cautious,
    noise_at,
)
from labelops.confident.surest import count_cells, surest


def fit(probs: np.ndarray, given: np.ndarray, noise: np.ndarray, *, way: bool = False) -> float:
    loss = partial(loss_through_noise, probs, given, noise, subtracts=way)
    grid = fine_grid(best_temperature(COARSE, loss(COARSE)))
    return best_temperature(grid, loss(grid))


def test_believe__is_the_mean_of_prediction_and_bayes_rule_class_by_class():
    rng = np.random.default_rng(0)
    noise = rng.dirichlet(np.ones(4), 4).T
    q = rng.dirichlet(np.ones(4), 30)
    given = rng.integers(0, 4, 30)
    belief, cautious = believe(q, given, noise, temperature=1.0)
    for i in range(30):
        joint = [(q[i, b] + DOUBT / 4) * noise[given[i], b] for b in range(4)]
        for b in range(4):
            assert cautious[i, b] == pytest.approx(joint[b] / sum(joint))
            assert belief[i, b] == pytest.approx((q[i, b] + cautious[i, b]) / 2)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_temperature__through_the_noise_is_found_again(true_temperature):
    rng = np.random.default_rng(1)
    n, k = 20_000, 5
    noise = 0.6 * np.eye(k) + 0.4 * rng.dirichlet(np.ones(k), k).T
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
    noise = np.eye(3) * 0.7 + 0.1
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
    noise = np.array([[0.9, 0.2, 0], [0.1, 0.7, 0], [0, 0.1, 1]])
    want = -sum(np.log(sum(noise[given[i], b] * q[i, b] for b in range(3))) for i in range(50))
    assert loss_through_noise(q, given, noise, np.ones(1))[0] / UNIT == pytest.approx(want)


def test_believe__certain_predictions_and_zero_probabilities_stay_finite():
    probs = np.array([[1.0, 0.0], [0.0, 1.0]])
    noise = noise_at(np.full(2, 0.001), np.eye(2))
    for belief in believe(probs, np.array([1, 1]), noise, temperature=0.1):
        assert np.isfinite(belief).all()
        np.testing.assert_allclose(belief.sum(axis=1), 1)


def test_noise_at__is_the_rate_spread_over_the_other_classes_as_the_joint_has_them():
    rng = np.random.default_rng(4)
    rate, joint = rng.uniform(0.001, 0.5, 5), rng.integers(0, 9, (5, 5))
    joint[:, 2] = 0
    noise = noise_at(rate, joint)
    for b in range(5):
        assert noise[b, b] == pytest.approx(1 - rate[b])
        others = {a: joint[a, b] + 0.5 for a in range(5) if a != b}
        for a, n in others.items():
            assert noise[a, b] == pytest.approx(rate[b] * n / sum(others.values()))
    assert noise_at(np.array([0.2]), np.array([[7]])).tolist() == [[1.0]]


def test_less_noise__gives_back_sure_predictions_that_were_blurred():
    rng = np.random.default_rng(5)
    noise = noise_at(rng.uniform(0.05, 0.4, 4), rng.integers(0, 9, (4, 4)))
    true = np.eye(4)[rng.integers(0, 4, 50)]
    q = less_noise(true @ noise.T, noise)
    # What is left of the noise, of an item that was 1 before.
    rate = 1 - noise.diagonal()[true.argmax(axis=1)]
    np.testing.assert_allclose(q.max(axis=1), 1 / (1 + LEFT * rate))
    assert (q.argmax(axis=1) == true.argmax(axis=1)).all()
    # Nothing is taken from a class that has nothing, and the order of the others stays.
    p = rng.dirichlet(np.ones(4), 50)
    q = less_noise(p, noise)
    np.testing.assert_allclose(q.sum(axis=1), 1)
    assert (q > 0).all()
    assert (q.argmax(axis=1) == p.argmax(axis=1)).all()


@pytest.mark.parametrize("model", ["resnet18", "swin"])
@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize(("noise_name", "column"), [("worst", "worse"), ("aggre", "aggre")])
def test_belief__keeps_its_promise_on_peoples_errors(
    shared_data: Path, model: str, noise_name: str, column: str, subtracts: bool
) -> None:
    data = np.load(shared_data / "cifar10n_small_5k_with_images.npz")
    probs = data[f"pred_probs_{noise_name}_{model}"].astype(np.float64)
    given, true = data[f"{column}_label"].astype(int), data["clean_label"].astype(int)
    rows, top = np.arange(len(given)), probs.argmax(axis=1)
    said = surest(count_cells(top, probs[rows, top], top == given), n_classes=10)
    joint = confusion_matrix(given, top)
    noise = noise_at(said.rate, joint)
    how = {"temperature": fit(probs, given, noise, way=subtracts), "subtracts": subtracts}
    belief, cautious = believe(probs, given, noise, **how)
    # People err most where pictures are hard: the truth lies between what either belief says.
    low, high = (1 - kind[rows, given].mean() for kind in (cautious, 2 * belief - cautious))
    assert said.is_flat
    assert low < (given != true).mean() < high
    sure = (cautious.max(axis=1) >= 0.9) & (cautious.argmax(axis=1) != given)
    assert (given == true)[sure].sum() <= 1 + 0.05 * sure.sum()


def test_most_cautious__believes_no_class_more_than_either_way_and_moves_the_rest_to_the_given():
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(4), (2, 200))
    given = rng.integers(0, 4, 200)
    found = most_cautious(one, other, given)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    others = np.arange(4) != given[:, None]
    assert np.array_equal(found[others], np.minimum(one, other)[others])
    assert (found[~others] >= np.maximum(one, other)[~others] - 1e-12).all()
