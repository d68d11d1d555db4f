"""Recalled cells of a batch, beside the rule for one set of items."""

import numpy as np
import pytest
from scipy.special import expit

from labelops.fast.cell_costs import Cells
from labelops.fast.cell_recall import beyond, largest_losses, move_means
from labelops.partial.recall import move_means as defined
from labelops.partial.recall import recall_mask

N, K, FOLDS = 24, 3, 2


def drawn(decimals=9):
    rng = np.random.default_rng(0)
    states = rng.choice([1, 0, -1], (N, K), p=[0.25, 0.15, 0.6]).astype(np.int8)
    outside = np.ones((FOLDS, N), bool)
    outside[1, ::2] = False
    z = rng.normal(0, 2.5, (FOLDS, N, K)).round(decimals).astype(np.float32)
    return Cells(z, states, outside / np.float32(N)), outside


@pytest.mark.parametrize("decimals", [0, 9])
@pytest.mark.parametrize("n", [0, 1, 5, 20, 1000])
def test_largest__are_those_of_the_rule_and_never_more_than_are_unknown(n, decimals):
    cells, outside = drawn(decimals)
    before = np.random.default_rng(1).integers(0, 2, cells.z.shape, np.int8)
    for already in (np.zeros_like(before), before):
        found = largest_losses(cells, n, already if already.any() else None)
        for f in range(FOLDS):
            free = np.where(outside[f][:, None] & (already[f] == 0), cells.states, 0)
            p = expit(cells.z[f].astype(np.float64))
            wanted = recall_mask(p, free, strategy="largest", n_largest=n)
            assert np.array_equal(found[f], wanted)


def test_beyond_and_means__are_those_of_the_class_rule():
    cells, outside = drawn()
    means = np.full((FOLDS, K), 0.4, np.float32)
    move_means(cells, means, taken=1.0, kept=0.9)
    least = np.maximum(means, np.float32(0.6))
    found = beyond(cells, least)
    for f, at in enumerate(outside):
        lowered = expit(cells.z[f] - (cells.states == 1)).astype(np.float64)
        moved = defined(np.array([0.4] * K), lowered[at], kept=0.9)
        np.testing.assert_allclose(means[f], moved, rtol=1e-6)
        p = expit(cells.z[f].astype(np.float64))
        more = {"strategy": "class", "threshold": 0.6, "class_mean": means[f]}
        wanted = recall_mask(p, cells.states, **more)
        assert np.array_equal(found.recalled[f], wanted)
        assert np.array_equal(found.n_recalled[f], wanted[at].sum(axis=0))
        assert np.array_equal(found.n_given[f], (cells.states[at] == 1).sum(axis=0))
        assert found.items[f] == at.sum()


def test_nothing__is_recalled_where_all_is_sure_or_no_item_counts():
    cells, _ = drawn()
    assert not beyond(cells, np.ones((FOLDS, K), np.float32)).recalled.any()
    none, means = cells._replace(weight=np.zeros((FOLDS, N), np.float32)), np.ones((FOLDS, K), "f")
    move_means(none, means)
    assert (means == 1).all()
    assert not largest_losses(none, 5).any()
