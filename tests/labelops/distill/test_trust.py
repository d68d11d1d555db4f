"""Oracles: differences through the whole step, one item at a time, and sums by hand."""

import numpy as np
import pytest

from labelops.distill.losses import cross_entropy, distillation
from labelops.distill.trust import (
    Known,
    Taught,
    class_means,
    fused_target,
    hypergradient,
    step,
    sum_by_class,
    trust_features,
)
from tests.oracles import soft_views as slow


def drawn(seed=0, n=12, d=4, k=3, n_held_out=7):
    rng = np.random.default_rng(seed)
    items = Taught(rng.normal(size=(n, d)), rng.normal(size=(n, k)) * 2, rng.integers(0, k, n))
    held_out = Known(rng.normal(size=(n_held_out, d)), rng.integers(0, k, n_held_out))
    return rng.normal(size=(d, k)), items, held_out, rng.random(n)


def inner(weights, items, alpha, tau):
    """Return the loss of the step, one item at a time."""
    total = 0.0
    for x, t, y, a in zip(*items, alpha, strict=True):
        z = (x @ weights).tolist()
        said = slow.softmax(t.tolist(), tau)
        taught = tau**2 * slow.divergence(said, slow.softmax(z, tau))
        total += a * taught - (1 - a) * np.log(slow.softmax(z)[y])
    return total / len(alpha)


def by_differences(weights, items, alpha, tau, step=1e-5):
    slope = np.zeros_like(weights)
    for at in np.ndindex(weights.shape):
        high, low = weights.copy(), weights.copy()
        high[at] += step
        low[at] -= step
        slope[at] = (inner(high, items, alpha, tau) - inner(low, items, alpha, tau)) / (2 * step)
    return slope


@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_step__descends_the_loss_written_out(tau):
    weights, items, _, alpha = drawn()
    got = step(weights, items, alpha, rate=0.7, temperature=tau)
    want = weights - 0.7 * by_differences(weights, items, alpha, tau)
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize("tau", [1.0, 1.5])
@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0])
def test_hypergradient__is_the_difference_through_the_step(tau, rate):
    weights, items, held_out, alpha = drawn(1)
    alpha = 0.1 + 0.8 * alpha

    def outer(a):
        z = held_out.x @ step(weights, items, a, rate=rate, temperature=tau)
        said = [slow.softmax(row)[y] for row, y in zip(z.tolist(), held_out.given, strict=True)]
        return -np.mean(np.log(said))

    found = hypergradient(weights, items, held_out, alpha, rate=rate, temperature=tau)
    assert found.loss == pytest.approx(outer(alpha), rel=1e-12)
    differences = [(outer(alpha + e) - outer(alpha - e)) / 2e-5 for e in 1e-5 * np.eye(12)]
    np.testing.assert_allclose(found.slope, differences, atol=1e-8)


def test_hypergradient__a_teacher_that_says_the_label_has_no_part():
    weights, items, held_out, alpha = drawn(2)
    sure = np.where(np.arange(3) == items.given[:, None], 0.0, -np.inf)
    found = hypergradient(weights, items._replace(teacher=sure), held_out, alpha, rate=1.0)
    np.testing.assert_allclose(found.slope, 0, atol=1e-16)


def test_hypergradient__follows_its_items():
    weights, items, held_out, alpha = drawn(3)
    order = np.random.default_rng(3).permutation(12)
    one = hypergradient(weights, items, held_out, alpha, rate=1.0)
    moved = Taught(*(x[order] for x in items))
    other = hypergradient(weights, moved, held_out, alpha[order], rate=1.0)
    np.testing.assert_allclose(other.slope, one.slope[order], rtol=1e-10)


def test_step__with_all_trust_is_distillation_and_without_any_cross_entropy():
    weights, items, _, _ = drawn(4)
    z = items.x @ weights
    for alpha, cost in (
        (1.0, distillation(z, items.teacher)),
        (0.0, cross_entropy(z, np.eye(3)[items.given])),
    ):
        got = step(weights, items, np.full(12, alpha), rate=12.0)
        np.testing.assert_allclose(got, weights - items.x.T @ cost.slope, rtol=1e-12)


def test_fused_target__has_the_same_derivative_at_a_temperature_of_one():
    weights, items, _, alpha = drawn(5)
    z = items.x @ weights
    t = np.array([slow.softmax(row) for row in items.teacher.tolist()])
    fused = cross_entropy(z, fused_target(t, items.given, alpha))
    taught, told = distillation(z, items.teacher), cross_entropy(z, np.eye(3)[items.given])
    want = alpha[:, None] * taught.slope + (1 - alpha[:, None]) * told.slope
    np.testing.assert_allclose(fused.slope, want, atol=1e-14)
    constant = fused.value - alpha * taught.value - (1 - alpha) * told.value
    entropy = -(t * np.log(t)).sum(axis=1)
    np.testing.assert_allclose(constant, alpha * entropy, rtol=1e-10)


