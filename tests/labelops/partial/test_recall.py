"""Recall of unknown cells: rules by hand, traps of published code, and planted positives."""

import math

import numpy as np
import pytest

from labelops.partial.recall import (
    first_means,
    found_by_epoch,
    join_recalls,
    largest,
    log_recalls,
    move_means,
    recall_mask,
)


def drawn(n=60, k=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, k)).round(2), rng.choice([1, 0, -1], (n, k), p=[0.2, 0.2, 0.6])


@pytest.mark.parametrize("strategy", ["fixed", "class", "largest"])
def test_only_unknown_cells__are_recalled(strategy):
    p, states = np.ones((4, 3)), np.array([[1, 0, -1]] * 4)
    p[:, 2] = [0.99, 0.98, 0.97, 0.2]
    mask = recall_mask(p, states, strategy=strategy, n_largest=100)
    assert mask[:, 2].any()
    assert not mask[:, :2].any()
    nothing = recall_mask(p, np.abs(states), strategy=strategy, n_largest=100)
    assert not nothing.any()


@pytest.mark.parametrize("n", [0, 1, 17, 10_000])
def test_largest__are_exactly_so_many_also_of_ties(n):
    p, states = drawn()
    mask = recall_mask(p, states, strategy="largest", n_largest=n)
    cells = [(-p[i, c], i, c) for i, c in np.argwhere(states == -1)]
    wanted = {(i, c) for _, i, c in sorted(cells)[:n]}
    assert {tuple(at) for at in np.argwhere(mask)} == wanted


def test_largest__are_nested_from_epoch_to_epoch():
    p, states = drawn(n=400)
    before = np.zeros(p.shape, bool)
    for epoch in range(8):
        n = largest(p.size, epoch, step=0.004)
        assert n == math.ceil(round(p.size * epoch * 0.004, 6))
        mask = recall_mask(p, states, strategy="largest", n_largest=n)
        assert (mask >= before).all()
        before = mask
    assert before.sum() == 56
    assert largest(1000, 0, is_permanent=True) == 0


def test_class_rule__is_the_greater_of_threshold_and_mean():
    p, states = drawn()
    means = np.array([0.1, 0.75, 0.9, 0.7, 1.0])
    mask = recall_mask(p, states, strategy="class", class_mean=means)
    for i, c in np.ndindex(p.shape):
        assert mask[i, c] == (states[i, c] == -1 and p[i, c] > 0.7 and p[i, c] > means[c])
    # With one mean for all, nothing is left but the threshold.
    alike = recall_mask(p, states, strategy="class", class_mean=np.zeros(5), threshold=0.6)
    assert np.array_equal(alike, recall_mask(p, states, strategy="fixed"))


def test_means__move_by_a_hundredth_and_begin_at_half_of_what_is_given():
    states = np.array([[1, -1], [1, 0], [-1, -1], [-1, 1]])
    assert first_means(states).tolist() == [0.25, 0.125]
    means = move_means(first_means(states), np.full((3, 2), 0.5))
    np.testing.assert_allclose(means, [0.2525, 0.12875])
    assert move_means(means, np.zeros((0, 2))) is means


def test_rule__refuses_logits_and_other_shapes():
    with pytest.raises(ValueError, match=r"got 3\. Were logits passed"):
        recall_mask(np.full((1, 1), 3.0), np.full((1, 1), -1), strategy="fixed")
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(1, 1\)"):
        recall_mask(np.zeros((1, 2)), np.full((1, 1), -1), strategy="fixed")


def test_no_item_or_nothing_unknown__recalls_nothing():
    for strategy in ("fixed", "class", "largest"):
        none = recall_mask(np.zeros((0, 3)), np.zeros((0, 3), int), strategy=strategy, n_largest=4)
        assert none.shape == (0, 3)


def test_log__holds_every_recalled_cell_and_says_how_good_an_epoch_is():
    p, states = drawn()
    truth = np.random.default_rng(1).random(p.shape) < p
    masks = [recall_mask(p, states, strategy="fixed", threshold=t) for t in (0.9, 0.5, 1.0)]
    log = join_recalls([log_recalls(mask, p, epoch=e) for e, mask in enumerate(masks)])
    found = found_by_epoch(log, states, truth, epochs=3)
    for e, mask in enumerate(masks):
        at = log.epoch == e
        assert np.array_equal(np.argwhere(mask), np.stack([log.row[at], log.class_id[at]], axis=1))
        assert np.array_equal(log.p[at], p[mask].astype(np.float32))
        assert found.n[e] == mask.sum()
        if mask.any():
            assert found.precision[e] == pytest.approx(truth[mask].mean())
        assert found.recall[e] == pytest.approx(truth[mask].sum() / truth[states == -1].sum())
    assert np.isnan(found.precision[2])
    assert found.recall[2] == 0
    empty = found_by_epoch(join_recalls([]), states, np.zeros_like(truth), epochs=1)
    assert np.isnan(empty.recall).all()
