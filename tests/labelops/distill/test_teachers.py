"""Oracles: scikit-learn's logistic regression of weighted items, and teachers of known worth."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from labelops.distill.teachers import fit_student, probe_teachers


def some_items(seed, n, d=6, n_classes=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.5, 20, d) + 5
    return x, rng.dirichlet(np.full(n_classes, 0.5), n)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("l2", [0.01, 0.3])
def test_student__is_that_of_scikit_learn(n_classes, l2):
    x, q = some_items(0, 80, n_classes=n_classes)
    found = fit_student(x, q, l2=l2)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # A soft label is every class once, weighted. With two classes theirs has one column of weights,
    # the difference of ours, whose square is twice the sum of the squares of ours.
    strength = (2 if n_classes == 2 else 1) / (80 * l2)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000)
    rows, y = np.repeat(z, n_classes, axis=0), np.tile(np.arange(n_classes), 80)
    want = theirs.fit(rows, y, sample_weight=q.ravel()).predict_proba(z)
    np.testing.assert_allclose(softmax(found.logits(x), axis=1), want, atol=1e-4)


def test_student__gradient_is_zero_at_what_is_found():
    x, q = some_items(1, 50)
    q[:10] = 0
    found = fit_student(x, q, l2=0.05)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    slope = (q.sum(axis=1, keepdims=True) * softmax(found.logits(x), axis=1) - q) / 50
    np.testing.assert_allclose(z.T @ slope + 0.05 * found.weight, 0, atol=1e-6)
    np.testing.assert_allclose(slope.sum(axis=0), 0, atol=1e-6)


def test_student__sees_neither_units_nor_constant_features():
    x, q = some_items(2, 60)
    there = fit_student(x, q).logits(x)
    other = np.column_stack([x * 1e4 - 3, np.full(60, 7.3)])
    np.testing.assert_allclose(fit_student(other, q).logits(other), there, atol=1e-5)
    one = fit_student(x, np.ones((60, 1)))
    assert one.logits(x).shape == (60, 1)


@pytest.mark.parametrize(
    ("x", "q", "settings", "words"),
    [
        (np.ones((0, 2)), np.ones((0, 2)), {}, "N ≥ 1"),
        (np.ones((2, 2)), np.ones((3, 2)), {}, "as many labels"),
        (np.ones((2, 2)), np.zeros((2, 2)), {}, "all of 2 rows are 0"),
        (np.ones((2, 2)), -np.ones((2, 2)), {}, "at least 0"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), {}, "finite features"),
        (np.ones((2, 2)), np.ones((2, 2)), {"l2": 0.0}, "l2 > 0"),
    ],
)
def test_student__that_cannot_be_is_refused(x, q, settings, words):
    with pytest.raises(ValueError, match=words):
        fit_student(x, q, **settings)


def test_probe__counts_pairs_as_they_are():
    x, q = some_items(3, 60)
    labels = np.stack([q, np.roll(q, 1, axis=1), q])
    test, _ = some_items(4, 50)
    true = np.random.default_rng(5).integers(0, 3, 50)
    found = probe_teachers(x, labels, test_features=test, reference=true)
    said = [fit_student(x, of).logits(test).argmax(axis=1) for of in labels]
    right = [[int(a == b) for a, b in zip(row, true, strict=True)] for row in said]
    assert found.accuracy.tolist() == [sum(row) / 50 for row in right]
    best = max(range(3), key=lambda t: (sum(right[t]), -t))
    assert found.order[0] == best
    # Two that are alike are not told apart, and the first stands before the second.
    assert found.order.tolist().index(0) < found.order.tolist().index(2)
    for t in range(3):
        cells = [[0.5, 0.5], [0.5, 0.5]]
        for a, b in zip(right[best], right[t], strict=True):
            cells[a][b] += 1
        n = 52
        share = (cells[1][0] - cells[0][1]) / n
        error = np.sqrt(((cells[1][0] + cells[0][1]) / n - share**2) / n)
        assert found.behind[t] == pytest.approx((sum(right[best]) - sum(right[t])) / 50)
        if t != best:
            assert found.low[t] == pytest.approx(share - 1.959964 * error, abs=1e-6)
            assert found.high[t] == pytest.approx(share + 1.959964 * error, abs=1e-6)


def test_probe__the_most_accurate_teacher_need_not_teach_best():
    rng = np.random.default_rng(6)
    plane = rng.normal(size=(20, 3))
    x, test = rng.normal(size=(60, 20)), rng.normal(size=(2000, 20))
    true, reference = (x @ plane).argmax(axis=1), (test @ plane).argmax(axis=1)
    # One is always right and says nothing else; one errs now and then, and says how near it was.
    sure = np.eye(3)[true]
    telling = softmax((x @ plane + rng.normal(size=(60, 3))) / 2, axis=1)
    guessing = rng.dirichlet(np.ones(3), 60)
    assert (telling.argmax(axis=1) == true).mean() < 1
    found = probe_teachers(
        x, np.stack([sure, guessing, telling]), test_features=test, reference=reference
    )
    assert found.order.tolist() == [2, 0, 1]
    assert found.low[0] > 0
    assert found.low[2] == found.high[2] == 0


def test_probe__that_cannot_be_is_refused():
    x, q = some_items(7, 5)
    with pytest.raises(ValueError, match="T ≥ 1"):
        probe_teachers(x, q[:0][None][:0], test_features=x, reference=np.zeros(5))
    with pytest.raises(ValueError, match="as many classes as test items"):
        probe_teachers(x, q[None], test_features=x, reference=np.zeros(4))
    with pytest.raises(ValueError, match="at least one"):
        probe_teachers(x, q[None], test_features=x[:0], reference=np.zeros(0))
