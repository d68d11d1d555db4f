"""Oracle: the definitions in NumPy, values and derivatives."""

import numpy as np
import pytest
import torch

from labelops.distill import consistency as of_views_alike
from labelops.distill import mixing as of
from labelops.distill import targets
from labelops.nn import mixing as nn_mixing
from labelops.nn.soft_views import dense, entropy, to_tensors
from labelops.soft.views import Coding, encode


def drawn(seed=0, n=30, k=5):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, k, n), rng.integers(0, k, n)
    share = rng.choice([0.0, 0.25, 0.5, 0.8, 1.0], n)
    return rng.normal(size=(n, k)) * 2, rng.normal(size=(n, k)) * 2, a, b, share


def tensors(*arrays):
    return [torch.tensor(x) for x in arrays]


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_decoupled__is_the_definition(power):
    z, _, a, b, share = drawn()
    want = of.decoupled(z, a, b, share, power=power)
    logits = torch.tensor(z, requires_grad=True)
    value = nn_mixing.decoupled(logits, *tensors(a, b, share), power=power)
    value.sum().backward()
    np.testing.assert_allclose(value.detach(), want.value, rtol=1e-12)
    np.testing.assert_allclose(logits.grad, want.slope, atol=1e-13)


def test_ranked__is_the_definition_with_ties():
    z, mixed, *_ = drawn(1)
    z[0], mixed[0] = 0.0, 0.0
    differs = np.arange(30) % 3 > 0
    differs[0] = True
    want = of.ranked(z, mixed, differs, margin=0.5)
    one, other = (torch.tensor(x, requires_grad=True) for x in (z, mixed))
    value = nn_mixing.ranked(one, other, torch.tensor(differs), margin=0.5)
    value.sum().backward()
    np.testing.assert_allclose(value.detach(), want.value, rtol=1e-12)
    np.testing.assert_array_equal(one.grad, want.slope)
    np.testing.assert_array_equal(other.grad, want.mixed_slope)


def test_rank_agreement__is_the_definition_and_its_derivative_a_difference():
    rng = np.random.default_rng(2)
    z, mixed, lam = rng.normal(size=(6, 4)), rng.normal(size=(3, 6, 4)), rng.uniform(0.5, 1, (3, 6))
    lam[1, 0] = lam[0, 0]
    arguments = [x.requires_grad_() for x in tensors(z, mixed)]
    value = nn_mixing.rank_agreement(*arguments, torch.tensor(lam))
    np.testing.assert_allclose(value.detach(), of.rank_agreement(z, mixed, lam), rtol=1e-12)
    value.sum().backward()
    for at in ((0, 1), (5, 3)):
        change = np.zeros(z.shape)
        change[at] = 1e-6
        ends = [of.rank_agreement(z + sign * change, mixed, lam).sum() for sign in (1, -1)]
        assert arguments[0].grad[at].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("kind", "threshold", "tau"),
    [("hard", 0.6, 1.0), ("soft", 0.8, 0.4), ("hard", np.linspace(0.3, 0.9, 5), 1.0)],
)
def test_consistency__is_the_definition_and_the_weak_view_learns_nothing(kind, threshold, tau):
    weak, strong, *_ = drawn(3)
    settings = {"threshold": threshold, "kind": kind, "temperature": tau}
    want = of_views_alike.consistency(weak, strong, **settings)
    one, other = (torch.tensor(x, requires_grad=True) for x in (weak, strong))
    value = nn_mixing.consistency(one, other, **settings)
    value.sum().backward()
    assert one.grad is None
    np.testing.assert_allclose(value.detach(), want.value, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(other.grad, want.slope, atol=1e-13)


def test_mix_targets__is_the_definition():
    rng, coding = np.random.default_rng(4), Coding("logprob", "f16", 9)
    for k in (1, 3, 9):
        views = encode(rng.normal(size=(12, 9)) * 2, np.arange(12) % 9, coding=coding, k=k)
        target, mix = targets.of_views(views, coding=coding), of.draw_mix(12, rng)
        want = of.mix_targets(target, mix)
        got = nn_mixing.mix_targets(to_tensors(target, dtype=torch.float64), *tensors(*mix))
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_allclose(dense(got), targets.dense(want), atol=1e-15)
        np.testing.assert_allclose(entropy(got), targets.entropy(want), atol=1e-13)


def test_mix_items__is_the_definition():
    x, *_ = drawn(5)
    mix = of.draw_mix(30, np.random.default_rng(5))
    for array in (x, x[:, 0], x.reshape(30, 5, 1)):
        got = nn_mixing.mix_items(torch.tensor(array), *tensors(*mix))
        np.testing.assert_array_equal(got, of.mix_items(array, mix))


def test_cut_items__is_the_definition():
    rng = np.random.default_rng(6)
    for shape in ((20, 3, 5, 4), (20, 5, 4), (0, 3, 5, 4)):
        pictures = rng.normal(size=shape)
        cut = of.draw_boxes(of.draw_mix(len(pictures), rng), rng, height=5, width=4)
        got = nn_mixing.cut_items(*tensors(pictures, cut.box, cut.mix.partner))
        np.testing.assert_array_equal(got, of.cut_items(pictures, cut))


def test_twins__of_no_item():
    z, y = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert nn_mixing.decoupled(z, y, y, z[:, 0]).shape == (0,)
    assert nn_mixing.ranked(z, z, y > 0).shape == (0,)
    assert nn_mixing.rank_agreement(z, z[None], z.T[:1]).shape == (0,)
    assert nn_mixing.consistency(z, z).shape == (0,)
    assert nn_mixing.mix_items(z, y, z[:, 0]).shape == (0, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda z, y: nn_mixing.decoupled(z, y, y, torch.zeros(2, 1)),
        lambda z, y: nn_mixing.ranked(z, z, torch.zeros(2, 1, dtype=torch.bool)),
        lambda z, y: nn_mixing.ranked(z, z[:1], y > 0),
        lambda z, y: nn_mixing.rank_agreement(z, z[None, :1], torch.ones(1, 2)),
        lambda z, y: nn_mixing.rank_agreement(z, z[None], torch.ones(2)),
        lambda z, y: nn_mixing.consistency(z, z[:1]),
        lambda z, y: nn_mixing.mix_items(z, y, torch.zeros(2, 1)),
        lambda z, y: nn_mixing.cut_items(z[:, :, None], torch.zeros(1, 4), y),
        lambda z, y: nn_mixing.cut_items(z[:, :, None], torch.zeros(2, 4), y[:, None]),
    ],
)
def test_twins__refuse_what_would_be_broadcast(call):
    with pytest.raises(ValueError, match=r"shape .* was expected, got"):
        call(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


def test_consistency__says_which_kinds_there_are():
    with pytest.raises(ValueError, match="hard or soft was expected, got 'firm'"):
        nn_mixing.consistency(torch.zeros(1, 2), torch.zeros(1, 2), kind="firm")
