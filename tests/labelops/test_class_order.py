"""The order of columns: found when planted, and never where labels are only noisy."""

import itertools

import numpy as np
import pytest

from labelops.class_order import ITEMS_A_CLASS, likelier_order


def noisy(n_classes: int, n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return given and predicted classes that agree but for a share of each."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_classes, n)
    swap = lambda: np.where(rng.random(n) < share, rng.integers(0, n_classes, n), true)  # noqa: E731
    return swap(), swap()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 3, 12, 100])
def test_planted_order__is_found(n_classes: int, seed: int) -> None:
    given, predicted = noisy(n_classes, 60 * n_classes, 0.2, seed)
    order = np.random.default_rng(seed).permutation(n_classes)
    likelier = likelier_order(given, order[predicted], n_classes)
    if np.mean(order == np.arange(n_classes)) >= 0.5:
        assert likelier is None
    else:
        assert likelier is not None
        assert likelier.tolist() == order.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 50])
def test_noise_that_swaps_no_classes__is_never_taken_for_another_order(
    n_classes: int, share: float, seed: int
) -> None:
    given, predicted = noisy(n_classes, ITEMS_A_CLASS * n_classes, share, seed)
    assert likelier_order(given, predicted, n_classes) is None


@pytest.mark.parametrize("seed", range(10))
def test_found_order__is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 4, 200)
    predicted = np.where(
        rng.random(200) < 0.25, rng.integers(0, 4, 200), (given + 1 + seed % 3) % 4
    )
    agreements = {
        order: int((np.array(order)[given] == predicted).sum())
        for order in itertools.permutations(range(4))
    }
    likelier = likelier_order(given, predicted, 4)
    assert likelier is not None
    assert agreements[tuple(likelier.tolist())] == max(agreements.values())


def test_pair_flips_of_two_fifths__are_noise() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 2000)
    given = np.where(rng.random(2000) < 0.4, (true + 1) % 10, true)
    assert likelier_order(given, true, 10) is None


def test_absent_classes__keep_their_columns() -> None:
    given = np.repeat([0, 1], 60)
    likelier = likelier_order(given, 1 - given, 5)
    assert likelier is not None
    assert likelier.tolist() == [1, 0, 2, 3, 4]


def test_too_few_items__tell_nothing() -> None:
    given = np.repeat([0, 1, 2], 3)
    assert likelier_order(given, (given + 1) % 3, 3) is None
