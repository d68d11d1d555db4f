"""Oracles: the closed form for a linear student, torch through the unrolled step, planted truth."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from labelops.distill import trust as of
from labelops.nn.threads import one_thread
from labelops.nn.trust import (
    Known,
    RatioNet,
    Taught,
    TrustLearner,
    hypergradient,
    inner_loss,
    learn_trust,
    trust_features,
)


def drawn(seed=0, n=15, d=4, k=3, n_held_out=8):
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=(n, k)) * 2
    y, right = rng.integers(0, k, n), rng.integers(0, k, n_held_out)
    x, others = rng.normal(size=(n, d)), rng.normal(size=(n_held_out, d))
    items = Taught(*(torch.tensor(part) for part in (x, teacher, y)))
    return items, Known(torch.tensor(others), torch.tensor(right)), torch.tensor(rng.random(n))


def network(seed=0, d=4, k=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, k)).double()


@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_hypergradient__of_a_linear_student_is_the_closed_form(tau):
    items, held_out, alpha = drawn()
    student = nn.Linear(4, 3, bias=False).double()
    loss, slope = hypergradient(student, items, held_out, alpha, rate=0.7, temperature=tau)
    want = of.hypergradient(
        student.weight.detach().numpy().T,
        of.Taught(*(part.numpy() for part in items)),
        of.Known(*(part.numpy() for part in held_out)),
        alpha.numpy(),
        rate=0.7,
        temperature=tau,
    )
    assert loss.item() == pytest.approx(want.loss, rel=1e-13)
    np.testing.assert_allclose(slope, want.slope, atol=1e-16, rtol=1e-11)


@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_hypergradient__of_any_student_is_what_torch_finds_through_the_step(tau):
    items, held_out, alpha = drawn(1)
    student = network()
    before = copy.deepcopy(student.state_dict())
    loss, slope = hypergradient(student, items, held_out, alpha, rate=0.5, temperature=tau)
    alpha.requires_grad_()
    weights = dict(student.named_parameters())
    inner = inner_loss(student, weights, items, alpha, temperature=tau)
    down = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    after = {n: w - 0.5 * g for (n, w), g in zip(weights.items(), down, strict=True)}
    outer = functional.cross_entropy(
        functional_call(student, after, (held_out.inputs,)), held_out.given
    )
    assert loss.item() == pytest.approx(outer.item(), rel=1e-13)
    np.testing.assert_allclose(slope, torch.autograd.grad(outer, alpha)[0], rtol=1e-11, atol=1e-16)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])


def test_trust_features__are_the_definition():
    rng = np.random.default_rng(2)
    s, t = rng.dirichlet(np.ones(4), 9), rng.dirichlet(np.ones(4), 9)
    y = rng.integers(0, 4, 9)
    means = of.class_means(of.sum_by_class(t, y))
    got = trust_features(*(torch.tensor(x) for x in (s, t, means, y)))
    np.testing.assert_allclose(got, of.trust_features(s, t, means, y), rtol=1e-12, atol=1e-15)


def test_learner__its_network_has_the_derivative_of_the_outer_loss():
    # In the authors' script the network has none.
    items, held_out, _ = drawn(3)
    learner = TrustLearner(network(), torch.full((3, 3), 1 / 3).double(), rate=0.5, seed=4)
    features = learner.features(items)

    def outer():
        alpha = learner.net(features).detach()
        return hypergradient(learner.student, items, held_out, alpha, rate=0.5)[0].item()

    net = copy.deepcopy(learner.net)
    learner.step(items, held_out)
    slopes = [p.grad.clone() for p in learner.net.parameters()]
    assert all(slope.abs().max() > 0 for slope in slopes)
    learner.student, learner.net = network(), net
    for parameter, slope in zip(net.parameters(), slopes, strict=True):
        at, ends = int(slope.abs().flatten().argmax()), []
        cell = parameter.data.view(-1)[at : at + 1]
        value = cell.clone()
        for change in (1e-5, -1e-5):
            cell.copy_(value + change)
            ends.append(outer())
        cell.copy_(value)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope.flatten()[at].item(), rel=1e-4)


def test_learner__its_student_makes_the_step_of_the_definition():
    items, held_out, _ = drawn(5)
    student = nn.Linear(4, 3, bias=False).double()
    learner = TrustLearner(student, torch.eye(3).double(), rate=0.5, temperature=1.5)
    weights = student.weight.detach().numpy().T.copy()
    features = learner.features(items)
    learner.step(items, held_out)
    # Trust is said again by the network after its own step.
    alpha = learner.net(features).detach().numpy()
    arrays = of.Taught(*(part.numpy() for part in items))
    want = of.step(weights, arrays, alpha, rate=0.5, temperature=1.5)
    np.testing.assert_allclose(student.weight.detach().numpy().T, want, rtol=1e-12)


def test_learner__leaves_frozen_layers_and_gradients_of_others_alone():
    items, held_out, _ = drawn(6)
    student = network()
    for parameter in student[0].parameters():
        parameter.requires_grad_(False)
    first = student[0].weight.clone()
    last = student[2].weight.detach().clone()
    TrustLearner(student, torch.eye(3).double(), rate=0.5).step(items, held_out)
    assert torch.equal(student[0].weight, first)
    assert not torch.equal(student[2].weight, last)
    assert all(p.grad is None for p in student.parameters())


def test_inner_loss__refuses_trust_that_would_be_broadcast():
    items, _, alpha = drawn(7)
    student = network()
    weights = dict(student.named_parameters())
    with pytest.raises(ValueError, match=r"shape \(15,\) was expected, got \(15, 1\)"):
        inner_loss(student, weights, items, alpha[:, None])


def test_learn_trust__says_what_is_missing():
    items, held_out, _ = drawn(8)
    nobody = Known(held_out.inputs[:0], held_out.given[:0])
    with pytest.raises(ValueError, match="at least one held-out item was expected"):
        learn_trust(network(), items, nobody)
    with pytest.raises(ValueError, match="at least one item was expected"):
        learn_trust(network(), Taught(*(part[:0] for part in items)), held_out)
    with pytest.raises(ValueError, match="a positive rate was expected, got 0"):
        learn_trust(network(), items, held_out, rate=0)


def test_ratio_net__begins_by_its_seed_and_leaves_other_chance_alone():
    before = torch.random.get_rng_state()
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(RatioNet(seed=1)(x), RatioNet(seed=1)(x))
    assert not torch.equal(RatioNet(seed=1)(x), RatioNet(seed=2)(x))
    assert torch.equal(before, torch.random.get_rng_state())
    assert [tuple(p.shape) for p in RatioNet().parameters()][::2] == [(32, 9), (16, 32), (1, 16)]


N, D, K = 600, 20, 5


def planted(seed):
    """Return items of which some labels, and independently some of a teacher's words, are wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N + 2300, D)).astype(np.float32)
    scores = x @ rng.normal(size=(D, K)).astype(np.float32)
    true = scores.argmax(axis=1)
    given, teacher = true[:N].copy(), scores[:N].copy()
    drawn, moved = (rng.random(N) < 0.3 for _ in range(2))
    given[drawn] = rng.integers(0, K, int(drawn.sum()))
    teacher[moved] = teacher[rng.integers(0, N, int(moved.sum()))]
    label_wrong = (given != true[:N]) & ~moved
    teacher_wrong = (teacher.argmax(axis=1) != true[:N]) & ~drawn
    x, true = torch.tensor(x), torch.tensor(true)
    items = Taught(x[:N], torch.tensor(teacher), torch.tensor(given))
    return items, x[N:], true[N:], label_wrong, teacher_wrong


