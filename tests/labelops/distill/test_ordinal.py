"""Oracles: published rows, the recipe's slow loop, and what a law of maximum entropy has to be."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.distill.ordinal import (
    METHODS,
    deqa_labels,
    fidelity_loss,
    level_labels,
    level_moments,
    maxent_labels,
    preferred,
    rescale,
    two_level_labels,
)
from tests.oracles import levels as slow

GRID = [(m, s) for m in np.linspace(1, 5, 33) for s in (0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0)]
MEANS, STDS = (np.array(column) for column in zip(*GRID, strict=True))

# From issues 1 and 9 of zhiyuanyou/DeQA-Score, levels 1 … 5.
PUBLISHED = [
    (4.522821594986413, 0.692276759337908, (0, 0, 0.0448383997, 0.4785282702, 0.5025190439)),
    (4.238048299655003, 0.22331745249438698, (0, 0, 0, 0.761951700345, 0.238048299655)),
]


def one(value):
    return np.array([value], dtype=float)


@pytest.mark.parametrize(("mean", "std", "label"), PUBLISHED)
def test_deqa_labels__are_the_published_rows(mean, std, label):
    found = deqa_labels(one(mean), one(std), n_levels=5)
    np.testing.assert_allclose(found.probs[0], label, atol=1e-9)
    assert found.is_spread_lost[0] == (label[3] > 0.7)


def test_deqa_labels__start_from_the_published_masses():
    raw = slow.raw_masses(4.522821594986413, 0.692276759337908, 5, "pdf")
    want = (1.37254e-6, 0.0007530296, 0.0512738727, 0.4332899836, 0.4544222781)
    np.testing.assert_allclose(raw, want, atol=1e-9)


@pytest.mark.parametrize("mass", ["pdf", "cdf"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_deqa_labels__are_the_loop(mass, n):
    mean = 1 + (MEANS - 1) * (n - 1) / 4
    found = deqa_labels(mean, STDS, n_levels=n, mass=mass)
    for i, (m, s) in enumerate(zip(mean, STDS, strict=True)):
        label, is_two = slow.published(float(m), float(s), n, mass)
        np.testing.assert_allclose(found.probs[i], label, atol=1e-11)
        assert found.is_spread_lost[i] == is_two


def test_deqa_labels__sum_to_one_and_have_the_mean_unless_something_was_cut_off():
    found = deqa_labels(MEANS, STDS, n_levels=5)
    is_cut = ~found.is_spread_lost & (found.probs == 0).any(axis=1)
    rest = found.probs[~is_cut]
    assert 20 < len(rest) < len(MEANS)
    np.testing.assert_allclose(rest.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(rest @ np.arange(1, 6), MEANS[~is_cut], atol=1e-9)


def test_deqa_labels__are_known_to_miss_mean_and_spread_where_cut_off():
    mean, std, _ = PUBLISHED[0]
    found = deqa_labels(one(mean), one(std), n_levels=5)
    assert found.probs.sum() == pytest.approx(1.02589, abs=1e-5)
    fitted = level_labels(one(mean), one(std), low=1, high=5, method="deqa").probs
    said = level_moments(fitted, low=1, high=5)
    assert said.mean[0] == pytest.approx(4.4461, abs=1e-4)
    assert said.std[0] == pytest.approx(0.578, abs=1e-3)
    # The same items, of all that the recipe's own check lets pass.
    mean, std = (np.ravel(x) for x in np.meshgrid(np.linspace(1.05, 4.95, 79), [0.2, 1.0]))
    found = deqa_labels(mean, std, n_levels=5)
    passed = ~found.is_spread_lost
    probs = found.probs / found.probs.sum(axis=1, keepdims=True)
    off = np.abs(level_moments(probs, low=1, high=5).mean - mean)
    assert off[passed & (std < 0.5)].mean() < 0.01
    assert off[passed & (std > 0.5)].mean() > 0.02
    exact = maxent_labels(mean, std, n_levels=5).probs
    assert np.abs(level_moments(exact, low=1, high=5).mean - mean).max() < 1e-10


@pytest.mark.parametrize("mass", ["pdf", "cdf"])
@pytest.mark.parametrize("near", [0.0, 1e-16, 1e-12, -1e-9])
def test_deqa_labels__in_the_middle_are_not_uniform(mass, near):
    label = deqa_labels(one(3 + near), one(0.5), n_levels=5, mass=mass).probs[0]
    raw = np.array(slow.raw_masses(3.0, 0.5, 5, mass))
    np.testing.assert_allclose(label, raw / raw.sum(), atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_labels__of_a_mirrored_rating_are_mirrored(method):
    there, back = (
        level_labels(mean, STDS, low=1, high=5, method=method) for mean in (MEANS, 6 - MEANS)
    )
    is_alike = there.is_spread_lost == back.is_spread_lost
    np.testing.assert_allclose(there.probs[is_alike], back.probs[is_alike, ::-1], atol=1e-9)
    # The published check is of Σ p ℓ, in which what was cut off counts for more at high levels.
    assert is_alike.all() == (not method.startswith("deqa"))


@pytest.mark.parametrize("method", METHODS)
def test_labels__sum_to_one_and_see_neither_units_nor_other_items(method):
    whole = level_labels(MEANS, STDS, low=1, high=5, method=method)
    np.testing.assert_allclose(whole.probs.sum(axis=1), 1, rtol=1e-14)
    assert (whole.probs >= 0).all()
    scaled = level_labels(25 * (MEANS - 1), 25 * STDS, low=0, high=100, method=method)
    np.testing.assert_allclose(scaled.probs, whole.probs, atol=1e-8)
    # A scale that is taken from the data moves when the data grows; this one does not.
    part = level_labels(MEANS[40:90], STDS[40:90], low=1, high=5, method=method)
    np.testing.assert_array_equal(part.probs, whole.probs[40:90])


@pytest.mark.parametrize("method", METHODS)
def test_labels__without_spread_are_on_the_two_levels_beside_the_mean(method):
    mean = np.array([1.0, 1.3, 3.0, 4.75, 5.0])
    found = level_labels(mean, np.zeros(5), low=1, high=5, method=method)
    want = [slow.two_levels(m, 5) for m in mean.tolist()]
    np.testing.assert_allclose(found.probs, want, atol=1e-15)
    np.testing.assert_array_equal(found.probs[[0, 2, 4]], np.eye(5)[[0, 2, 4]])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_levels", [1, 2])
def test_labels__of_one_or_two_levels_have_nothing_to_choose(method, n_levels):
    found = level_labels(one(2.0), one(0.5), low=1, high=5, n_levels=n_levels, method=method)
    want = [[1.0]] if n_levels == 1 else [[0.75, 0.25]]
    np.testing.assert_allclose(found.probs, want, atol=1e-9)
    none = level_labels(np.zeros(0), np.zeros(0), low=1, high=5, n_levels=n_levels, method=method)
    assert none.probs.shape == (0, n_levels)


def test_two_level_labels__prefer_the_nearest_level():
    # Five equal parts of 1 … 5 name another level in these ranges than the nearest.
    for mean, part in ((1.7, 1), (2.55, 2), (3.45, 4), (4.3, 5)):
        assert 1 + math.floor((mean - 1) / 0.8) == part
        nearest = 1 + int(two_level_labels(one(mean), n_levels=5).argmax())
        assert nearest == round(mean) != part


def test_maxent__is_the_known_law():
    mean, std, _ = PUBLISHED[0]
    found = maxent_labels(one(mean), one(std), n_levels=5)
    want = (0.000941, 0.011212, 0.075598, 0.288579, 0.623669)
    np.testing.assert_allclose(found.probs[0], want, atol=5e-7)
    said = level_moments(found.probs, low=1, high=5)
    np.testing.assert_allclose((said.mean[0], said.std[0]), (mean, std), atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(4, 12),
    mean=st.floats(0, 1),
    spread=st.floats(0, 1),
    close=st.sampled_from([0, 1e-7, 1e-4]),
)
def test_maxent__has_both_moments_and_a_quadratic_logarithm(n, mean, spread, close):
    mu = 1 + mean * (n - 1)
    low, high = (math.floor(mu) + 1 - mu) * (mu - math.floor(mu)), (mu - 1) * (n - mu)
    variance = low + max(spread, close) * (high - low)
    found = maxent_labels(one(mu), one(math.sqrt(variance)), n_levels=n)
    said = level_moments(found.probs, low=1, high=n)
    tolerance = 2e-9 * (n - 1) ** 2
    assert said.mean[0] == pytest.approx(mu, abs=tolerance)
    assert said.std[0] ** 2 == pytest.approx(variance, abs=tolerance)
    assert not found.is_spread_lost[0]
    # A law with given moments is that of maximum entropy if and only if log p is quadratic.
    p = found.probs[0]
    if p.min() > 1e-250:
        assert np.abs(np.diff(np.log(p), 3)).max() < 1e-9 * (1 + np.abs(np.log(p)).max())


def test_maxent__of_three_levels_is_what_the_moments_say():
    mean, std = (np.ravel(x) for x in np.meshgrid([1.2, 1.9, 2.0, 2.6], [0.5, 0.55, 0.6]))
    found = maxent_labels(mean, std, n_levels=3).probs
    second = std**2 + (mean - 2) ** 2
    want = np.stack([(second - mean + 2) / 2, 1 - second, (second + mean - 2) / 2], axis=1)
    np.testing.assert_allclose(found, want, atol=1e-10)


def test_maxent__no_other_law_with_these_moments_has_more_entropy():
    found = maxent_labels(one(3.7), one(0.9), n_levels=5).probs[0]
    # All laws with the same moments: two directions that change neither sum, mean nor square.
    directions = [np.array([1, -3, 3, -1, 0]), np.array([0, 1, -3, 3, -1])]
    best = -(found * np.log(found)).sum()
    for a, b in itertools.product(np.linspace(-0.03, 0.03, 13), repeat=2):
        p = found + a * directions[0] + b * directions[1]
        if (p > 0).all() and (a, b) != (0, 0):
            assert -(p * np.log(p)).sum() <= best + 1e-15


def test_maxent__spread_that_cannot_be_is_the_nearest_that_can():
    mean, std = np.array([3.5, 3.5, 2.0, 1.0]), np.array([0.1, 3.0, 1.8, 1.0])
    found = maxent_labels(mean, std, n_levels=5)
    assert found.is_spread_lost.tolist() == [True] * 4
    want = [[0, 0, 0.5, 0.5, 0], [0.375, 0, 0, 0, 0.625], [0.75, 0, 0, 0, 0.25], [1, 0, 0, 0, 0]]
    np.testing.assert_allclose(found.probs, want, atol=1e-15)


def test_maxent__fifty_levels_and_a_spread_of_a_tenth():
    mean, std = np.array([17.0, 17.4, 1.01]), np.array([0.1, 0.6, 0.1])
    found = maxent_labels(mean, std, n_levels=50)
    said = level_moments(found.probs, low=1, high=50)
    np.testing.assert_allclose(said.mean, mean, atol=1e-9)
    np.testing.assert_allclose(said.std, std, atol=1e-8)


@pytest.mark.parametrize(
    ("mean", "std", "low", "high", "n", "words"),
    [
        ([3.0, 6.0], [0.1, 0.1], 1, 5, 5, "row 1 has 6 ± 0.1"),
        ([3.0, np.nan], [0.1, 0.1], 1, 5, 5, "row 1 has nan"),
        ([3.0], [-0.1], 1, 5, 5, "row 0 has 3 ± -0.1"),
        ([3.0], [np.nan], 1, 5, 5, "row 0 has 3 ± nan"),
        ([3.0], [15.0], 1, 5, 5, "on one scale"),
        ([3.0], [0.1, 0.2], 1, 5, 5, "as many means as spreads"),
        ([3.0], [0.1], 5, 5, 5, "low < high"),
        ([3.0], [0.1], 1, 5, 0, "got 0 levels"),
    ],
)
def test_ratings__that_cannot_be_are_refused(mean, std, low, high, n, words):
    with pytest.raises(ValueError, match=words):
        rescale(np.array(mean), np.array(std), low=low, high=high, n_levels=n)
    with pytest.raises(ValueError, match="maxent, deqa, deqa_cdf, two_level was expected"):
        level_labels(one(3.0), one(0.1), low=1, high=5, method="other")


def test_level_moments__are_sums_over_levels():
    p = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    said = level_moments(p, low=-1, high=2)
    for row, mean, std in zip(p, *said, strict=True):
        m = math.fsum(x * (k - 1) for k, x in enumerate(row))
        assert mean == pytest.approx(m)
        assert std == pytest.approx(
            math.sqrt(math.fsum(x * (k - 1 - m) ** 2 for k, x in enumerate(row)))
        )
    assert level_moments(np.ones((1, 1)), low=3, high=9).mean.tolist() == [3]


def test_preferred__is_known_adds_up_and_sees_no_units():
    pair = [one(3.8), one(0.5), one(3.0), one(0.6)]
    assert preferred(*pair)[0] == pytest.approx(0.847152, abs=5e-7)
    assert preferred(*pair)[0] + preferred(*pair[2:], *pair[:2])[0] == pytest.approx(1)
    np.testing.assert_allclose(preferred(*(20 * x for x in pair)), preferred(*pair))
    sure = preferred(np.array([2.0, 1.0, 0.0]), np.zeros(3), np.ones(3), np.zeros(3))
    assert sure.tolist() == [1, 0.5, 0]
    assert preferred(one(1.0), one(1.0), one(0.0), one(1.0))[0] == pytest.approx(0.760250, abs=5e-7)


def test_fidelity__has_the_known_values():
    loss = fidelity_loss(one(4.0), one(3.0), one(0.8471521)).loss[0]
    assert loss == pytest.approx(0.006045, abs=1e-6)
    assert loss == pytest.approx(slow.fidelity(0.7602499389, 0.8471521), abs=1e-9)
    same = fidelity_loss(one(4.0), one(3.0), one(0.7602499389)).loss[0]
    assert same == pytest.approx(-4e-8, abs=3e-8)
    # Surely the one, and the other is true.
    opposite = fidelity_loss(one(99.0), one(0.0), one(0.0)).loss[0]
    assert opposite == pytest.approx(0.9998, abs=1e-6)


@pytest.mark.parametrize("variance", [2.0, 0.7])
def test_fidelity__slope_is_that_of_differences(variance):
    score, other, g = (
        np.ravel(x) for x in np.meshgrid([1.0, 2.5, 4.9], [1.0, 3.1], [0.0, 0.2, 0.5, 1.0])
    )
    step = 1e-5
    up, down = (fidelity_loss(score + e, other, g, variance=variance).loss for e in (step, -step))
    found = fidelity_loss(score, other, g, variance=variance)
    np.testing.assert_allclose(found.slope, (up - down) / (2 * step), atol=1e-7, rtol=1e-5)
    swapped = fidelity_loss(other, score, 1 - g, variance=variance)
    np.testing.assert_allclose(swapped.loss, found.loss, atol=1e-14)
    np.testing.assert_allclose(swapped.slope, -found.slope, atol=1e-12)
    far = fidelity_loss(np.array([0.0, 1e6]), np.array([1e6, 0.0]), np.array([1.0, 0.0]))
    assert np.isfinite(far.slope).all()


def test_fidelity__slope_by_the_logits_of_levels():
    z, g = np.array([[0.3, -1.0, 0.2, 1.1, 0.4]]), one(0.2)

    def loss(logits):
        p = np.exp(logits) / np.exp(logits).sum()
        return fidelity_loss(level_moments(p, low=1, high=5).mean, one(2.0), g)

    p = np.exp(z) / np.exp(z).sum()
    mean = level_moments(p, low=1, high=5).mean
    found = loss(z).slope[:, None] * p * (np.arange(1, 6) - mean[:, None])
    for level in range(5):
        e = 1e-5 * np.eye(5)[level]
        want = (loss(z + e).loss - loss(z - e).loss) / 2e-5
        assert found[0, level] == pytest.approx(want[0], abs=1e-8)


def test_fidelity__refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"targets in \[0, 1\]"):
        fidelity_loss(one(1.0), one(0.0), one(1.5))
    with pytest.raises(ValueError, match="positive variance"):
        fidelity_loss(one(1.0), one(0.0), one(0.5), variance=0.0)
    assert fidelity_loss(np.zeros(0), np.zeros(0), np.zeros(0)).loss.shape == (0,)
