"""Oracles: one item at a time, differences, linearity, and moments of what is drawn."""

import numpy as np
import pytest

from labelops.distill.losses import cross_entropy
from labelops.distill.mixing import (
    Mix,
    cut_items,
    decoupled,
    draw_boxes,
    draw_by_value,
    draw_mix,
    mix_items,
    mix_targets,
    partners_within,
    rank_agreement,
    ranked,
    value_shares,
)
from labelops.distill.targets import dense, of_views, take_items
from labelops.soft.views import Coding, encode
from tests.oracles import distill as slow


def rng_of(seed):
    return np.random.default_rng(seed)


# -- who with whom ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_draw_mix__mixes_exactly_a_part_of_the_batch(fraction):
    # Drawn with replacement, a part of 0.1 of 64 would leave some 41 % mixed.
    for seed in range(20):
        mix = draw_mix(64, rng_of(seed), fraction=fraction)
        assert (mix.share < 1).sum() == round(fraction * 64)
        assert sorted(mix.partner) == list(range(64))
        assert ((mix.share >= 0) & (mix.share <= 1)).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_draw_mix__shares_have_the_moments_of_beta(alpha):
    share = draw_mix(20_000, rng_of(1), alpha=alpha).share
    variance = 1 / (4 * (2 * alpha + 1))
    assert share.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 20_000))
    assert share.var() == pytest.approx(variance, rel=0.05)


