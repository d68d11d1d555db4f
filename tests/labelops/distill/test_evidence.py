"""Oracles: every pair of items, McNemar's closed form, and DeLong's sums written out."""

import numpy as np
import pytest

from labelops.distill.evidence import Z, paired_auc_gain, paired_gain


def test_gain__of_right_and_wrong_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(400) < 0.6, rng.random(400) < 0.7
    only_after = int((after & ~before).sum())
    only_before = int((before & ~after).sum())
    found = paired_gain(before.astype(float), after.astype(float))
    assert found.gain == pytest.approx((only_after - only_before) / 400, abs=1e-15)
    variance = (only_after + only_before - (only_after - only_before) ** 2 / 400) / 399
    half = Z * (variance / 400) ** 0.5
    assert [found.low, found.high] == pytest.approx([found.gain - half, found.gain + half])
    assert (found.n, found.before, found.after) == (400, before.mean(), after.mean())


def test_interval__holds_a_planted_gain_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        common, u = rng.random(300) < 0.5, rng.random(300)
        before = np.where(common, 1.0, u < 0.3)
        after = np.where(common, 1.0, u > 0.6)
        found = paired_gain(before, after)
        held += found.low <= 0.5 * (0.4 - 0.3) <= found.high
    assert 930 <= held <= 970


def pairs(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ψ of DeLong for each positive and each other item: 1, ½ or 0."""
    of, other = scores[y][:, None], scores[~y][None, :]
    return (of > other) + 0.5 * (of == other)


def test_area__is_that_of_all_pairs_and_its_interval_delongs() -> None:
    rng = np.random.default_rng(2)
    y = rng.random(90) < 0.3
    # Ties.
    before = np.round(y + rng.normal(0, 1.5, 90), 1)
    after = np.round(y + rng.normal(0, 1.0, 90), 1)
    found = paired_auc_gain(before, after, y)
    a, b = pairs(before, y), pairs(after, y)
    assert [found.before, found.after] == pytest.approx([a.mean(), b.mean()], abs=1e-12)
    s10 = np.cov(np.stack([a.mean(axis=1), b.mean(axis=1)]))
    s01 = np.cov(np.stack([a.mean(axis=0), b.mean(axis=0)]))
    whole = s10 / y.sum() + s01 / (~y).sum()
    half = Z * (whole[0, 0] + whole[1, 1] - 2 * whole[0, 1]) ** 0.5
    assert found.high - found.gain == pytest.approx(half, rel=1e-9)


def test_area__among_unlabelled_is_a_straight_line_in_the_true_one() -> None:
    """Corollary 3 of Menon et al., where labelled ones are drawn at random."""
    rng = np.random.default_rng(3)
    n = 40_000
    true = rng.random(n) < 0.4
    labelled = true & (rng.random(n) < 0.5)
    good, poor = true + rng.normal(0, 0.8, n), true + rng.normal(0, 1.2, n)
    of_all = paired_auc_gain(poor, good, true)
    of_given = paired_auc_gain(poor, good, labelled)
    # Of the unlabelled (.2 / .8) a quarter is positive: the area shrinks to ¾ (a − ½) + ½.
    assert of_given.gain == pytest.approx(0.75 * of_all.gain, abs=0.01)
    assert of_given.low > 0


def test_few_items__say_nothing() -> None:
    none = paired_gain(np.empty(0), np.empty(0))
    assert none.n == 0
    assert np.isnan(none.gain)
    assert not none.high < 0
    one = paired_gain(np.array([1.0]), np.array([0.0]))
    assert one.gain == -1
    assert np.isnan(one.high)
    same = paired_gain(np.ones(9), np.ones(9))
    assert (same.gain, same.low, same.high) == (0, 0, 0)
    for y in (np.ones(3, bool), np.zeros(3, bool)):
        assert np.isnan(paired_auc_gain(np.ones(3), np.ones(3), y).gain)
    alone = paired_auc_gain(
        np.array([1.0, 0, 0]), np.array([0.0, 1, 1]), np.array([True, False, False])
    )
    assert alone.gain == -1
    assert np.isnan(alone.high)


@pytest.mark.parametrize("bad", [np.array([np.nan, 1.0]), np.ones(3)])
def test_scores__that_cannot_be_compared_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected, got"):
        paired_gain(bad, np.ones(2))
    with pytest.raises(ValueError, match="expected, got"):
        paired_auc_gain(bad, np.ones(2), np.array([True, False]))
