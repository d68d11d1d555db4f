"""Small networks: planted truth, a loop over epochs written out, and rows that stand alone."""

import numpy as np
import pytest
import torch

from labelops.nn.network_heads import fit_networks, predict_networks
from labelops.nn.shallow import EPOCHS, Networks


def ring(n: int, seed: int = 0, wrong: float = 0.0) -> tuple[np.ndarray, ...]:
    """Return points inside a circle and around it, which no line tells apart; true and given."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    true = (np.square(x).sum(axis=1) > 1.4).astype(int)
    given = np.where(rng.random(n) < wrong, 1 - true, true)
    return x, true, given, np.arange(n) % 3


def fitted(x: np.ndarray, given: np.ndarray, fold: np.ndarray, **more: int) -> Networks:
    return fit_networks(x, given, fold, n_classes=2, n_folds=3, **more)


def test_networks__see_what_no_line_does_and_do_not_learn_wrong_labels() -> None:
    x, true, given, fold = ring(3000, wrong=0.2)
    probs = predict_networks(fitted(x, given, fold), x, fold)
    assert (probs.argmax(axis=1) == true).mean() > 0.95
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)


def test_prediction__is_the_softmax_of_the_mean_over_epochs_by_its_definition() -> None:
    x, _, given, fold = ring(120)
    found = fitted(x, given, fold, epochs=3)
    assert len(found.into) == 3
    probs = predict_networks(found, x, fold)
    for i in (0, 50, 119):
        z = np.zeros(2)
        for e in range(3):
            f = fold[i]
            hidden = ((x[i] - found.center) / found.scale) @ found.into[e, f] + found.into_bias[
                e, f
            ]
            z += np.maximum(hidden, 0) @ found.out[e, f] + found.out_bias[e, f]
        p = np.exp(z / 3) / np.exp(z / 3).sum()
        np.testing.assert_allclose(probs[i], p, rtol=1e-4)


def test_network_of_a_fold__has_not_seen_its_items() -> None:
    """Other labels of a fold change nothing of what is said of it."""
    x, _, given, fold = ring(300)
    other = np.where(fold == 1, 1 - given, given)
    a, b = (predict_networks(fitted(x, y, fold, epochs=2), x, fold) for y in (given, other))
    assert np.array_equal(a[fold == 1], b[fold == 1])
    assert not np.array_equal(a[fold == 0], b[fold == 0])


def test_same_items__give_the_same_bits_and_a_row_stands_alone() -> None:
    x, _, given, fold = ring(200)
    threads = torch.get_num_threads()
    a, b = fitted(x, given, fold, epochs=2), fitted(x, given, fold, epochs=2)
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    whole = predict_networks(a, x, fold)
    for i in (0, 7, 199):
        assert np.array_equal(predict_networks(a, x[i : i + 1], fold[i : i + 1])[0], whole[i])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_items__and_constant_features_are_legal(n: int) -> None:
    x = np.ones((n, 3), np.float32)
    found = fitted(x, np.zeros(n, int), np.arange(n) % 3)
    assert len(found.into) == EPOCHS
    probs = predict_networks(found, np.ones((4, 3), np.float32), np.arange(4) % 3)
    assert np.isfinite(probs).all()
