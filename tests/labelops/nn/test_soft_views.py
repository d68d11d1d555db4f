"""Oracle: `labelops.soft.views.decode`, which computes in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.distill import targets
from labelops.nn.soft_views import (
    decode,
    dense,
    entropy,
    load_views,
    take_views,
    to_tensors,
    view_target,
)
from labelops.soft import views as of
from labelops.soft.sampled import draw_classes
from labelops.soft.views import Coding, encode

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
def test_decode__says_the_same(seed, n_classes, k, sharpness, how, rest):
    rng = np.random.default_rng(seed)
    coding = Coding(*how, n_classes, 2.0)
    z = rng.normal(size=(4, n_classes)) * sharpness
    views = encode(z, rng.integers(0, n_classes, 4), coding=coding, k=k)
    for dtype, atol in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        stored = load_views(views, coding=coding, dtype=dtype)
        # A new temperature in every epoch, of the same tensors.
        for tau in (2.0, 0.5, 8.0, 2.0) if how[0] == "logit" else (2.0, None):
            settings = {"coding": coding, "temperature": tau, "rest": rest}
            got = decode(stored, **settings)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, of.decode(views, **settings), atol=atol)
            sparse = view_target(stored, **settings)
            want = targets.entropy(targets.of_views(views, **settings))
            np.testing.assert_allclose(entropy(sparse), want, atol=10 * atol)


def test_decode__refuses_to_temper_masses_again():
    coding = Coding("prob", "f16", 3, 2.0)
    stored = load_views(encode(np.zeros((1, 3)), np.array([0]), coding=coding, k=1), coding=coding)
    with pytest.raises(ValueError, match="temperature of 2, and 1 was asked for"):
        decode(stored, coding=coding, temperature=1.0)


def test_decode__corners():
    for how in CODINGS:
        coding = Coding(*how, 4)
        none = load_views(
            encode(np.zeros((0, 4)), np.zeros(0, int), coding=coding, k=2), coding=coding
        )
        assert decode(none, coding=coding).shape == (0, 4)
    coding = Coding("prob", "f16", 4)
    views = encode(np.zeros((1, 4)), np.array([0]), coding=coding, k=1)
    stored = load_views(views, coding=coding)
    lost = stored._replace(values=stored.values * 0, tail=stored.tail * 0)
    assert decode(lost, coding=coding).tolist() == [[0.25] * 4]


def test_ids__are_exact_beyond_half_precision_and_sixteen_bits():
    z = np.zeros((1, 70_000))
    z[0, [66_000, 69_999]] = 9, 8
    coding = Coding("prob", "f16", 70_000)
    views = encode(z, np.array([65_537]), coding=coding, k=2)
    stored = load_views(views, coding=coding)
    assert stored.ids.tolist() == [[66_000, 69_999, 65_537]]
    assert decode(stored, coding=coding)[0].argsort(descending=True)[:2].tolist() == [
        66_000,
        69_999,
    ]


def test_take_views__are_the_rows():
    coding = Coding("logit", "f16", 5)
    z = np.random.default_rng(0).normal(size=(6, 5))
    views = encode(z, np.arange(6) % 5, coding=coding, k=2)
    stored = load_views(views, coding=coding)
    got = decode(take_views(stored, torch.tensor([5, 0, 5])), coding=coding)
    np.testing.assert_array_equal(got, decode(stored, coding=coding)[[5, 0, 5]])


def test_to_tensors__drawn_and_mixed_labels_are_the_same():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(6), 10)
    drawn = targets.of_drawn(draw_classes(probs, np.arange(10).astype(np.uint64), n_draws=3))
    mixed = targets.combine([drawn, targets.take_items(drawn, np.arange(10)[::-1])], [0.3, 0.7])
    for target in (drawn, mixed):
        got = dense(to_tensors(target, dtype=torch.float64))
        np.testing.assert_allclose(got, targets.dense(target), atol=1e-15)
