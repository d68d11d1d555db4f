"""Costs of a batch: sums of the definitions, and slopes that are differences of them."""

import numpy as np
import pytest
from scipy.special import expit

from labelops.fast import cell_costs as costs
from labelops.fast.cell_costs import Cells
from labelops.partial import cell_losses as of

N, K, FOLDS = 13, 3, 2


def drawn(n=N, k=K, seed=0):
    """Return logits of two networks, states, cells recalled, and items that each is trained on."""
    rng = np.random.default_rng(seed)
    states = rng.choice([1, 0, -1], (n, k), p=[0.25, 0.15, 0.6])
    z = rng.normal(0, 2.5, (FOLDS, n, k)).astype(np.float32)
    recalled = (states == -1) & (rng.random((FOLDS, n, k)) < 0.3)
    outside = np.ones((FOLDS, n), bool)
    outside[1, ::3] = False
    return z, states, recalled, outside


def cells_of(z, states, outside):
    return Cells(z, states.astype(np.int8), (outside / np.float32(len(states))).astype(np.float32))


def slope_of(define, z, step=1e-6):
    """Return the derivative of a sum by every logit."""
    slope = np.zeros_like(z)
    for at in np.ndindex(z.shape):
        high, low = z.copy(), z.copy()
        high[at] += step
        low[at] -= step
        slope[at] = (define(high).sum() - define(low).sum()) / (2 * step)
    return slope


def check(cost, define, z, outside, *, slopes=None):
    """Compare with what is defined for the items of each fold: define(f, items)(logits)."""
    total, wanted = 0.0, np.zeros(z.shape)
    for f, at in enumerate(outside):
        own, x = define(f, at), z[f][at].astype(np.float64)
        total += own(x).sum() / len(at)
        change = slope_of(own, x) if slopes is None else slopes(f, at)(x)
        wanted[f][at] = change / len(at)
    assert cost.total == pytest.approx(total, rel=2e-6, abs=1e-6)
    assert cost.slope.dtype == np.float32
    np.testing.assert_allclose(cost.slope, wanted, rtol=1e-4, atol=2e-7)


