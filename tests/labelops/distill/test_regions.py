"""Oracles: the rule view by view, decoded labels, and settings in which it is another method."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.distill.regions import (
    Thresholds,
    Verdict,
    calibrated_labels,
    fit_thresholds,
    judge_views,
    softened,
    view_confidence,
)
from labelops.hashing import hash_integers
from labelops.soft.views import Coding, decode, encode

CODINGS = [("prob", "f16"), ("prob", "f32"), ("logprob", "u8"), ("logit", "f16"), ("logit", "f32")]
SOFT, HARD, OUT = Verdict


def some_views(seed, n, n_classes, how=("prob", "f32"), k=3, tau=1.0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    coding = Coding(*how, n_classes, tau)
    z, y = rng.normal(size=(n, n_classes)) * sharpness, rng.integers(0, n_classes, n)
    return encode(z, y, coding=coding, k=k), coding


def slow_verdicts(s, item, low, middle, high):
    """Return what becomes of each view, item by item."""
    verdicts = {}
    for i in set(item):
        mine = [v for v in range(len(s)) if item[v] == i]
        is_out = {v: s[v] < low or s[v] > high for v in mine}
        if all(is_out.values()):
            surest = max(mine, key=lambda v: (s[v], -v))
            is_out[surest] = False
        for v in mine:
            verdicts[v] = OUT if is_out[v] else (HARD if s[v] < middle else SOFT)
    return [int(verdicts[v]) for v in range(len(s))]


@settings(max_examples=150, deadline=None)
@given(
    s=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 0.9, 1.0]), max_size=12),
    n_items=st.integers(1, 4),
    thresholds=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_judge__is_the_loop(s, n_items, thresholds, seed):
    item = np.random.default_rng(seed).integers(5, 5 + n_items, len(s))
    low, middle, high = sorted(thresholds)
    found = judge_views(np.array(s), item, thresholds=Thresholds(low, middle, high))
    want = slow_verdicts(s, item.tolist(), low, middle, high)
    assert found.verdict.tolist() == want
    assert found.verdict.dtype == np.uint8
    counts = [want.count(v) for v in (0, 1, 2)]
    assert [found.n_soft, found.n_hard, found.n_discarded] == counts
    out = [x < low or x > high for x in s]
    assert found.n_rescued == sum(out) - counts[2]
    assert set(item[found.verdict != OUT]) == set(item)


def test_judge__known_case():
    coding = Coding("prob", "f32", 5)
    p = np.array([[0.30, 0.35, 0.20, 0.10, 0.05], [0.22, 0.2, 0.2, 0.19, 0.19],
                  [0.999, 0.00025, 0.00025, 0.00025, 0.00025], [0.9, 0.1, 0, 0, 0]])  # fmt: skip
    with np.errstate(divide="ignore"):
        views = encode(np.log(p), np.full(4, 2), coding=coding, k=5)
    s = view_confidence(views, coding=coding)
    np.testing.assert_allclose(s, [0.35, 0.22, 0.999, 0.9], atol=1e-6)
    found = judge_views(s, np.zeros(4, int), thresholds=Thresholds(0.25, 0.5, 0.99))
    assert found.verdict.tolist() == [HARD, OUT, OUT, SOFT]
    labels = calibrated_labels(views, found.verdict, coding=coding, epsilon=0.1)
    np.testing.assert_allclose(labels[0], [0.025, 0.025, 0.9, 0.025, 0.025])
    np.testing.assert_allclose(labels[3], p[3], atol=1e-6)
    assert not labels[1:3].any()


@pytest.mark.parametrize("how", CODINGS)
@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_confidence__is_that_of_decoded_labels(how, k, tau):
    views, coding = some_views(0, 80, 8, how, k, tau)
    dense = decode(views, coding=coding)
    top, own = (view_confidence(views, coding=coding, of=of) for of in ("max", "given"))
    np.testing.assert_allclose(top, dense[np.arange(80), views.ids[:, 0]], rtol=1e-12)
    np.testing.assert_allclose(own, dense[np.arange(80), views.given], rtol=1e-12)


@pytest.mark.parametrize("how", CODINGS)
def test_confidence__of_one_class_and_of_peaked_teachers(how):
    views, coding = some_views(1, 4, 1, how, k=1)
    assert view_confidence(views, coding=coding).tolist() == [1, 1, 1, 1]
    coding = Coding(*how, 6)
    z = np.array([[60.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    views = encode(z, np.array([1, 1]), coding=coding, k=2)
    # Rounded, a class that is not stored may have more than the most probable one.
    want = decode(views, coding=coding)[np.arange(2), views.ids[:, 0]]
    np.testing.assert_allclose(view_confidence(views, coding=coding), want, rtol=1e-12)
    none, coding = some_views(1, 0, 5, how)
    assert view_confidence(none, coding=coding).shape == (0,)


def test_labels__without_thresholds_are_the_teachers():
    views, coding = some_views(2, 60, 7)
    s = view_confidence(views, coding=coding)
    found = judge_views(s, np.arange(60) // 4, thresholds=Thresholds(0, 0, 1))
    assert (found.n_soft, found.n_rescued) == (60, 0)
    np.testing.assert_array_equal(
        calibrated_labels(views, found.verdict, coding=coding), decode(views, coding=coding)
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_labels__all_below_the_middle_are_the_given_ones_smoothed(epsilon):
    views, coding = some_views(3, 60, 7)
    s = view_confidence(views, coding=coding)
    found = judge_views(s, np.arange(60), thresholds=Thresholds(0, 1, 1))
    labels = calibrated_labels(views, found.verdict, coding=coding, epsilon=epsilon)
    # Label smoothing with K / (K − 1) ε of the uniform distribution.
    share = epsilon * 7 / 6
    np.testing.assert_allclose(labels, (1 - share) * np.eye(7)[views.given] + share / 7, atol=1e-15)


def test_verdicts__shares_follow_the_thresholds():
    s, item = np.random.default_rng(4).random(4000), np.arange(4000) // 20
    steps = np.linspace(0, 0.6, 13)
    low = [judge_views(s, item, thresholds=Thresholds(t, 0.6, 0.9)) for t in steps]
    assert (np.diff([x.n_discarded for x in low]) > 0).all()
    middle = [judge_views(s, item, thresholds=Thresholds(0, t, 0.9)) for t in steps]
    assert (np.diff([x.n_hard for x in middle]) > 0).all()
    high = [judge_views(s, item, thresholds=Thresholds(0, 0.3, 0.3 + t)) for t in steps]
    assert (np.diff([x.n_discarded for x in high]) < 0).all()
    assert [sum(x[1:4]) for x in low + middle + high] == [4000] * 39


def test_verdicts__do_not_see_the_order_of_views():
    rng = np.random.default_rng(5)
    s, item = rng.random(300), rng.integers(0, 90, 300)
    order, thresholds = rng.permutation(300), Thresholds(0.5, 0.6, 0.9)
    there, back = (
        judge_views(s[rows], item[rows], thresholds=thresholds) for rows in (slice(None), order)
    )
    assert there.n_rescued > 0
    np.testing.assert_array_equal(there.verdict[order], back.verdict)


def test_thresholds__are_quantiles_of_a_sample_by_hash():
    rng = np.random.default_rng(6)
    s, h = rng.random(5000), hash_integers(np.arange(5000))
    found = fit_thresholds(s, h)
    regions = judge_views(s, np.zeros(5000, int), thresholds=found)
    assert regions.n_discarded == pytest.approx(5000 * 0.055, abs=3)
    assert regions.n_hard == pytest.approx(5000 * 0.2, abs=3)
    order = rng.permutation(5000)
    assert fit_thresholds(s[order], h[order], n_sample=500) == fit_thresholds(s, h, n_sample=500)
    part = fit_thresholds(s, h, n_sample=500)
    assert part != found
    assert part.middle == pytest.approx(0.25, abs=0.06)
    every = fit_thresholds(s, h, quantiles=(0, 0, 1))
    assert every == (s.min(), s.min(), s.max())
    # All alike: nothing is below or above.
    alike = fit_thresholds(np.full(10, 0.4), h[:10])
    assert judge_views(np.full(10, 0.4), np.arange(10), thresholds=alike).n_soft == 10


@pytest.mark.parametrize(
    ("s", "settings", "words"),
    [
        ([], {}, "at least one view"),
        ([0.5, 1.5], {}, r"in \[0, 1\]"),
        ([0.5, np.nan], {}, r"in \[0, 1\]"),
        ([0.5, 0.6], {"quantiles": (0.5, 0.2, 0.9)}, "ascending"),
        ([0.5, 0.6], {"n_sample": 0}, "got none of 2"),
    ],
)
def test_thresholds__that_cannot_be_are_refused(s, settings, words):
    with pytest.raises(ValueError, match=words):
        fit_thresholds(np.array(s), hash_integers(np.arange(len(s))), **settings)


def test_what_cannot_be_is_refused():
    views, coding = some_views(7, 3, 4)
    s = np.array([0.1, np.nan, 0.3])
    with pytest.raises(ValueError, match="none of them NaN"):
        judge_views(s, np.arange(3), thresholds=Thresholds(0, 0, 1))
    with pytest.raises(ValueError, match="ascending thresholds"):
        judge_views(s[:1], np.arange(1), thresholds=Thresholds(0.5, 0.2, 1))
    with pytest.raises(ValueError, match="as many confidences as items"):
        judge_views(s[:1], np.arange(2), thresholds=Thresholds(0, 0, 1))
    with pytest.raises(ValueError, match="3 verdicts in 0 … 2 were expected"):
        calibrated_labels(views, np.array([0, 1, 7]), coding=coding)
    with pytest.raises(ValueError, match="3 verdicts"):
        calibrated_labels(views, np.array([0, 1]), coding=coding)
    with pytest.raises(ValueError, match=r"epsilon in \[0, 1\)"):
        softened(np.array([0]), n_classes=2, epsilon=1.0)
    with pytest.raises(ValueError, match="classes in 0 … 1 were expected, got 0 … 2"):
        softened(np.array([0, 2]), n_classes=2)
    assert softened(np.array([0, 0]), n_classes=1).tolist() == [[1], [1]]
    assert softened(np.zeros(0, int), n_classes=3).shape == (0, 3)
    none = judge_views(np.zeros(0), np.zeros(0, int), thresholds=Thresholds(0, 0, 1))
    assert none[1:] == (0, 0, 0, 0)