def test_draw_mix__is_the_same_for_the_same_seed():
    for one, other in zip(draw_mix(9, rng_of(2)), draw_mix(9, rng_of(2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_partners_within__are_other_views_of_the_same_picture():
    rng = rng_of(3)
    groups = rng.integers(0, 30, 200)
    alone = np.bincount(groups, minlength=30)[groups] == 1
    partner = partners_within(groups, rng)
    assert sorted(partner) == list(range(200))
    np.testing.assert_array_equal(groups[partner], groups)
    np.testing.assert_array_equal(partner == np.arange(200), alone)
    # Every other view may be the partner.
    seen = {int(partners_within(np.zeros(4, int), rng)[0]) for _ in range(100)}
    assert seen == {1, 2, 3}
    assert partners_within(np.zeros(0, int), rng).tolist() == []
    assert partners_within(np.array([5]), rng).tolist() == [0]


def test_draw_mix__of_views_keeps_pictures_apart():
    groups = np.repeat(np.arange(8), 4)
    x = groups.astype(float)
    np.testing.assert_allclose(mix_items(x, draw_mix(32, rng_of(4), groups=groups)), x)


def test_value_shares__are_those_of_the_specification():
    found = value_shares(np.array([0.0, 1, 2, 5]), np.array([0]), bandwidth=1.0)[0]
    np.testing.assert_allclose(found, [0.57409576, 0.34820668, 0.07769541, 2.14e-6], atol=1e-8)


def test_value_shares__are_the_kernel_and_have_its_limits():
    rng = rng_of(5)
    y, rows = rng.normal(size=(7, 2)), np.array([6, 0, 3])
    found = value_shares(y, rows, bandwidth=0.7)
    for i, row in enumerate(rows):
        weight = [np.exp(-((y[row] - other) ** 2).sum() / (2 * 0.7**2)) for other in y]
        np.testing.assert_allclose(found[i], np.array(weight) / sum(weight), rtol=1e-12)
    np.testing.assert_allclose(value_shares(y, rows, bandwidth=1e-3), np.eye(7)[rows], atol=1e-12)
    np.testing.assert_allclose(value_shares(y, rows, bandwidth=1e6), 1 / 7, atol=1e-9)
    # Items of one value are alike.
    tied = value_shares(np.array([1.0, 1.0, 9.0]), np.array([0]), bandwidth=0.1)
    np.testing.assert_allclose(tied, [[0.5, 0.5, 0]], atol=1e-12)


def test_draw_by_value__draws_with_these_shares():
    y = np.array([0.0, 1, 2, 5])
    drawn = draw_by_value(y, np.zeros(20_000, int), rng_of(6), bandwidth=1.0)
    share = np.bincount(drawn, minlength=4) / 20_000
    want = value_shares(y, np.array([0]), bandwidth=1.0)[0]
    np.testing.assert_allclose(share, want, atol=4 * np.sqrt(0.25 / 20_000))
    assert draw_by_value(y, np.zeros(0, int), rng_of(6), bandwidth=1.0).tolist() == []
    assert draw_by_value(y[:0], np.zeros(0, int), rng_of(6), bandwidth=1.0).tolist() == []
    assert draw_by_value(y[:1], np.array([0, 0]), rng_of(6), bandwidth=1.0).tolist() == [0, 0]


# -- what is mixed ---------------------------------------------------------------------------------


def test_mix_items__is_linear_and_the_whole_share_is_the_item():
    rng = rng_of(7)
    x, labels = rng.normal(size=(5, 2, 3)), rng.dirichlet(np.ones(4), 5)
    mix = draw_mix(5, rng)
    got = mix_items(x, mix)
    for i, (j, lam) in enumerate(zip(*mix, strict=True)):
        np.testing.assert_allclose(got[i], lam * x[i] + (1 - lam) * x[j], rtol=1e-14)
    np.testing.assert_allclose(mix_items(labels, mix).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(mix_items(x, mix._replace(share=np.ones(5))), x)
    same = np.ones((5, 3))
    np.testing.assert_allclose(mix_items(same, mix), same, rtol=1e-15)
    none = Mix(np.zeros(0, int), np.zeros(0))
    assert mix_items(x[:0], none).shape == (0, 2, 3)


def test_mix_targets__cost_what_mixed_costs_are():
    rng, coding = rng_of(8), Coding("logprob", "f16", 9)
    for k in (1, 3, 9):
        views = encode(rng.normal(size=(12, 9)) * 2, np.arange(12) % 9, coding=coding, k=k)
        target, mix = of_views(views, coding=coding), draw_mix(12, rng)
        mixed = mix_targets(target, mix)
        np.testing.assert_allclose(dense(mixed), mix_items(dense(target), mix), atol=1e-15)
        z = rng.normal(size=(12, 9))
        costs = [cross_entropy(z, t).value for t in (target, take_items(target, mix.partner))]
        want = mix.share * costs[0] + (1 - mix.share) * costs[1]
        np.testing.assert_allclose(cross_entropy(z, mixed).value, want, rtol=1e-12)
        alone = Mix(np.arange(12), mix.share)
        np.testing.assert_allclose(dense(mix_targets(target, alone)), dense(target), atol=1e-15)


def test_cut_items__has_the_box_of_the_partner_and_its_exact_share():
    rng = rng_of(13)
    pictures = rng.normal(size=(300, 3, 7, 11))
    mix = draw_mix(300, rng, fraction=0.8)
    cut = draw_boxes(mix, rng, height=7, width=11)
    got = cut_items(pictures, cut)
    for i, (top, left, bottom, right) in enumerate(cut.box):
        want = pictures[i].copy()
        want[:, top:bottom, left:right] = pictures[mix.partner[i], :, top:bottom, left:right]
        np.testing.assert_array_equal(got[i], want)
        assert 1 - cut.mix.share[i] == pytest.approx((bottom - top) * (right - left) / 77)
        # A picture that is its own partner, or is not mixed, stays.
        of_other = (got[i] != pictures[i]).all(axis=0).mean()
        assert of_other == pytest.approx((mix.partner[i] != i) * (1 - cut.mix.share[i]))
    assert (cut.box[:, :2] >= 0).all()
    assert (cut.box[:, 2:] <= [7, 11]).all()
    assert (cut.mix.share[mix.share == 1] == 1).all()
    # Not larger than asked for, and as large where the border is far.
    assert (cut.mix.share >= mix.share - 1e-12).all()
    inner = draw_boxes(Mix(np.arange(2000), np.full(2000, 0.99)), rng, height=100, width=60)
    whole = (cut_sides(inner) == [10, 6]).all(axis=1)
    assert whole.mean() > 0.7
    np.testing.assert_allclose(inner.mix.share[whole], 0.99, rtol=1e-12)
    assert draw_boxes(Mix(np.zeros(0, int), np.zeros(0)), rng, height=1, width=1).box.shape == (
        0,
        4,
    )


def cut_sides(cut):
    return cut.box[:, 2:] - cut.box[:, :2]


# -- losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_decoupled__is_the_loop_and_slopes_are_differences(power):
    rng = rng_of(9)
    z, a, b = rng.normal(size=(40, 4)) * 2, rng.integers(0, 4, 40), rng.integers(0, 4, 40)
    lam = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0], 40)
    cost = decoupled(z, a, b, lam, power=power)
    want = [
        slow.decoupled(*row, 0.1, power) for row in zip(z.tolist(), a, b, lam.tolist(), strict=True)
    ]
    np.testing.assert_allclose(cost.value, want, rtol=1e-12)
    differences = slow.slope_of(lambda x: decoupled(x, a, b, lam, power=power).value, z)
    np.testing.assert_allclose(cost.slope, differences, atol=1e-7)
    # Which class is called a does not matter, whatever the ids.
    other = decoupled(z, b, a, 1 - lam, power=power)
    np.testing.assert_allclose(other.value, cost.value, rtol=1e-12)


def test_decoupled__without_its_weight_or_with_one_label_is_cross_entropy():
    rng = rng_of(10)
    z, a, b, lam = rng.normal(size=(6, 3)), np.arange(6) % 3, (np.arange(6) + 1) % 3, rng.random(6)
    label = lam[:, None] * np.eye(3)[a] + (1 - lam[:, None]) * np.eye(3)[b]
    plain = decoupled(z, a, b, lam, weight=0.0)
    np.testing.assert_allclose(plain.value, cross_entropy(z, label).value, rtol=1e-12)
    np.testing.assert_allclose(plain.slope, cross_entropy(z, label).slope, atol=1e-15)
    alike = decoupled(z, a, a, lam)
    np.testing.assert_allclose(alike.value, cross_entropy(z, np.eye(3)[a]).value, rtol=1e-12)
    two = decoupled(z[:, :2], a % 2, 1 - a % 2, lam)
    assert np.isfinite(two.value).all()
    none = decoupled(z[:0], a[:0], b[:0], lam[:0])
    assert none.slope.shape == (0, 3)


def test_ranked__is_paid_item_by_item():
    rng = rng_of(11)
    z, mixed, differs = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)), rng.random(30) < 0.6
    found = ranked(z, mixed, differs, margin=0.5)
    want = [
        max(0.0, max(t) - max(s) + 0.5) if d else 0.0
        for s, t, d in zip(z.tolist(), mixed.tolist(), differs, strict=True)
    ]
    np.testing.assert_allclose(found.value, want, rtol=1e-14)
    assert 0 < (found.value > 0).sum() < differs.sum()
    of_item = slow.slope_of(lambda x: ranked(x, mixed, differs, margin=0.5).value, z)
    of_mixed = slow.slope_of(lambda x: ranked(z, x, differs, margin=0.5).value, mixed)
    np.testing.assert_allclose(found.slope, of_item, atol=1e-8)
    np.testing.assert_allclose(found.mixed_slope, of_mixed, atol=1e-8)
    # Not the mean of one part times the mean of the other.
    assert found.value.mean() != pytest.approx(
        differs.mean() * np.maximum(mixed.max(axis=1) - z.max(axis=1) + 0.5, 0).mean()
    )
    tied = ranked(np.zeros((1, 3)), np.zeros((1, 3)), np.array([True]))
    assert (tied.value.tolist(), tied.slope.tolist()) == ([2], [[-1, 0, 0]])
    assert ranked(z[:0], mixed[:0], differs[:0]).value.shape == (0,)


