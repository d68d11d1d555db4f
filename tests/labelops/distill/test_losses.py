"""Oracles: values of the specification, one item at a time, closed forms, and differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.distill import losses
from labelops.distill.losses import (
    average_softmax,
    cross_entropy,
    discriminated,
    discriminator_loss,
    distillation,
    divergence,
    mean_cost,
    mix_kd,
    nkd,
    own_target,
    uskd,
    zipf_target,
)
from labelops.distill.targets import SparseTarget, combine, dense, of_drawn, of_views
from labelops.soft.sampled import draw_classes
from labelops.soft.views import Coding, encode, renormalising_loss, smoothing_loss
from tests.oracles import distill as slow
from tests.oracles import soft_views

Z = np.array([[2.0, 1.0, 0.0, -1.0]])
T = np.array([[3.0, 0.0, 1.0, -2.0]])
OF_USKD = (
    np.array([[2.0, 1, 0, -1], [0.5, 0, 1.5, 1]]),
    np.array([[1.0, 0, 2, 0.5], [0, 1, 0.5, -1]]),
    np.array([0, 2]),
)


def drawn(seed=0, n=7, k=5, size=2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) * size, rng.normal(size=(n, k)) * size, rng.integers(0, k, n)


def soft(z):
    return np.array([soft_views.softmax(row) for row in z.tolist()])


# -- cross-entropy and divergence ------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_divergence__is_the_loop_and_slopes_are_differences(tau):
    z, t, _ = drawn()
    q = np.array([soft_views.softmax(row, tau) for row in t.tolist()])
    for function, teach in ((distillation, t), (divergence, q)):
        cost = function(z, teach, temperature=tau)
        want = [
            tau**2 * soft_views.divergence(a, soft_views.softmax(b, tau))
            for a, b in zip(q.tolist(), z.tolist(), strict=True)
        ]
        np.testing.assert_allclose(cost.value, want, rtol=1e-12)
        differences = slow.slope_of(
            lambda x, f=function, q=teach: f(x, q, temperature=tau).value, z
        )
        np.testing.assert_allclose(cost.slope, differences, atol=1e-7)
        s = np.array([soft_views.softmax(row, tau) for row in z.tolist()])
        np.testing.assert_allclose(cost.slope, tau * (s - q), atol=1e-12)


def test_divergence__is_nothing_where_they_agree_and_ignores_shifts():
    z, t, _ = drawn(1)
    np.testing.assert_allclose(distillation(t, t + 5).value, 0, atol=1e-12)
    one, other = distillation(z, t, temperature=3.0), distillation(z - 7, t + 9, temperature=3.0)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-12)
    np.testing.assert_allclose(one.slope.sum(axis=1), 0, atol=1e-12)


def test_divergence__of_stored_labels_from_their_teacher_is_the_closed_form():
    # KL(p ‖ MS_k) = r (log (K − k) − H(tail)); KL(MR_k ‖ p) = −log (1 − r).
    z = np.random.default_rng(2).normal(size=(30, 12)) * 2
    p, coding = soft(z), Coding("prob", "f32", 12)
    for k in (1, 5, 12):
        views = encode(z, p.argmax(axis=1), coding=coding, k=k)
        is_stored = np.zeros(p.shape, bool)
        np.put_along_axis(is_stored, views.ids.astype(int), values=True, axis=1)
        exact = np.where(is_stored, p, 0)
        r = 1 - exact.sum(axis=1, keepdims=True)
        smooth = np.where(is_stored, p, r / max(12 - k, 1))
        kept = exact / (1 - r)
        tail = np.where(is_stored, 1.0, p) / np.where(r > 1e-9, r, 1.0)
        entropy = -np.where(is_stored, 0.0, tail * np.log(tail)).sum(axis=1)
        by_hand = r[:, 0] * (np.log(max(12 - k, 1)) - entropy)
        found = divergence(np.log(smooth), p).value
        np.testing.assert_allclose(found, by_hand, atol=1e-12)
        np.testing.assert_allclose(found, smoothing_loss(p, is_stored), atol=1e-12)
        found = divergence(z, kept).value
        np.testing.assert_allclose(found, renormalising_loss(p, is_stored), atol=1e-12)
        np.testing.assert_allclose(found, -np.log(1 - r[:, 0]), atol=1e-12)
        # What is read of float32 differs by its rounding only.
        stored = of_views(views, coding=coding)
        np.testing.assert_allclose(dense(stored), smooth, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_classes=st.integers(1, 8),
    k=st.integers(1, 9),
    kind=st.sampled_from([("prob", "f16"), ("logprob", "u8"), ("logit", "f16")]),
    rest=st.sampled_from(["even", "none"]),
)
def test_cross_entropy__of_listed_classes_is_that_of_all(seed, n_classes, k, kind, rest):
    rng = np.random.default_rng(seed)
    coding = Coding(*kind, n_classes)
    teacher = rng.normal(size=(3, n_classes)) * 3
    views = encode(teacher, rng.integers(0, n_classes, 3), coding=coding, k=k)
    target, z = of_views(views, coding=coding, rest=rest), rng.normal(size=(3, n_classes))
    for function in (cross_entropy, divergence):
        sparse, whole = (function(z, q, temperature=2.0) for q in (target, dense(target)))
        np.testing.assert_allclose(sparse.value, whole.value, atol=1e-11)
        np.testing.assert_allclose(sparse.slope, whole.slope, atol=1e-12)
    want = [
        soft_views.cross_entropy(q, (row / 2).tolist())
        for q, row in zip(dense(target).tolist(), z, strict=True)
    ]
    np.testing.assert_allclose(cross_entropy(z, target, temperature=2.0).value, want, rtol=1e-11)


def test_cross_entropy__of_drawn_classes_is_that_of_counts_and_right_on_average():
    z, t, _ = drawn(3, n=1, k=6)
    p = soft(t)
    hashes = np.arange(20_000).astype(np.uint64)
    target = of_drawn(draw_classes(np.repeat(p, 20_000, axis=0), hashes, n_draws=4))
    cost = cross_entropy(np.repeat(z, 20_000, axis=0), target)
    exact = cross_entropy(z, p)
    assert cost.value.mean() == pytest.approx(exact.value[0], abs=4 * cost.value.std() / 141)
    np.testing.assert_allclose(cost.slope.mean(axis=0), exact.slope[0], atol=0.01)


def test_cross_entropy__of_an_average_is_the_average():
    z, _, _ = drawn(4)
    teachers = np.random.default_rng(4).normal(size=(3, 7, 5)) * 3
    together = average_softmax(teachers)
    each = np.mean([cross_entropy(z, soft(t)).value for t in teachers], axis=0)
    np.testing.assert_allclose(cross_entropy(z, together).value, each, rtol=1e-13)
    np.testing.assert_allclose(average_softmax(teachers[::-1]), together, atol=1e-15)
    np.testing.assert_allclose(average_softmax(teachers[:1]), soft(teachers[0]), atol=1e-15)
    np.testing.assert_allclose(
        average_softmax(np.stack([teachers[0]] * 4)), soft(teachers[0]), atol=1e-15
    )
    # Not the softmax of the average.
    assert np.abs(soft(teachers.mean(axis=0)) - together).max() > 0.1
    entropy = [-(q * np.log(q)).sum(axis=1) for q in (together, *map(soft, teachers))]
    assert (entropy[0] >= np.mean(entropy[1:], axis=0)).all()


def test_average__of_stores_on_the_same_views_needs_the_rest():
    rng, coding = np.random.default_rng(8), Coding("prob", "f32", 10)
    teachers = rng.normal(size=(2, 20, 10))
    stores = [
        of_views(encode(t, np.zeros(20, int), coding=coding, k=2), coding=coding) for t in teachers
    ]
    both = combine(stores, np.array([0.5, 0.5]))
    np.testing.assert_allclose(dense(both), (dense(stores[0]) + dense(stores[1])) / 2, atol=1e-15)
    z = rng.normal(size=(20, 10))
    mean = (cross_entropy(z, stores[0]).value + cross_entropy(z, stores[1]).value) / 2
    np.testing.assert_allclose(cross_entropy(z, both).value, mean, rtol=1e-12)


# -- NKD -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "lam", "gamma", "own", "others", "total"),
    [
        (0, 1.0, 1.5, 0.369330, 1.183229, 2.144173),
        (0, 3.0, 3.5, 0.369330, 1.079556, 34.375354),
        (2, 1.0, 1.5, 0.277083, 0.415268, 0.899985),
    ],
)
def test_nkd__reference_values(y, lam, gamma, own, others, total):
    given_class = np.array([y])
    alone = nkd(Z, T, given_class, weight=0.0, temperature=lam).value[0]
    whole = nkd(Z, T, given_class, weight=gamma, temperature=lam).value[0]
    found = (alone, (whole - alone) / (gamma * lam**2), whole)
    assert np.round(found, 6).tolist() == [own, others, total]
    np.testing.assert_allclose(found, slow.nkd(Z[0].tolist(), T[0].tolist(), y, gamma, lam))
    # What a mask that keeps all classes would give.
    assert abs(found[1] - 1.458362) > 0.2


@pytest.mark.parametrize("lam", [1.0, 3.0])
def test_nkd__is_the_loop_and_slopes_are_differences(lam):
    z, t, y = drawn(5)
    cost = nkd(z, t, y, temperature=lam)
    want = [slow.nkd(*row, 1.5, lam)[2] for row in zip(z.tolist(), t.tolist(), y, strict=True)]
    np.testing.assert_allclose(cost.value, want, rtol=1e-12)
    differences = slow.slope_of(lambda x: nkd(x, t, y, temperature=lam).value, z)
    np.testing.assert_allclose(cost.slope, differences, atol=1e-7)
    shifted = nkd(z + 4, t - 3, y, temperature=lam)
    np.testing.assert_allclose(shifted.value, cost.value, rtol=1e-12)
    # From log-probabilities at any λ the same.
    stored = nkd(z, np.log(soft(t)), y, temperature=lam)
    np.testing.assert_allclose(stored.value, cost.value, rtol=1e-12)


def test_nkd__takes_cross_entropy_apart():
    # CE(t, s) = BCE(t_y, s_y) + (1 − t_y) L_non.
    z, t, y = drawn(6)
    rows = np.arange(7)
    t_y, s_y = soft(t)[rows, y], soft(z)[rows, y]
    others = nkd(z, t, y, weight=1.0).value - nkd(z, t, y, weight=0.0).value
    binary = -t_y * np.log(s_y) - (1 - t_y) * np.log(1 - s_y)
    np.testing.assert_allclose(
        cross_entropy(z, soft(t)).value, binary + (1 - t_y) * others, rtol=1e-12
    )
    # The part of the others does not move the given class, and is at rest where both agree.
    slope = nkd(z, t, y, weight=1.0).slope - nkd(z, t, y, weight=0.0).slope
    np.testing.assert_allclose(slope[rows, y], 0, atol=1e-12)
    at_rest = nkd(t, t, y, weight=1.0).slope - nkd(t, t, y, weight=0.0).slope
    np.testing.assert_allclose(at_rest, 0, atol=1e-12)
    assert np.abs(nkd(t, t, y).slope).max() > 0.01


def test_nkd__corners():
    z, _, y = drawn(7)
    sure = np.where(np.arange(5) == y[:, None], 0.0, -np.inf)
    given_only = -np.log(soft(z))[np.arange(7), y]
    for gamma in (0.0, 1.5):
        cost = nkd(z, sure, y, weight=gamma)
        np.testing.assert_allclose(cost.value, given_only, rtol=1e-12)
        np.testing.assert_allclose(cost.slope, soft(z) - np.exp(sure), atol=1e-12)
    two = nkd(z[:, :2], z[:, 2:4], y % 2)
    t_y = soft(z[:, 2:4])[np.arange(7), y % 2]
    s_y = soft(z[:, :2])[np.arange(7), y % 2]
    np.testing.assert_allclose(two.value, -t_y * np.log(s_y), rtol=1e-12)
    one = nkd(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2, int))
    assert one.value.tolist() == [0, 0]
    assert one.slope.tolist() == [[0], [0]]
    # A teacher sure of another class.
    other = np.array([[-np.inf, 0.0, -np.inf]])
    cost = nkd(np.zeros((1, 3)), other, np.array([0]), weight=1.0)
    np.testing.assert_allclose(cost.value, np.log(2), rtol=1e-12)


# -- USKD ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank_by", "others", "total"), [("logprob", 1.217015, 0.724559), ("prob", 1.293938, 0.732252)]
)
def test_uskd__reference_values(rank_by, others, total):
    z, w, y = OF_USKD
    parts = [
        uskd(z, w, y, weights=weights, rank_by=rank_by)
        for weights in ((1.0, 0.0, 0.005), (0.0, 1.0, 0.0), losses.USKD)
    ]
    target, non, whole = (part.student.value.mean() for part in parts)
    weak = parts[0].weak.value.mean()
    found = [target, weak, non, whole + weak]
    assert np.round(found, 6).tolist() == [0.595751, 0.007106, others, total]
    p = own_target(soft(z), np.eye(4)[y])
    assert np.round(p[[0, 1], y], 6).tolist() == [1.103776, 0.896224]
    by_loop = slow.uskd(z.tolist(), w.tolist(), y.tolist(), rank_by)
    np.testing.assert_allclose([target, non, weak / 0.005], by_loop, rtol=1e-12)


@pytest.mark.parametrize("rank_by", ["prob", "logprob"])
def test_uskd__is_the_loop_and_slopes_are_differences_with_fixed_labels(rank_by):
    z, w, y = drawn(9, n=6, k=7, size=1.0)
    for place, weights in enumerate([(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)]):
        cost = uskd(z, w, y, weights=weights, rank_by=rank_by)
        want = slow.uskd(z.tolist(), w.tolist(), y.tolist(), rank_by)[place]
        found = cost.student.value.mean() + cost.weak.value.mean()
        assert found == pytest.approx(want, rel=1e-12)
    is_target = np.eye(7, dtype=bool)[y]
    p = own_target(soft(z), np.eye(7)[y])
    zipf = zipf_target(z, w, is_target, rank_by=rank_by)

    def fixed(x):
        inside = np.where(is_target, -np.inf, x)
        log_others = inside - np.log(np.exp(inside).sum(axis=1, keepdims=True))
        log_others = np.where(is_target, 0, log_others)
        return -(p * np.log(soft(x))).sum(axis=1) - 0.1 * (zipf * log_others).sum(axis=1)

    cost = uskd(z, w, y, rank_by=rank_by)
    np.testing.assert_allclose(cost.student.slope, slow.slope_of(fixed, z), atol=1e-7)
    of_weak = slow.slope_of(lambda x: uskd(z, x, y, rank_by=rank_by).weak.value, w)
    np.testing.assert_allclose(cost.weak.slope, of_weak, atol=1e-8)
    np.testing.assert_allclose(p.sum(axis=1).mean(), 1, rtol=1e-12)


def test_uskd__a_label_of_one_class_written_as_a_row_is_that_class():
    z, w, y = drawn(10)
    one, other = uskd(z, w, y), uskd(z, w, np.eye(5)[y])
    for part in ("student", "weak"):
        for got, want in zip(getattr(one, part), getattr(other, part), strict=True):
            np.testing.assert_array_equal(got, want)


def test_uskd__of_mixed_labels_has_two_targets():
    z, w, _ = drawn(11, n=3)
    label = 0.7 * np.eye(5)[[0, 1, 2]] + 0.3 * np.eye(5)[[1, 1, 4]]
    s = soft(z)
    p = own_target(s, label)
    first = s[[0, 1, 2], [0, 1, 2]] ** 2
    second = s[[0, 2], [1, 4]] ** 2
    want = np.zeros((3, 5))
    want[[0, 1, 2], [0, 1, 2]] = first - first.mean() + np.array([0.7, 1, 0.7])
    want[[0, 2], [1, 4]] = second + 0.3 - second.mean()
    np.testing.assert_allclose(p, want, atol=1e-15)
    zipf = zipf_target(z, w, label > 0, rank_by="prob")
    assert (zipf[label > 0] == 0).all()
    np.testing.assert_allclose(zipf.sum(axis=1), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="at most two classes were expected, got one of 3"):
        uskd(z, w, np.array([[0.4, 0.3, 0.3, 0, 0]] * 3))
    assert np.isfinite(uskd(z, w, label).student.value).all()


def test_uskd__corners():
    ties = zipf_target(
        np.zeros((1, 4)), np.zeros((1, 4)), np.eye(4, dtype=bool)[[1]], rank_by="prob"
    )
    total = 1 + 1 / 3 + 1 / 4
    np.testing.assert_allclose(ties, [[1 / total, 0, 1 / 3 / total, 1 / 4 / total]], rtol=1e-12)
    sure = np.array([[2000.0, 1.0, 0.0]])
    for by in ("prob", "logprob"):
        found = zipf_target(sure, sure, np.eye(3, dtype=bool)[[0]], rank_by=by)
        np.testing.assert_allclose(found, [[0, 0.6, 0.4]], rtol=1e-12)
        one = uskd(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2, int), rank_by=by)
        np.testing.assert_allclose(one.student.value, 0, atol=1e-15)
        none = uskd(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int), rank_by=by)
        assert none.student.slope.shape == (0, 3)
    with pytest.raises(ValueError, match="rank_by prob or logprob was expected, got 'rank'"):
        uskd(Z, Z, np.array([0]), rank_by="rank")


# -- MIX-KD and the discriminator ------------------------------------------------------------------


def test_mix_kd__is_the_loop_and_slopes_are_differences():
    z, t, y = drawn(12)
    q = 0.6 * np.eye(5)[y] + 0.4 * np.eye(5)[y[::-1]]
    cost = mix_kd(z, t, q)
    want = [
        slow.mix_kd(*row, 0.1, 0.9) for row in zip(*(x.tolist() for x in (z, t, q)), strict=True)
    ]
    np.testing.assert_allclose(cost.value, want, rtol=1e-12)
    np.testing.assert_allclose(
        cost.slope, slow.slope_of(lambda x: mix_kd(x, t, q).value, z), atol=1e-7
    )
    scaled = mix_kd(8 * z + 3, 0.1 * t - 2, q)
    np.testing.assert_allclose(scaled.value, cost.value, rtol=1e-12)


def test_mix_kd__where_logits_are_alike_or_there_is_one_class():
    q = np.eye(3)[[0, 1]]
    cost = mix_kd(np.zeros((2, 3)), np.zeros((2, 3)), q)
    np.testing.assert_allclose(cost.value, 0.1 * np.log(3), rtol=1e-12)
    assert np.isfinite(cost.slope).all()
    one = mix_kd(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    assert (one.value.tolist(), one.slope.tolist()) == ([0], [[0]])


def test_discriminator__with_its_last_relu_is_never_below_half_of_log_two():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 6, 8)) * 30
    layers = [(rng.normal(size=(4, 8)), np.zeros(4)), (rng.normal(size=(2, 4)), np.zeros(2))]
    lowest = discriminator_loss(np.array([[99.0, 0.0]]), np.array([[0.0, 99.0]]))
    np.testing.assert_allclose(lowest, 0.34657, atol=1e-5)
    released = [discriminated(v, layers, last_relu=True) for v in (x, t)]
    assert (discriminator_loss(*released) >= np.log(2) / 2).all()
    free = discriminator_loss(np.array([[99.0, -99.0]]), np.array([[-99.0, 99.0]]))
    np.testing.assert_allclose(free, 0, atol=1e-12)
    # By hand.
    hidden = np.maximum(x[0] @ layers[0][0].T, 0)
    np.testing.assert_allclose(discriminated(x, layers)[0], hidden @ layers[1][0].T, rtol=1e-12)


# -- what may not matter ---------------------------------------------------------------------------

LOSSES = {
    "cross_entropy": lambda z, t, y: cross_entropy(z, soft(t), temperature=2.0),
    "distillation": lambda z, t, y: distillation(z, t, temperature=2.0),
    "nkd": lambda z, t, y: nkd(z, t, y, temperature=2.0),
    "uskd": lambda z, t, y: uskd(z, t, y, weights=(1.0, 1.0, 1.0)).student,
    "mix_kd": lambda z, t, y: mix_kd(z, t, np.eye(z.shape[1])[y]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_all__follow_their_items_and_classes(name):
    (z, t, y), loss, rng = drawn(14), LOSSES[name], np.random.default_rng(14)
    want = loss(z, t, y)
    rows, classes = rng.permutation(7), rng.permutation(5)
    got = loss(z[rows], t[rows], y[rows])
    np.testing.assert_allclose(got.value, want.value[rows], rtol=1e-12)
    np.testing.assert_allclose(got.slope, want.slope[rows], atol=1e-13)
    got = loss(z[:, classes], t[:, classes], np.argsort(classes)[y])
    np.testing.assert_allclose(got.value, want.value, rtol=1e-12)
    np.testing.assert_allclose(got.slope, want.slope[:, classes], atol=1e-13)
    got = loss(*(np.repeat(x, 3, axis=0) for x in (z, t, y)))
    np.testing.assert_allclose(got.value, np.repeat(want.value, 3), rtol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "distillation", "nkd"])
def test_all__a_class_that_nobody_thinks_of_changes_nothing(name):
    (z, t, y), loss = drawn(15), LOSSES[name]
    want = loss(z, t, y)
    got = loss(*(np.column_stack([x, np.full(7, -2000.0)]) for x in (z, t)), y)
    np.testing.assert_allclose(got.value, want.value, rtol=1e-12)
    np.testing.assert_allclose(got.slope[:, :5], want.slope, atol=1e-13)
    np.testing.assert_allclose(got.slope[:, 5], 0, atol=1e-13)


# -- what is passed in -----------------------------------------------------------------------------


def test_mean_cost__is_weighted_and_refuses_weights_that_say_nothing():
    assert mean_cost(np.array([1.0, 3.0])) == 2
    assert mean_cost(np.zeros(0)) == 0
    assert mean_cost(np.array([1.0, 3.0]), np.array([0, 5])) == 3
    for weights, words in (
        (np.zeros(2), "a weight above 0 was expected"),
        (np.array([1, -1]), "weights ≥ 0 of shape"),
        (np.array([1, np.nan]), "weights ≥ 0 of shape"),
        (np.ones((2, 1)), "weights ≥ 0 of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            mean_cost(np.array([1.0, 3.0]), weights)


def test_all__nothing_of_no_item():
    none, given_none = np.zeros((0, 4)), np.zeros(0, int)
    costs = [
        cross_entropy(none, none),
        divergence(none, none, temperature=2.0),
        distillation(none, none),
        nkd(none, none, given_none),
        mix_kd(none, none, none),
        cross_entropy(none, SparseTarget(np.zeros((0, 2), int), np.zeros((0, 2)), np.zeros(0), 4)),
    ]
    for cost in costs:
        assert (cost.value.shape, cost.slope.shape) == ((0,), (0, 4))


def test_all__one_item_is_as_in_a_batch():
    z, t, y = drawn(13)
    for function in (
        lambda rows: distillation(z[rows], t[rows], temperature=2.0),
        lambda rows: nkd(z[rows], t[rows], y[rows]),
        lambda rows: mix_kd(z[rows], t[rows], np.eye(5)[y[rows]]),
    ):
        whole, one = function(slice(None)), function(slice(3, 4))
        np.testing.assert_array_equal(whole.value[3:4], one.value)
        np.testing.assert_array_equal(whole.slope[3:4], one.slope)


def test_all__exact_probabilities_of_0_and_1():
    cost = divergence(np.array([[0.0, 700.0]]), np.array([[0.0, 1.0]]))
    assert cost.value.tolist() == [0]
    cost = divergence(np.array([[0.0, 700.0]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(cost.value, 700)
    np.testing.assert_allclose(cost.slope, [[-1, 1]])
    sure = distillation(np.zeros((1, 2)), np.array([[0.0, -np.inf]]))
    np.testing.assert_allclose(sure.value, np.log(2))


SPARSE = SparseTarget(np.array([[0]]), np.array([[1.0]]), np.zeros(1), 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cross_entropy(Z, T), "row 0 of the target: probabilities negative"),
        (lambda: cross_entropy(Z, np.full((1, 4), 0.3)), "they sum to 1.2000"),
        (lambda: cross_entropy(Z, np.full((1, 4), np.nan)), "not finite"),
        (lambda: cross_entropy(Z, np.ones((4, 1))), r"a target of shape \(1, 4\) was expected"),
        (lambda: cross_entropy(Z[0], Z[0]), r"logits of shape \(N, K\), K ≥ 1, were expected"),
        (lambda: cross_entropy(np.full((1, 4), np.inf), Z), "row 0, class 0 has inf"),
        (lambda: cross_entropy(Z, SPARSE, temperature=0), "a positive temperature was expected"),
        (
            lambda: cross_entropy(Z, SPARSE._replace(ids=np.array([[0.0]]))),
            r"integer ids was expected, got \(1, 4\) with float64",
        ),
        (
            lambda: cross_entropy(Z, SPARSE._replace(ids=np.array([[4]]))),
            "listed classes in 0 … 3 were expected, got 4 … 4",
        ),
        (lambda: cross_entropy(Z, SPARSE._replace(n_classes=5)), r"got \(1, 5\)"),
        (
            lambda: cross_entropy(Z, SPARSE._replace(even=np.ones(1))),
            "row 0 of the target sums to 5",
        ),
        (lambda: cross_entropy(Z, SPARSE._replace(excess=np.full((1, 1), np.nan))), "sums to nan"),
        (lambda: distillation(Z, T[:, :3]), r"a teacher of shape \(1, 4\) was expected"),
        (lambda: distillation(Z, np.full((1, 4), -np.inf)), "row 0 has others"),
        (lambda: distillation(Z, np.full((1, 4), np.nan)), "row 0 has others"),
        (lambda: nkd(Z, T, np.array([4])), "class ids in 0 … 3 were expected, got 4 … 4"),
        (lambda: nkd(Z, T, np.array([0.0])), "integers of shape"),
        (lambda: nkd(Z, T, np.array([[0]])), "integers of shape"),
        (lambda: average_softmax(np.zeros((0, 1, 4))), "at least one teacher"),
        (lambda: average_softmax(Z), "at least one teacher"),
        (lambda: uskd(Z, Z[:, :2], np.array([0])), "a second head of shape"),
    ],
)
def test_all__say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
