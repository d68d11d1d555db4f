"""Oracles: one class at a time, closed forms of divergences, and what was never stored."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.soft.views import (
    ERROR,
    Coding,
    check_written,
    decode,
    encode,
    keep_classes,
    renormalising_loss,
    smoothing_loss,
    take_views,
)
from tests.oracles import soft_views as slow

CODINGS = [("prob", "f16"), ("prob", "f32"), ("logprob", "u8"), ("logprob", "f16"),
           ("logprob", "f32"), ("logit", "f16"), ("logit", "f32")]  # fmt: skip


def some_logits(seed: int, n: int, k: int, sharpness: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k)) * sharpness


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_classes=st.integers(1, 9),
    k=st.integers(1, 10),
    sharpness=st.sampled_from([0.0, 0.5, 3.0, 8.0]),
    tau=st.sampled_from([0.5, 1.0, 4.0]),
    how=st.sampled_from(CODINGS),
)
def test_decode__is_the_loop_up_to_rounding(seed, n_classes, k, sharpness, tau, how):
    z = some_logits(seed, 4, n_classes, sharpness)
    y = np.random.default_rng(seed).integers(0, n_classes, 4)
    coding = Coding(*how, n_classes, tau)
    views = encode(z, y, coding=coding, k=k)
    even, none = (decode(views, coding=coding, rest=rest) for rest in ("even", "none"))
    for i in range(4):
        p = slow.softmax(z[i].tolist(), tau)
        top, kept = slow.stored_classes(p, int(y[i]), k)
        assert views.ids[i].tolist() == top[: len(views.ids[i])]
        off = ERROR[how[1]]
        np.testing.assert_allclose(even[i], slow.smoothed(p, kept), atol=off)
        np.testing.assert_allclose(none[i], slow.renormalised(p, kept), atol=2 * off / sum(p))
    np.testing.assert_allclose(even.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(none.sum(axis=1), 1, rtol=1e-12)
    lost = check_written(z, views, coding=coding)
    assert (lost >= 0).all()


@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_losses__are_the_divergences(k):
    z = some_logits(3, 50, 20, 2.0)
    y = np.arange(50) % 20
    for i in range(50):
        p = slow.softmax(z[i].tolist())
        _, kept = slow.stored_classes(p, int(y[i]), k)
        is_stored = np.isin(np.arange(20), kept)[None]
        exact = np.array([p])
        want = slow.divergence(p, slow.smoothed(p, kept)) if len(kept) < 20 else 0.0
        np.testing.assert_allclose(smoothing_loss(exact, is_stored), want, atol=1e-12)
        want = slow.divergence([x for x in slow.renormalised(p, kept) if x > 0],
                               [p[c] for c in range(20) if c in kept])  # fmt: skip
        np.testing.assert_allclose(renormalising_loss(exact, is_stored), want, atol=1e-12)


def test_smoothing_loss__is_nothing_only_where_the_rest_is_even():
    p = np.array([[0.7, 0.1, 0.1, 0.1], [0.7, 0.2, 0.1, 0.0], [1.0, 0.0, 0.0, 0.0]])
    stored = np.array([[True, False, False, False]] * 3)
    lost = smoothing_loss(p, stored)
    assert lost[0] == pytest.approx(0, abs=1e-15)
    assert lost[1] > 0.05
    assert lost[2] == 0


def test_logits__are_tempered_as_if_all_were_stored():
    z = some_logits(5, 200, 100, 1.5)
    coding = Coding("logit", "f32", 100, 1.0)
    views = encode(z, np.zeros(200, int), coding=coding, k=5)
    for tau, most in ((1.0, 1e-5), (2.0, 0.002), (4.0, 0.001), (20.0, 0.0002)):
        got = decode(views, coding=coding, temperature=tau)
        for i in range(0, 200, 20):
            p = slow.softmax(z[i].tolist(), tau)
            _, kept = slow.stored_classes(slow.softmax(z[i].tolist()), 0, 5)
            assert np.abs(got[i] - slow.smoothed(p, kept)).max() < most
    half = Coding("prob", "f16", 100)
    views = encode(z, np.zeros(200, int), coding=half, k=5)
    with pytest.raises(ValueError, match="temperature of 1, and 2 was asked"):
        decode(views, coding=half, temperature=2.0)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_logits__renormalised_at_any_temperature_are_softmax_of_the_kept(tau):
    z = some_logits(6, 30, 12, 3.0)
    coding = Coding("logit", "f32", 12, 2.0)
    views = encode(z, z.argmax(axis=1), coding=coding, k=4)
    got = decode(views, coding=coding, temperature=tau, rest="none")
    for i in range(30):
        kept = sorted(range(12), key=lambda c: -z[i, c])[:4]
        want = dict(zip(kept, slow.softmax([float(z[i, c]) for c in kept], tau), strict=True))
        np.testing.assert_allclose(got[i], [want.get(c, 0.0) for c in range(12)], atol=1e-6)


@pytest.mark.parametrize("how", CODINGS)
def test_encode__does_not_see_a_shift(how):
    z = np.round(some_logits(7, 20, 11, 3.0), 3)
    coding = Coding(*how, 11)
    for one, other in zip(
        encode(z, np.arange(20) % 11, coding=coding, k=3),
        encode(z + 8.0, np.arange(20) % 11, coding=coding, k=3),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=2e-3)


@pytest.mark.parametrize("how", CODINGS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_keep_classes__is_what_would_have_been_stored(how, k):
    z = some_logits(8, 60, 9, 2.0)
    coding, y = Coding(*how, 9, 2.0), np.arange(60) % 9
    wide, narrow = (encode(z, y, coding=coding, k=n) for n in (7, k))
    got = keep_classes(wide, coding=coding, k=k)
    np.testing.assert_array_equal(got.ids, narrow.ids)
    np.testing.assert_array_equal(got.values, narrow.values)
    tolerance = 7 * ERROR[how[1]]
    np.testing.assert_allclose(got.tail, narrow.tail, atol=tolerance)
    np.testing.assert_allclose(got.tail_mean, narrow.tail_mean, atol=tolerance)
    # All classes stored before, and what they leave then.
    whole = encode(z, y, coding=coding, k=9)
    np.testing.assert_allclose(
        decode(keep_classes(whole, coding=coding, k=k), coding=coding),
        decode(narrow, coding=coding),
        atol=tolerance,
    )


def test_peaked_teachers__lose_nothing_below_zero():
    z = some_logits(9, 300, 1000, 1.0)
    z[:, 17] += 25
    for how in CODINGS:
        coding = Coding(*how, 1000)
        views = encode(z, np.full(300, 17), coding=coding, k=5)
        if how[0] != "logit":
            assert (views.tail >= 0).all()
        q = decode(views, coding=coding)
        assert (q >= 0).all()
        np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-12)
        assert (q.argmax(axis=1) == 17).all()
        check_written(z, views, coding=coding)


def test_corners__no_view_one_class_all_alike_and_impossible_classes():
    for how in CODINGS:
        none = encode(np.zeros((0, 4)), np.zeros(0, int), coding=Coding(*how, 4), k=2)
        assert decode(none, coding=Coding(*how, 4)).shape == (0, 4)
        one = encode(np.zeros((3, 1)), np.zeros(3, int), coding=Coding(*how, 1), k=5)
        assert decode(one, coding=Coding(*how, 1)).tolist() == [[1], [1], [1]]
        tied = encode(np.zeros((1, 5)), np.array([4]), coding=Coding(*how, 5), k=2)
        assert tied.ids.tolist() == [[0, 1]]
        np.testing.assert_allclose(decode(tied, coding=Coding(*how, 5)), 0.2, atol=0.02)
    z = np.array([[0.0, -np.inf, -np.inf]])
    for how in CODINGS[:5]:
        views = encode(z, np.array([2]), coding=Coding(*how, 3), k=2)
        got = decode(views, coding=Coding(*how, 3))
        np.testing.assert_allclose(got, [[1, 0, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="finite logits were expected"):
        encode(z, np.array([2]), coding=Coding("logit", "f16", 3), k=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "k ≥ 1 were expected, got"),
        ({"given": np.array([0, 5])}, "given classes in 0 … 3 were expected, got 0 … 5"),
        ({"logits": np.full((2, 4), np.nan)}, "got something else in row 0"),
        ({"logits": np.array([[0.0] * 4, [np.inf, 0, 0, 0]])}, "got something else in row 1"),
        ({"logits": np.full((2, 4), -np.inf)}, "got something else in row 0"),
        ({"coding": Coding("prob", "u8", 4)}, "got prob in u8"),
        ({"coding": Coding("odds", "f16", 4)}, "got odds in f16"),
        ({"coding": Coding("prob", "f16", 4, 0.0)}, "a positive temperature were expected"),
        ({"coding": Coding("prob", "f16", 5)}, "shape \\(V, 5\\)"),
    ],
)
def test_encode__says_what_is_wrong(change, words):
    right = {"logits": np.zeros((2, 4)), "given": np.array([0, 1]),
             "coding": Coding("prob", "f16", 4), "k": 2} | change  # fmt: skip
    with pytest.raises(ValueError, match=words):
        encode(right["logits"], right["given"], coding=right["coding"], k=right["k"])


def test_check_written__finds_what_was_written_wrong():
    z = some_logits(1, 10, 6, 2.0)
    for how in CODINGS:
        coding = Coding(*how, 6)
        views = encode(z, np.zeros(10, int), coding=coding, k=2)
        turned = views._replace(ids=views.ids[:, ::-1])
        with pytest.raises(ArithmeticError, match="away from what was to be stored"):
            check_written(z, turned, coding=coding)
        with pytest.raises(ArithmeticError, match="view 3 is"):
            check_written(
                np.where(np.arange(10)[:, None] == 3, z * [[-1, 1, -1, 1, -1, 1]], z),
                views,
                coding=coding,
            )


def test_ids__do_not_overflow():
    z = np.zeros((1, 70_000))
    z[0, [66_000, 69_999]] = 9, 8
    views = encode(z, np.array([65_536]), coding=Coding("prob", "f32", 70_000), k=2)
    assert views.ids.dtype == np.uint32
    assert views.ids.tolist() == [[66_000, 69_999]]
    assert views.given.tolist() == [65_536]


def test_take_views__are_the_rows():
    z = some_logits(2, 5, 4, 1.0)
    views = encode(z, np.arange(5) % 4, coding=Coding("prob", "f16", 4), k=2)
    for rows in (slice(1, 3), np.array([4, 0])):
        for got, whole in itertools.zip_longest(take_views(views, rows), views):
            np.testing.assert_array_equal(got, whole[rows])