def test_trust_features__are_those_of_the_triangles():
    rng = np.random.default_rng(6)
    s, t = rng.dirichlet(np.ones(4), 9), rng.dirichlet(np.ones(4), 9)
    y = rng.integers(0, 4, 9)
    means = class_means(sum_by_class(t, y))
    got = trust_features(s, t, means, y)
    for i in range(9):
        g, m = np.eye(4)[y[i]], means[y[i]]
        pairs = [(m, s[i]), (g, s[i]), (t[i], s[i]), (t[i], g), (m, g)]
        edges = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in pairs]
        want = [*edges, t[i][y[i]], s[i][y[i]], m[y[i]], max(t[i])]
        np.testing.assert_allclose(got[i], want, rtol=1e-12)
    assert (got >= 0).all()
    assert (got[:, :5] <= 2).all()
    # The student is not within reach of its label: |G − S| ≤ |T − S| + |T − G|.
    lengths = np.sqrt(got)
    assert (lengths[:, 1] <= lengths[:, 2] + lengths[:, 3] + 1e-12).all()
    far = trust_features(np.eye(2)[:1], np.eye(2)[1:], np.eye(2), np.array([1]))
    assert far[0, :3].tolist() == [2, 2, 2]


def test_class_means__are_the_same_however_items_are_cut():
    rng = np.random.default_rng(7)
    t, y = rng.dirichlet(np.ones(5), 300), rng.integers(0, 4, 300)
    whole = sum_by_class(t, y)
    parts = [sum_by_class(t[i : i + 37], y[i : i + 37]) for i in range(0, 300, 37)]
    for got, want in zip((sum(x) for x in zip(*parts, strict=True)), whole, strict=True):
        np.testing.assert_array_equal(got, want)
    means = class_means(whole)
    for c in range(4):
        np.testing.assert_allclose(means[c], t[y == c].mean(axis=0), atol=1e-9)
    # Nobody was given the last one.
    assert means[4].tolist() == [0.2] * 5
    np.testing.assert_allclose(means.sum(axis=1), 1, rtol=1e-12)
    none = sum_by_class(t[:0], y[:0])
    assert class_means(none).tolist() == [[0.2] * 5] * 5


P = np.array([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sum_by_class(P * 2, np.array([0])), "they sum to 2.0000"),
        (lambda: sum_by_class(P[0], np.array([0, 1])), r"shape \(N, K\) was expected, got \(2,\)"),
        (lambda: sum_by_class(P, np.array([2])), "class ids in 0 … 1 were expected, got 2 … 2"),
        (
            lambda: trust_features(P, P[:, :1], np.eye(2), np.array([0])),
            r"a teacher of shape \(1, 2",
        ),
        (lambda: trust_features(P, P, P, np.array([0])), r"a mean of each class of shape \(2, 2\)"),
        (lambda: trust_features(P - 1, P, np.eye(2), np.array([0])), "row 0 of a student"),
        (lambda: fused_target(P, np.array([0]), np.array([1.1])), "trust in \\[0, 1\\]"),
        (lambda: fused_target(P, np.array([0]), np.array([np.nan])), "trust in \\[0, 1\\]"),
        (lambda: fused_target(P, np.array([0]), np.array([[0.5]])), "trust in \\[0, 1\\]"),
    ],
)
def test_all__say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_hypergradient__says_what_is_wrong():
    weights, items, held_out, alpha = drawn(8)
    nobody = Known(held_out.x[:0], held_out.given[:0])
    with pytest.raises(ValueError, match="at least one held-out item was expected, got none"):
        hypergradient(weights, items, nobody, alpha, rate=1.0)
    with pytest.raises(ValueError, match="trust in \\[0, 1\\] of shape"):
        hypergradient(weights, items, held_out, alpha + 1, rate=1.0)
    with pytest.raises(ValueError, match="a positive rate was expected, got 0"):
        hypergradient(weights, items, held_out, alpha, rate=0)


def test_hypergradient__of_no_item_and_of_one_class():
    weights, items, held_out, alpha = drawn(9)
    nothing = Taught(*(x[:0] for x in items))
    found = hypergradient(weights, nothing, held_out, alpha[:0], rate=1.0)
    assert found.slope.shape == (0,)
    one = Taught(items.x, items.teacher[:, :1], items.given * 0)
    found = hypergradient(
        weights[:, :1], one, Known(held_out.x, held_out.given * 0), alpha, rate=1.0
    )
    assert (found.loss, found.slope.tolist()) == (0, [0] * 12)
