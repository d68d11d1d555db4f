"""Class means: written out item by item, planted noise, and rows that stand alone."""

import numpy as np
import pytest

from labelops.nn.prototypes import Prototypes, fit_prototypes, predict_prototypes

N, D, K, F = 600, 12, 4, 3


def clouds(wrong: float, seed: int = 0, n: int = N) -> tuple[np.ndarray, ...]:
    """Return features around class centres, true and given classes, folds."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, n)
    x = rng.normal(0, 1, (K, D))[true] * 1.5 + rng.normal(0, 1, (n, D))
    given = np.where(rng.random(n) < wrong, rng.integers(0, K, n), true)
    return x.astype(np.float32), true, given, np.arange(n) % F


def fitted(x: np.ndarray, given: np.ndarray, fold: np.ndarray) -> Prototypes:
    return fit_prototypes(x, given, fold, n_classes=K, n_folds=F)


def test_probabilities__are_those_of_means_outside_the_fold_by_definition() -> None:
    x, _, given, fold = clouds(0.2)
    found = fitted(x, given, fold)
    probs = predict_prototypes(found, x, fold)
    z = x.astype(float) / x.std(axis=0)
    for i in (0, 1, 2, 300, 599):
        others = fold != fold[i]
        center = z[others].mean(axis=0)
        logits = []
        for k in range(K):
            mean = z[others & (given == k)].mean(axis=0) - center
            mine = z[i] - center
            cosine = mine @ mean / np.linalg.norm(mine) / np.linalg.norm(mean)
            logits.append(cosine / float(found.temperature))
        p = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(probs[i], p, rtol=1e-4)


def test_temperature__makes_the_given_labels_likeliest() -> None:
    x, _, given, fold = clouds(0.2)
    found = fitted(x, given, fold)

    def loss(temperature: float) -> float:
        probs = predict_prototypes(found._replace(temperature=np.array(temperature)), x, fold)
        return float(-np.log(probs[np.arange(N), given]).mean())

    best = loss(float(found.temperature))
    assert best < min(loss(0.9 * float(found.temperature)), loss(1.1 * float(found.temperature)))


def test_means__hardly_move_when_half_of_the_labels_are_wrong_at_random() -> None:
    x, true, given, fold = clouds(0.5, n=3000)
    sound = predict_prototypes(fitted(x, true, fold), x, fold).argmax(axis=1)
    noisy = predict_prototypes(fitted(x, given, fold), x, fold).argmax(axis=1)
    assert (noisy == true).mean() > (sound == true).mean() - 0.01


def test_row__stands_alone_and_same_items_give_the_same_bits() -> None:
    x, _, given, fold = clouds(0.1)
    a, b = fitted(x, given, fold), fitted(x, given, fold)
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    whole = predict_prototypes(a, x, fold)
    for i in (0, 77, 599):
        assert np.array_equal(predict_prototypes(a, x[i : i + 1], fold[i : i + 1])[0], whole[i])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_items_absent_classes_and_constant_features__are_legal(n: int) -> None:
    found = fitted(np.ones((n, D), np.float32), np.zeros(n, int), np.arange(n) % F)
    probs = predict_prototypes(found, np.ones((4, D), np.float32), np.arange(4) % F)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-6)
