"""Oracles: the definitions as loops, closed forms, scikit-learn's log loss."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from labelops import calibration
from tests.oracles import calibration as slow

NAMES = ["ece", "mce", "adaptive_ece", "classwise_ece"]


def predictions(seed: int, n: int = 300, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.5), n)
    probs[: n // 5] = np.eye(k)[rng.integers(0, k, n // 5)]  # exactly 0 and 1
    probs[n // 5 : n // 4] = probs[n // 5]  # ties
    return probs, rng.integers(0, k, n)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("name", NAMES)
def test_calibration__equals_the_definition(name: str, bins: int, seed: int) -> None:
    probs, given = predictions(seed)
    fast = getattr(calibration, name)(probs, given, n_bins=bins)
    # Sums in another order: a few units of the last place.
    assert fast == pytest.approx(getattr(slow, name)(probs, given, bins), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_calibration__fewer_items_than_bins(name: str) -> None:
    probs, given = predictions(1, n=6)
    fast = getattr(calibration, name)(probs, given)
    assert fast == pytest.approx(getattr(slow, name)(probs, given, 15), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_calibration__permuting_the_classes_changes_nothing(name: str) -> None:
    probs, given = predictions(2)
    probs += 1e-6 * np.random.default_rng(0).random(probs.shape)  # no ties for the arg-max
    order = np.array([2, 0, 3, 1])
    back = np.argsort(order)
    permuted = getattr(calibration, name)(probs[:, order], back[given])
    assert permuted == pytest.approx(getattr(calibration, name)(probs, given), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_calibration__duplicating_every_item_changes_nothing(name: str) -> None:
    probs, given = predictions(3, n=150)  # 15 bins hold 10 items each, then 20
    probs += 1e-6 * np.random.default_rng(0).random(probs.shape)
    twice = getattr(calibration, name)(np.repeat(probs, 2, axis=0), np.repeat(given, 2))
    assert twice == pytest.approx(getattr(calibration, name)(probs, given), abs=1e-12)


def test_calibration__labels_drawn_from_the_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(5), 200_000)
    given = (probs.cumsum(axis=1) < rng.random((len(probs), 1))).sum(axis=1).clip(0, 4)
    metrics = calibration.metrics(probs, given)
    # The bias of a finite sample is about sqrt(15 / 200 000) = 0.009 at the most.
    assert max(metrics["ece"], metrics["adaptive_ece"], metrics["classwise_ece"]) < 0.009


def test_calibration__an_edge_belongs_to_the_bin_below_it() -> None:
    bins = calibration.reliability(np.array([0.0, 0.2, 0.2000001]), np.ones(3, bool), n_bins=5)
    assert bins.n.tolist() == [1, 1, 0, 0, 0]


def test_calibration__always_sure_and_always_wrong_is_as_bad_as_can_be() -> None:
    probs, given = np.eye(2)[[0, 0, 1]], np.array([1, 1, 0])
    metrics = calibration.metrics(probs, given)
    assert (metrics["ece"], metrics["mce"], metrics["accuracy"]) == (1.0, 1.0, 0.0)
    assert metrics["brier"] == 2.0
    assert metrics["nll"] == pytest.approx(149 * np.log(2))


def test_nll__equals_scikit_learns() -> None:
    probs, given = predictions(4)
    probs = (probs + 0.01) / (probs + 0.01).sum(axis=1, keepdims=True)
    assert calibration.nll(probs, given) == pytest.approx(log_loss(given, probs), rel=1e-12)


def test_brier__equals_the_sum_over_one_hot_labels() -> None:
    probs, given = predictions(5)
    direct = ((probs - np.eye(4)[given]) ** 2).sum(axis=1).mean()
    assert calibration.brier(probs, given) == pytest.approx(direct, rel=1e-12)


def test_calibration__an_absent_class_counts_in_the_classwise_error() -> None:
    probs, given = predictions(6)
    wider = np.hstack([probs * 0.5, np.full((len(probs), 1), 0.5)])
    assert calibration.classwise_ece(wider, given) == pytest.approx(
        slow.classwise_ece(wider, given, 15), abs=1e-12
    )


def test_calibration__no_items_give_zeros() -> None:
    metrics = calibration.metrics(np.empty((0, 3)), np.empty(0, np.int64))
    assert set(metrics.values()) == {0.0}