def begun():
    student = nn.Linear(D, K)
    for parameter in student.parameters():
        nn.init.zeros_(parameter)
    return student


def with_fixed(items, alpha):
    student, trust = begun(), torch.full((N,), alpha)
    steps = torch.optim.SGD(student.parameters(), lr=1.0)
    with one_thread():
        for _ in range(300):
            steps.zero_grad()
            inner_loss(student, dict(student.named_parameters()), items, trust).backward()
            steps.step()
    return student


def share_right(student, x, true):
    with torch.no_grad():
        return (student(x).argmax(dim=1) == true).double().mean().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_learn_trust__tells_wrong_labels_from_wrong_teachers(seed):
    items, x, true, label_wrong, teacher_wrong = planted(seed)
    student = begun()
    trust = learn_trust(student, items, Known(x[:300], true[:300]), seed=seed)
    assert trust[label_wrong].mean() > 0.73
    assert trust[teacher_wrong].mean() < 0.21
    learned = share_right(student, x[300:], true[300:])
    for alpha in (0.0, 1.0):
        assert learned > share_right(with_fixed(items, alpha), x[300:], true[300:]) + 0.02


def test_learn_trust__is_the_same_for_any_number_of_threads():
    items, x, true, *_ = planted(2)
    held_out, found = Known(x[:300], true[:300]), []
    before = torch.get_num_threads()
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        found.append(learn_trust(begun(), items, held_out, n_steps=5))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