def test_rank_agreement__is_the_loop():
    rng = rng_of(12)
    z, mixed = rng.normal(size=(10, 4)) * 2, rng.normal(size=(3, 10, 4))
    lam = np.maximum(rng.random((3, 10)), 0.5)
    lam[1:, 0] = lam[0, 0]
    found = rank_agreement(z, mixed, lam)
    want = [
        slow.rank_agreement(z[i].tolist(), mixed[:, i].tolist(), lam[:, i].tolist())
        for i in range(10)
    ]
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert ((found >= 0) & (found < 1)).all()
    # As certain as the labels.
    p = np.array([[0.9, 0.1], [0.6, 0.4]])
    exact = rank_agreement(np.array([[0.0, -800.0]]), np.log(p)[:, None], p[:, :1])
    np.testing.assert_allclose(exact, 0, atol=1e-12)


MIX = Mix(np.array([0]), np.array([0.5]))
Z = np.zeros((1, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_mix(3, rng_of(0), alpha=0), "a positive alpha was expected, got 0"),
        (lambda: draw_mix(3, rng_of(0), fraction=1.1), r"a fraction in \[0, 1\] was expected"),
        (lambda: draw_mix(3, rng_of(0), groups=np.zeros(2)), "a group of each of 3 items"),
        (lambda: mix_items(np.zeros((2, 3)), MIX), "a share of each of 2 items were expected"),
        (lambda: mix_items(Z, MIX._replace(share=np.array([1.5]))), r"shares in \[0, 1\]"),
        (lambda: mix_items(Z, MIX._replace(share=np.array([np.nan]))), r"shares in \[0, 1\]"),
        (lambda: draw_boxes(MIX, rng_of(0), height=0, width=3), "got 0 × 3"),
        (lambda: value_shares(np.zeros(3), np.array([0]), bandwidth=0), "a positive bandwidth"),
        (lambda: value_shares(np.full(3, np.nan), np.array([0]), bandwidth=1), "finite values"),
        (lambda: decoupled(Z, np.array([3]), np.array([0]), np.ones(1)), "got 3 … 3"),
        (lambda: decoupled(Z, np.array([1]), np.array([0]), np.ones(2)), "a share of each of 1"),
        (lambda: ranked(Z, Z, np.array([[True]])), "truth values of shape"),
        (lambda: ranked(Z, Z, np.array([1])), "truth values of shape"),
        (lambda: rank_agreement(Z, Z, np.ones((1, 1))), "mixed logits of shape"),
        (lambda: rank_agreement(Z, Z[None], np.zeros((1, 1))), "certainties in"),
    ],
)
def test_all__say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
