"""Oracles: the definitions by hand."""

import numpy as np
import pytest

from labelops.proportions import counts as c


def test_potential__is_what_each_kind_says():
    known = c.join_counts(
        [
            c.hard_counts(np.array([1])),
            c.soft_counts(np.array([1.5]), strength=2.0),
            c.interval_counts(np.array([1]), np.array([2])),
            c.free_counts(1),
        ]
    )
    potentials = [c.log_potential(known, b, 3).tolist() for b in range(4)]
    assert potentials[0] == [-np.inf, 0, -np.inf, -np.inf]
    assert potentials[1] == [-4.5, -0.5, -0.5, -4.5]
    assert potentials[2] == [-np.inf, 0, 0, -np.inf]
    assert potentials[3] == [0, 0, 0, 0]


def test_hard_counts__refuses_fractions_and_names_the_remedy():
    with pytest.raises(TypeError, match="round_class_counts"):
        c.hard_counts(np.array([1.5]))


@pytest.mark.parametrize("strength", [0.0, -1.0, np.nan, np.inf])
def test_soft_counts__refuses_a_strength_that_says_nothing(strength):
    with pytest.raises(ValueError, match="strength"):
        c.soft_counts(np.array([1.0]), strength=strength)


def test_soft_counts__refuses_counts_that_are_none():
    with pytest.raises(ValueError, match="free_counts"):
        c.soft_counts(np.array([1.0, np.nan]), strength=1.0)


def test_round_class_counts__rows_sum_to_their_bags():
    said = np.random.default_rng(0).dirichlet(np.ones(4), 50) * np.arange(1, 51)[:, None]
    rounded = c.round_class_counts(said, np.arange(1, 51))
    assert (rounded.counts.sum(axis=1) == np.arange(1, 51)).all()
    # Rounding to a fixed sum moves no count by an item or more.
    assert (rounded.residual < 1).all()


@pytest.mark.parametrize(
    ("row", "why"),
    [([1, 1, 2], "add up to its size"), ([-1, 3, 1], "negative"), ([np.nan, 2, 1], "finite")],
)
def test_round_class_counts__impossible_ones_are_named(row, why):
    with pytest.raises(ValueError, match=why):
        c.round_class_counts(np.array([row], float), np.array([3]))


def test_spread__equal_shares_in_bags_of_different_sizes_are_constant():
    assert c.share_spread(np.array([1, 2, 30]), np.array([3, 6, 90])).is_constant
    assert not c.share_spread(np.array([1, 2, 31]), np.array([3, 6, 90])).is_constant
    assert c.share_spread(np.array([5]), np.array([9])).is_constant
    assert c.share_spread(np.zeros(0, int), np.zeros(0, int)).is_constant


def test_spread__bags_drawn_at_random_vary_as_by_chance():
    rng = np.random.default_rng(1)
    observed = c.share_spread(rng.binomial(20, 0.3, 4000), np.full(4000, 20))
    # The standard error of a standard deviation is 1 / √(2 · 4000), about a per cent.
    assert observed.std == pytest.approx(observed.by_chance, rel=0.05)
