"""Oracle: the definitions in NumPy, values and derivatives; what is learned by whom."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.func import functional_call

from labelops.distill import losses as of
from labelops.distill import targets
from labelops.nn import distill_losses as nn_losses
from labelops.nn.distill_losses import Discriminator
from labelops.nn.soft_views import to_tensors
from labelops.soft.views import Coding, encode


def drawn(seed=0, n=9, k=6, size=2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) * size, rng.normal(size=(n, k)) * size, rng.integers(0, k, n)


def with_slope(function, z, dtype=torch.float64):
    """Return the costs of a twin and the derivative of their sum."""
    logits = torch.tensor(z, dtype=dtype, requires_grad=True)
    value = function(logits)
    value.sum().backward()
    return value.detach().numpy(), logits.grad.numpy()


def dense_target(t, dtype):
    return torch.softmax(torch.tensor(t, dtype=dtype), dim=1)


def settings_of(seed):
    """Return the definition and its twin with the same settings, by name."""
    z, t, y = drawn(seed)
    q = np.exp(t - np.logaddexp.reduce(t, axis=1, keepdims=True))
    coding = Coding("logit", "f16", 6)
    sparse = targets.of_views(encode(t, y, coding=coding, k=2), coding=coding, temperature=2.0)
    hard = np.where(np.arange(6) == y[:, None], 0.0, -np.inf)
    given = torch.tensor(y)

    def tensor(x, z):
        return torch.tensor(x, dtype=z.dtype)

    return z, {
        "cross_entropy": (
            lambda z: of.cross_entropy(z, q, temperature=2.0),
            lambda z: nn_losses.cross_entropy(z, tensor(q, z), temperature=2.0),
        ),
        "cross_entropy of stored": (
            lambda z: of.cross_entropy(z, sparse, temperature=2.0),
            lambda z: nn_losses.cross_entropy(
                z, to_tensors(sparse, dtype=z.dtype), temperature=2.0
            ),
        ),
        "divergence of stored": (
            lambda z: of.divergence(z, sparse, temperature=2.0),
            lambda z: nn_losses.divergence(z, to_tensors(sparse, dtype=z.dtype), temperature=2.0),
        ),
        "distillation": (
            lambda z: of.distillation(z, t, temperature=3.0),
            lambda z: nn_losses.distillation(z, tensor(t, z), temperature=3.0),
        ),
        "distillation of a sure teacher": (
            lambda z: of.distillation(z, hard),
            lambda z: nn_losses.distillation(z, tensor(hard, z)),
        ),
        "nkd": (
            lambda z: of.nkd(z, t, y, weight=3.5, temperature=3.0),
            lambda z: nn_losses.nkd(z, tensor(t, z), given, weight=3.5, temperature=3.0),
        ),
        "nkd of a sure teacher": (
            lambda z: of.nkd(z, hard, y),
            lambda z: nn_losses.nkd(z, tensor(hard, z), given),
        ),
        "nkd of a teacher sure of others": (
            lambda z: of.nkd(z, hard, (y + 1) % 6),
            lambda z: nn_losses.nkd(z, tensor(hard, z), (given + 1) % 6),
        ),
        "mix_kd": (
            lambda z: of.mix_kd(z, t, q),
            lambda z: nn_losses.mix_kd(z, tensor(t, z), tensor(q, z)),
        ),
        "mix_kd of stored": (
            lambda z: of.mix_kd(z, t, sparse),
            lambda z: nn_losses.mix_kd(z, tensor(t, z), to_tensors(sparse, dtype=z.dtype)),
        ),
    }


@pytest.mark.parametrize("name", settings_of(0)[1])
def test_twins__have_the_values_and_derivatives_of_the_definitions(name):
    for seed in range(3):
        z, both = settings_of(seed)
        define, twin = both[name]
        want = define(z)
        for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
            value, slope = with_slope(twin, z, dtype)
            np.testing.assert_allclose(value, want.value, rtol=rtol, atol=rtol)
            np.testing.assert_allclose(slope, want.slope, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("rank_by", ["prob", "logprob"])
@pytest.mark.parametrize("mixed", [False, True])
def test_uskd__has_the_values_and_derivatives_of_the_definition(rank_by, mixed):
    for seed in range(5):
        z, w, y = drawn(seed, size=1.0)
        labels = 0.7 * np.eye(6)[y] + 0.3 * np.eye(6)[(y + seed) % 6] if mixed else y
        want = of.uskd(z, w, labels, rank_by=rank_by)
        a, b = (torch.tensor(x, requires_grad=True) for x in (z, w))
        student, weak = nn_losses.uskd(a, b, torch.tensor(labels), rank_by=rank_by)
        (student.sum() + weak.sum()).backward()
        np.testing.assert_allclose(student.detach(), want.student.value, rtol=1e-11)
        np.testing.assert_allclose(weak.detach(), want.weak.value, rtol=1e-11)
        np.testing.assert_allclose(a.grad, want.student.slope, atol=1e-12)
        np.testing.assert_allclose(b.grad, want.weak.slope, atol=1e-12)


def test_uskd__ties_are_broken_alike_and_sure_students_are_finite():
    z = np.array([[0.0, 0, 0, 0], [1, 1, 0, 0], [2000, 1, 0, 0]])
    y = np.array([1, 0, 0])
    for rank_by in ("prob", "logprob"):
        want = of.uskd(z, z[:, ::-1].copy() * 0, y, rank_by=rank_by)
        for dtype in (torch.float64, torch.float32):
            tensors = torch.tensor(z, dtype=dtype), torch.zeros(3, 4, dtype=dtype)
            student, _ = nn_losses.uskd(*tensors, torch.tensor(y), rank_by=rank_by)
            np.testing.assert_allclose(student, want.student.value, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="rank_by prob or logprob was expected, got 'rank'"):
        nn_losses.uskd(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), rank_by="rank")


def test_average_softmax__is_the_definition():
    teachers = np.random.default_rng(0).normal(size=(3, 4, 5)) * 3
    got = nn_losses.average_softmax(torch.tensor(teachers))
    np.testing.assert_allclose(got, of.average_softmax(teachers), atol=1e-15)
    with pytest.raises(ValueError, match="at least one teacher"):
        nn_losses.average_softmax(torch.zeros(0, 4, 5))


def test_twins__of_one_class_and_of_no_item():
    one, none, y = torch.zeros(2, 1), torch.zeros(0, 3), torch.zeros(2, dtype=torch.int64)
    for z, given in ((one, y), (none, y[:0])):
        q = torch.softmax(z, dim=1)
        z = z.requires_grad_()
        costs = [
            nn_losses.cross_entropy(z, q),
            nn_losses.divergence(z, q),
            nn_losses.distillation(z, z),
            nn_losses.nkd(z, z, given),
            nn_losses.mix_kd(z, z, q),
            *nn_losses.uskd(z, z, given),
        ]
        for cost in costs:
            assert cost.tolist() == [0] * len(z)
        torch.stack([cost.sum() for cost in costs]).sum().backward()
        assert z.grad.tolist() == torch.zeros_like(z).tolist()


def test_twins__a_batch_of_one_is_as_in_a_larger_one():
    z, t, y = (torch.tensor(x) for x in drawn(3))
    for function in (
        lambda rows: nn_losses.distillation(z[rows], t[rows], temperature=2.0),
        lambda rows: nn_losses.nkd(z[rows], t[rows], y[rows]),
        lambda rows: nn_losses.mix_kd(z[rows], t[rows], torch.softmax(t[rows], dim=1)),
        lambda rows: nn_losses.average_softmax(torch.stack([z, t])[:, rows]),
    ):
        one = function(slice(2, 3))
        assert len(one) == 1
        assert torch.equal(one, function(slice(None))[2:3])


def test_twins__nothing_a_teacher_says_has_a_derivative():
    z, t, y = (torch.tensor(x) for x in drawn(1))
    t.requires_grad_()
    z.requires_grad_()
    costs = [
        nn_losses.distillation(z, t),
        nn_losses.nkd(z, t, y),
        nn_losses.cross_entropy(z, torch.softmax(t, dim=1)),
        nn_losses.divergence(z, torch.softmax(t, dim=1)),
        nn_losses.mix_kd(z, t, torch.softmax(t, dim=1)),
        nn_losses.cross_entropy(z, nn_losses.average_softmax(torch.stack([t, t]))),
        Discriminator(6).double().loss(torch.softmax(z, dim=1), torch.softmax(t, dim=1)),
    ]
    torch.stack([cost.sum() for cost in costs]).sum().backward()
    assert t.grad is None
    assert z.grad is not None


def test_twins__half_precision_is_taken_in_single():
    z, t, y = drawn(2)
    half = torch.tensor(z).bfloat16()
    exact = half.float()
    teacher = torch.tensor(t, dtype=torch.float32)
    assert (
        nn_losses.nkd(half, teacher, torch.tensor(y)).tolist()
        == nn_losses.nkd(exact, teacher, torch.tensor(y)).tolist()
    )
    assert nn_losses.distillation(half, teacher).dtype == torch.float32


@pytest.mark.parametrize(
    "call",
    [
        lambda z: nn_losses.cross_entropy(z, z[:1]),
        lambda z: nn_losses.cross_entropy(z, z[:, :1]),
        lambda z: nn_losses.distillation(z, z[:1]),
        lambda z: nn_losses.nkd(z, z[:1], torch.zeros(3, dtype=torch.int64)),
        lambda z: nn_losses.nkd(z, z, torch.zeros(3, 1, dtype=torch.int64)),
        lambda z: nn_losses.uskd(z, z[:1], torch.zeros(3, dtype=torch.int64)),
        lambda z: nn_losses.uskd(z, z, z[:, :2]),
        lambda z: Discriminator(4).loss(z, z[:1]),
        lambda z: nn_losses.cross_entropy(
            z,
            to_tensors(targets.SparseTarget(np.array([[0]]), np.ones((1, 1)), np.zeros(1), 4)),
        ),
    ],
)
def test_twins__refuse_what_would_be_broadcast(call):
    with pytest.raises(ValueError, match=r"shape .* was expected, got"):
        call(torch.zeros(3, 4))


# -- the discriminator -----------------------------------------------------------------------------


def layers_of(judge):
    return [(x.weight.detach().numpy(), x.bias.detach().numpy()) for x in judge.layers]


@pytest.mark.parametrize("last_relu", [False, True])
def test_discriminator__is_the_definition(last_relu):
    judge = Discriminator(200, last_relu=last_relu, seed=3).double()
    s, t = np.random.default_rng(0).normal(size=(2, 5, 200)) * 5
    got = judge.loss(torch.tensor(s), torch.tensor(t)).detach()
    said = [of.discriminated(x, layers_of(judge), last_relu=last_relu) for x in (s, t)]
    np.testing.assert_allclose(got, of.discriminator_loss(*said), rtol=1e-12)


def test_discriminator__one_step_of_a_shared_student_is_told_apart_more_easily():
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(64, 16, generator=rng, dtype=torch.float64)
    teacher = student + torch.randn(16, generator=rng, dtype=torch.float64)
    judge = Discriminator(16, mode="shared", seed=1).double()
    steps = torch.optim.Adam(judge.parameters(), lr=0.01)
    for _ in range(30):
        steps.zero_grad()
        judge.loss(student, teacher).mean().backward()
        steps.step()
    after = {}
    for mode in ("shared", "adversarial"):
        judge.mode = mode
        moved = student.clone().requires_grad_()
        before = judge.loss(moved, teacher).mean()
        before.backward()
        with torch.no_grad():
            after[mode] = judge.loss(moved - 5 * moved.grad, teacher).mean()
    assert after["shared"] < before < after["adversarial"]


def test_discriminator__learns_alike_in_both_modes():
    s, t = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(2))
    slopes = []
    for mode in ("shared", "adversarial"):
        judge = Discriminator(16, mode=mode, seed=1)
        judge.loss(s.requires_grad_(), t).mean().backward()
        slopes.append([p.grad for p in judge.parameters()])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="shared or adversarial was expected, got 'off'"):
        Discriminator(16, mode="off")


def test_discriminator__begins_alike_and_leaves_other_chance_alone():
    before = torch.random.get_rng_state()
    one, other = Discriminator(32, seed=5), Discriminator(32, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.layers[0].weight, Discriminator(32, seed=6).layers[0].weight)


def test_discriminator__as_released_is_not_below_half_of_log_two():
    judge = Discriminator(16, last_relu=True, seed=0)
    state = copy.deepcopy(judge.state_dict())
    for size in (1, 100, 10_000):
        large = {name: value * size for name, value in state.items()}
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(size))
        outputs = functional_call(judge, large, (x,))
        assert (outputs >= 0).all()
        loss = of.discriminator_loss(outputs.detach().numpy(), outputs.detach().numpy())
        assert (loss >= math.log(2) / 2 - 1e-7).all()
