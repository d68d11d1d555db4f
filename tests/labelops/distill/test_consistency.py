"""Oracles: one item at a time, differences, and the limits of thresholds."""

import numpy as np
import pytest

from labelops.distill.consistency import consistency, guess
from labelops.distill.losses import distillation
from tests.oracles import distill as slow
from tests.oracles import soft_views


def drawn(seed=0, n=40, k=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) * 2, rng.normal(size=(n, k))


@pytest.mark.parametrize(
    ("kind", "threshold", "tau"), [("hard", 0.6, 1.0), ("soft", 0.8, 0.4), ("soft", 0.5, 1.0)]
)
def test_consistency__is_the_loop_and_slopes_are_differences(kind, threshold, tau):
    weak, strong = drawn()
    settings = {"threshold": threshold, "kind": kind, "temperature": tau}
    cost, want = consistency(weak, strong, **settings), []
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        p, log_s = soft_views.softmax(w), slow.log_softmax(s)
        if max(p) < threshold:
            want.append(0.0)
        elif kind == "hard":
            want.append(-log_s[p.index(max(p))])
        else:
            want.append(soft_views.divergence(soft_views.softmax(w, tau), soft_views.softmax(s)))
    np.testing.assert_allclose(cost.value, want, rtol=1e-11, atol=1e-14)
    assert 0 < (cost.value == 0).sum() < 40
    differences = slow.slope_of(lambda x: consistency(weak, x, **settings).value, strong)
    np.testing.assert_allclose(cost.slope, differences, atol=1e-7)


def test_consistency__limits_of_the_threshold():
    weak, strong = drawn(1)
    every = consistency(weak, strong, threshold=0.0, kind="soft")
    np.testing.assert_allclose(every.value, distillation(strong, weak).value, rtol=1e-12)
    nobody = consistency(weak, strong, threshold=1.0)
    assert (nobody.value == 0).all()
    assert (nobody.slope == 0).all()
    # Exactly at its threshold, and exactly sure, a view is sure.
    assert guess(np.zeros((1, 2)), threshold=0.5).is_sure.tolist() == [True]
    assert guess(np.array([[800.0, 0.0]]), threshold=1.0).is_sure.tolist() == [True]
    same = consistency(weak, weak, threshold=0.0, kind="soft")
    np.testing.assert_allclose(same.value, 0, atol=1e-12)


def test_guess__has_thresholds_of_classes_and_breaks_ties_to_the_first():
    weak = np.log([[0.6, 0.4], [0.4, 0.6]])
    found = guess(weak, threshold=np.array([0.5, 0.7]))
    assert found.is_sure.tolist() == [True, False]
    assert guess(np.zeros((1, 3)), threshold=0.0).target.tolist() == [[1, 0, 0]]
    sharp = guess(weak, threshold=0.0, kind="soft", temperature=0.5).target
    np.testing.assert_allclose(sharp[0], np.array([0.36, 0.16]) / 0.52, rtol=1e-12)


def test_consistency__corners():
    none = np.zeros((0, 3))
    assert consistency(none, none).slope.shape == (0, 3)
    one = consistency(np.ones((2, 1)), np.zeros((2, 1)))
    assert (one.value.tolist(), one.slope.tolist()) == ([0, 0], [[0], [0]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.1}, r"a threshold in \[0, 1\], or 2 of them, was expected, got 1.1"),
        ({"threshold": np.zeros(3)}, "or 2 of them"),
        ({"threshold": np.nan}, "or 2 of them"),
        ({"kind": "firm"}, "kind hard or soft was expected, got 'firm'"),
        ({"temperature": 0.0}, "a positive temperature"),
        ({"weak": np.zeros((1, 3))}, "two views of one shape"),
        ({"weak": np.full((1, 2), np.nan)}, "finite logits were expected"),
    ],
)
def test_consistency__says_what_is_wrong(change, words):
    settings = {"weak": np.zeros((1, 2)), "strong": np.zeros((1, 2))} | change
    with pytest.raises(ValueError, match=words):
        consistency(settings.pop("weak"), settings.pop("strong"), **settings)