PLAIN = {
    "assume_negative": (costs.cross_entropy, {}),
    "weak_assume_negative": (costs.cross_entropy, {"unknown": 1 / (K - 1)}),
    "smoothed": (costs.cross_entropy, {"yes": 0.9, "other": 0.1}),
    "hill": (costs.hill, {}),
    "entropy_maximising": (costs.entropy_maximising, {}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_losses_of_states__are_the_definitions(name):
    z, states, _, outside = drawn()
    function, settings = PLAIN[name]
    cost = function(cells_of(z, states, outside), **settings)
    check(cost, lambda f, at: lambda x: getattr(of, name)(x, states[at]), z, outside)


RECALLING = {
    "rejected": (costs.cross_entropy, {"taught": 0.0, "kept": 0.0}),
    "corrected": (costs.cross_entropy, {}),
    "splc": (costs.splc, {}),
}


@pytest.mark.parametrize("name", RECALLING)
def test_losses_that_recall__are_the_definitions(name):
    z, states, recalled, outside = drawn()
    function, settings = RECALLING[name]
    cost = function(cells_of(z, states, outside), recalled=recalled.astype(np.int8), **settings)

    def define(f, at):
        return lambda x: getattr(of, name)(x, states[at], recalled=recalled[f][at])

    check(cost, define, z, outside)


def test_entropy__has_pseudo_labels():
    z, states, recalled, outside = drawn()
    pseudo = np.where(recalled, 0.2, np.nan).astype(np.float32)
    cost = costs.entropy_maximising(cells_of(z, states, outside), pseudo)

    def define(f, at):
        return lambda x: of.entropy_maximising(x, states[at], pseudo=pseudo[f][at])

    check(cost, define, z, outside)


def focal_slope(x, states, focus_yes, focus_no):
    """Return the slopes of cross-entropy with a margin, times the powers that focus."""
    plain = slope_of(lambda y: of.asymmetric(y, states, focus_yes=0, focus_no=0), x)
    p = expit(x)
    return plain * np.where(states == 1, (1 - p) ** focus_yes, np.maximum(p - 0.05, 0) ** focus_no)


@pytest.mark.parametrize("focuses_yes", [True, False])
def test_asymmetric__has_powers_of_each_class_without_derivative(focuses_yes):
    z, states, _, outside = drawn()
    focus = np.array([[4.0, 3.2, 5.5], [3.0, 4.7, 4.1]], np.float32)
    scale = np.array([[1.0, 2.0, 1.5], [0.3, 1.0, 0.7]], np.float32)
    cells = cells_of(z, states, outside)
    cost = costs.asymmetric(cells, focus, scale=scale, focuses_yes=focuses_yes)

    def define(f, at):
        more = {"focus_yes": float(focuses_yes), "focus_no": focus[f]}
        return lambda x: of.asymmetric(x, states[at], **more) * scale[f]

    def slopes(f, at):
        return lambda x: focal_slope(x, states[at], focuses_yes, focus[f]) * scale[f]

    check(cost, define, z, outside, slopes=slopes)


def test_comic_and_its_multi_focal_loss__are_the_definitions():
    z, states, recalled, outside = drawn()
    given = np.array([[30, 4, 0], [2, 9, 9]], np.float32)
    found = np.array([[0, 50, 3], [9, 0, 1]], np.float32)
    cells = cells_of(z, states, outside)

    def alone(f, at):
        return lambda x: of.multi_focal(x, states[at], n_yes=given[f])

    def alone_slopes(f, at):
        w = of.tail_weights(given[f])
        return lambda x: focal_slope(x, states[at], 0, 3 + w) * w

    check(costs.multi_focal(cells, given), alone, z, outside, slopes=alone_slopes)
    full = np.where(recalled, 1, states)
    per_yes = [at.sum() / (full[f][at] == 1).sum() for f, at in enumerate(outside)]
    cost = costs.comic(
        cells,
        recalled.astype(np.int8),
        n_given=given,
        n_yes=given + found,
        per_yes=np.array(per_yes, np.float32),
    )

    def define(f, at):
        more = {"n_given": given[f], "n_recalled": found[f], "recalled": recalled[f][at]}
        return lambda x: of.comic(x, states[at], **more)

    def slopes(f, at):
        w = of.tail_weights(given[f] + found[f], power=1 / 6)

        def of_logits(x):
            lowered = np.where(states[at] == 1, x - 1, x)
            more = focal_slope(lowered, full[f][at], 0, 3 + w) * w * per_yes[f]
            return alone_slopes(f, at)(x) + 0.2 * more

        return of_logits

    check(cost, define, z, outside, slopes=slopes)


def test_expected_positives_and_role__are_the_definitions():
    z, states, _, outside = drawn()
    e = drawn(seed=1)[0]
    cells, kappa = cells_of(z, states, outside), 1.4

    def excess(x):
        return (
            np.array([expit(x[f][at]).sum(axis=1).mean() for f, at in enumerate(outside)]) - kappa
        )

    both = np.stack([excess(z), excess(e)]).astype(np.float32)

    def alone(f, at):
        return lambda x: of.expected_positives(x, states[at], expected=kappa)

    check(costs.expected_positives(cells, both[0]), alone, z, outside)
    cost, slope = costs.role(cells, e, both)

    def together(f, at):
        return lambda x: of.role(x, states[at], estimates=e[f][at], expected=kappa)

    def slopes(own, other):
        def of_fold(f, at):
            return lambda x: (slope_of(alone(f, at), x) + expit(x) - expit(other[f][at])) / 2

        return of_fold

    check(cost, together, z, outside, slopes=slopes(z, e))
    check(
        cost._replace(slope=slope),
        lambda f, at: lambda x: of.role(z[f][at], states[at], estimates=x, expected=kappa),
        e,
        outside,
        slopes=slopes(e, z),
    )


@pytest.mark.parametrize("size", [0.2, 2.0])
def test_positive_unlabelled__is_the_definition_and_its_weight_has_no_derivative(size):
    z, states, _, outside = drawn()
    z *= np.float32(size / 2)
    states[:, 2] = -1
    balance = costs.positive_unlabelled(cells_of(z, states, outside))

    def define(f, at):
        return lambda x: of.positive_unlabelled(x, states[at])

    def slopes(f, at):
        def of_logits(x):
            tau = np.minimum(x.std(axis=0), 1)
            p = expit(x / tau)
            yes = states[at] == 1
            share = yes * (len(x) / np.maximum(yes.sum(axis=0), 1))
            return (1 - p) * (p.mean(axis=0) ** (0.55 - 1) * p - share) / tau

        return of_logits

    check(balance, define, z, outside, slopes=slopes)
    # Wide logits have no temperature: then VPU's slopes are differences, of all cells together.
    if size == 2:
        vpu = costs.positive_unlabelled(cells_of(z, states, outside), balance=0.0)
        assert (z[0].std(axis=0) > 1).all()
        wanted = slope_of(
            lambda x: of.positive_unlabelled(x, states, balance=0), z[0].astype(np.float64)
        )
        np.testing.assert_allclose(vpu.slope[0] * N, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [2, 9])
def test_mixed__is_the_definition_of_pairs_that_a_network_is_trained_on(n):
    z, states, _, outside = drawn(n=n)
    order, half = np.random.default_rng(0).permutation(n // 2), n // 2
    cost = costs.mixed(cells_of(z, states, outside), order, share=0.2)
    total, wanted = 0.0, []
    for f, at in enumerate(outside):
        both = (at[:half][order] & at[n - half :])[:, None] / half

        def define(x, both=both):
            return of.mixed(x, states, order=order, share=np.float32(0.2)) * both

        total += define(z[f]).sum()
        wanted.append(slope_of(define, z[f].astype(np.float64)))
    assert cost.total == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(cost.slope, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_frequency__is_the_definition_and_counts_what_is_present(share):
    z, states, _, outside = drawn()
    shares = np.array([share, 0.5], np.float32)
    cost, said, present = costs.frequency(cells_of(z, states, outside), shares)

    def define(f, at):
        return lambda x: of.frequency(x, states[at], share=float(shares[f]))

    check(cost, define, z, outside)
    for f, at in enumerate(outside):
        assert np.array_equal(said[f], (states[at] == 1).sum(axis=0))
        wanted = of.present(z[f][at], states[at], share=float(shares[f])).sum(axis=0)
        np.testing.assert_allclose(present[f], wanted, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 16, 83])
def test_costs__are_the_same_for_any_number_of_classes(k):
    z, states, _, outside = drawn(k=k)
    cost = costs.cross_entropy(cells_of(z, states, outside))
    p = expit(z.astype(np.float64))
    wanted = (p - (states == 1)) * outside[:, :, None] / N
    np.testing.assert_allclose(cost.slope, wanted, rtol=1e-5, atol=1e-8)


def test_costs__bear_large_logits():
    z = np.array([[[200.0, -200.0, 200.0, -200.0, 1e4, -1e4]]], np.float32)
    states = np.array([[1, 1, -1, 0, -1, 1]], np.int8)
    cells = Cells(z, states, np.ones((1, 1), np.float32))
    found = [
        costs.cross_entropy(cells),
        costs.multi_focal(cells, np.ones((1, 6), np.float32)),
        costs.hill(cells),
        costs.splc(cells),
        costs.entropy_maximising(cells),
        costs.frequency(cells, np.array([0.98], np.float32))[0],
        costs.positive_unlabelled(cells),
        costs.expected_positives(cells, np.ones(1, np.float32)),
        costs.comic(
            cells,
            np.zeros(z.shape, np.int8),
            n_given=np.ones((1, 6), np.float32),
            n_yes=np.ones((1, 6), np.float32),
            per_yes=np.ones(1, np.float32),
        ),
    ]
    for cost in found:
        assert np.isfinite(cost.total)
        assert np.isfinite(cost.slope).all()
    np.testing.assert_allclose(found[1].slope[0, 0, :2], [0, -1], atol=1e-37)
