"""Oracles: what `decode`, `read_drawn` and `smooth` say with all K numbers; closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.distill.targets import (
    SparseTarget,
    combine,
    dense,
    entropy,
    of_drawn,
    of_labels,
    of_views,
    take_items,
)
from labelops.soft.labels import SoftLabels, smooth, sparsify
from labelops.soft.sampled import draw_classes, read_drawn
from labelops.soft.views import Coding, decode, encode
from tests.oracles import soft_views as slow

CODINGS = [("prob", "f16"), ("prob", "f32"), ("logprob", "u8"), ("logprob", "f16"),
           ("logprob", "f32"), ("logit", "f16"), ("logit", "f32")]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_classes=st.integers(1, 9),
    k=st.integers(1, 10),
    sharpness=st.sampled_from([0.0, 3.0, 30.0]),
    how=st.sampled_from(CODINGS),
    rest=st.sampled_from(["even", "none"]),
)
def test_of_views__is_what_decode_says(seed, n_classes, k, sharpness, how, rest):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4, n_classes)) * sharpness
    coding = Coding(*how, n_classes, 2.0)
    views = encode(z, rng.integers(0, n_classes, 4), coding=coding, k=k)
    for tau in (2.0, 0.5, 8.0) if how[0] == "logit" else (2.0, None):
        want = decode(views, coding=coding, temperature=tau, rest=rest)
        got = of_views(views, coding=coding, temperature=tau, rest=rest)
        np.testing.assert_allclose(dense(got), want, atol=1e-14)
        np.testing.assert_allclose(dense(got).sum(axis=1), 1, rtol=1e-13)
        # A class that is listed again has nothing there.
        repeated = (got.ids[:, :-1] == got.ids[:, -1:]).any(axis=1)
        assert (got.excess[repeated, -1] == 0).all()


def test_of_views__refuses_to_temper_masses_again():
    coding = Coding("prob", "f16", 3, 2.0)
    views = encode(np.zeros((1, 3)), np.array([0]), coding=coding, k=1)
    with pytest.raises(ValueError, match="temperature of 2, and 1 was asked for"):
        of_views(views, coding=coding, temperature=1.0)
    logits = Coding("logit", "f16", 3, 2.0)
    with pytest.raises(ValueError, match="a positive temperature was expected, got 0"):
        of_views(views, coding=logits, temperature=0)


def test_of_views__the_given_class_is_there_where_it_is_not_among_the_first():
    coding = Coding("prob", "f32", 6)
    views = encode(np.log([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]]), np.array([5]), coding=coding, k=2)
    assert dense(of_views(views, coding=coding))[0, 5] == pytest.approx(0.04, abs=1e-8)


def test_of_views__what_was_rounded_to_nothing_is_even():
    coding = Coding("prob", "f16", 4)
    views = encode(np.zeros((1, 4)), np.array([0]), coding=coding, k=1)
    lost = views._replace(**{name: getattr(views, name) * 0 for name in ("values", "tail")})
    lost = lost._replace(given_value=lost.given_value * 0)
    assert dense(of_views(lost, coding=coding)).tolist() == [[0.25] * 4]
    assert decode(lost, coding=coding).tolist() == [[0.25] * 4]


def test_of_views__peaked_teachers_leave_nothing_below_zero():
    z = np.random.default_rng(1).normal(size=(200, 100))
    z[:, 3] += 25
    for how in CODINGS:
        coding = Coding(*how, 100)
        views = encode(z, np.full(200, 7), coding=coding, k=5)
        q = dense(of_views(views, coding=coding))
        assert q.min() > -1e-16
        np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("n_draws", [1, 3, 12])
def test_of_drawn__is_counts_over_draws(n_draws):
    rng = np.random.default_rng(n_draws)
    probs = rng.dirichlet(np.full(8, 0.3), 50)
    drawn = draw_classes(probs, rng.integers(0, 1 << 60, 50).astype(np.uint64), n_draws=n_draws)
    np.testing.assert_allclose(dense(of_drawn(drawn)), read_drawn(drawn), atol=1e-15)
    nothing = draw_classes(probs[:0], np.zeros(0, np.uint64), n_draws=n_draws)
    assert dense(of_drawn(nothing)).shape == (0, 8)


@pytest.mark.parametrize("k", [1, 3, 8, 20])
def test_of_labels__is_what_smooth_says(k):
    rng = np.random.default_rng(k)
    probs = rng.dirichlet(np.full(8, 0.3), 50)
    soft = sparsify(probs, given=rng.integers(0, 8, 50), k=k)
    np.testing.assert_allclose(dense(of_labels(soft)), smooth(soft), atol=1e-14)


def test_of_labels__an_item_without_any_is_even():
    none = np.zeros(0, np.uint16), np.zeros(0, np.float16)
    soft = SoftLabels(*none, np.array([0, 0], np.int32), np.zeros(1, np.float16), 4)
    assert dense(of_labels(soft)).tolist() == [[0.25] * 4]


@pytest.mark.parametrize("how", CODINGS)
def test_entropy__is_that_of_all_classes(how):
    z = np.random.default_rng(3).normal(size=(40, 12)) * 3
    coding = Coding(*how, 12)
    for k in (1, 5, 12):
        views = encode(z, np.arange(40) % 12, coding=coding, k=k)
        for rest in ("even", "none"):
            target = of_views(views, coding=coding, rest=rest)
            want = [-slow.divergence(q, [1.0] * 12) for q in dense(target).tolist()]
            np.testing.assert_allclose(entropy(target), want, atol=1e-12)


def some_targets(seed: int) -> list[SparseTarget]:
    rng = np.random.default_rng(seed)
    coding = Coding("logprob", "f16", 9)
    views = [
        encode(rng.normal(size=(20, 9)), np.arange(20) % 9, coding=coding, k=k) for k in (1, 3, 9)
    ]
    probs = rng.dirichlet(np.ones(9), 20)
    drawn = draw_classes(probs, np.arange(20).astype(np.uint64), n_draws=4)
    return [*(of_views(v, coding=coding) for v in views), of_drawn(drawn)]


def test_combine__is_linear_and_keeps_entropies_right():
    targets, rng = some_targets(5), np.random.default_rng(5)
    for shares in (np.full(4, 0.25), rng.dirichlet(np.ones(4), 20).T, np.eye(4)[2]):
        both = combine(targets, shares)
        want = np.einsum(
            "tn,tnk->nk",
            np.broadcast_to(shares.reshape(4, -1), (4, 20)),
            np.stack([dense(t) for t in targets]),
        )
        np.testing.assert_allclose(dense(both), want, atol=1e-14)
        exact = [-slow.divergence(q, [1.0] * 9) for q in dense(both).tolist()]
        np.testing.assert_allclose(entropy(both), exact, atol=1e-12)
        # Averaging does not lower entropy (Jensen).
        mean = sum(
            np.broadcast_to(a, 20) * entropy(t) for a, t in zip(shares, targets, strict=True)
        )
        assert (entropy(both) >= mean - 1e-12).all()


def test_combine__order_and_copies_of_teachers_change_nothing():
    targets = some_targets(6)
    one = dense(combine(targets, np.full(4, 0.25)))
    other = dense(combine(targets[::-1], np.full(4, 0.25)))
    np.testing.assert_allclose(one, other, atol=1e-15)
    same = combine([targets[1]] * 3, np.full(3, 1 / 3))
    np.testing.assert_allclose(dense(same), dense(targets[1]), atol=1e-15)


@pytest.mark.parametrize(
    ("pick", "shares"),
    [
        (slice(0, 0), np.zeros(0)),
        (slice(0, 2), np.array([0.5])),
        (slice(0, 2), np.array([0.5, 0.6])),
        (slice(0, 2), np.array([1.5, -0.5])),
        (slice(0, 2), np.array([np.nan, 1.0])),
    ],
)
def test_combine__says_what_does_not_fit(pick, shares):
    with pytest.raises(ValueError, match="combine: "):
        combine(some_targets(0)[pick], shares)


def test_combine__refuses_other_classes():
    one = SparseTarget(np.array([[0]]), np.ones((1, 1)), np.zeros(1), 3)
    with pytest.raises(ValueError, match=r"got \(items, classes\) \[\(1, 3\), \(1, 4\)\]"):
        combine([one, one._replace(n_classes=4)], np.array([0.5, 0.5]))


def test_take_items__are_the_rows():
    target = some_targets(1)[1]
    np.testing.assert_array_equal(
        dense(take_items(target, np.array([4, 4, 0]))), dense(target)[[4, 4, 0]]
    )
