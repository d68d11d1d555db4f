"""Oracles: counting in loops; conditional probabilities of planted pairwise models, enumerated."""

import itertools

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from scipy.special import expit

from labelops.multilabel.cells import Cells
from labelops.multilabel.cooccurrence import (
    HALF,
    PSEUDO_ITEMS,
    evidence,
    merge,
    summarize,
)
from labelops.multilabel.labels import from_states, label_sets, states, take_rows
from tests.labelops.multilabel.data import all_cells, make


def loop_evidence(table: np.ndarray, i: int, c: int) -> tuple[float, float]:
    """The formula, on the other items."""
    rest = np.delete(table, i, axis=0)
    yes, no = (rest[:, c] == 1).sum() + HALF, (rest[:, c] == 0).sum() + HALF
    share, total = yes / (yes + no), 0.0
    for j in np.flatnonzero(table[i] == 1):
        if j != c:
            having = rest[rest[:, j] == 1]
            together, apart = (having[:, c] == 1).sum(), (having[:, c] == 0).sum()
            odds = (together + PSEUDO_ITEMS * share) / (apart + PSEUDO_ITEMS * (1 - share))
            total += np.log(odds) - np.log(yes / no)
    return np.log(yes / no), total


@settings(max_examples=25)
@examples(seed=st.integers(0, 2**32 - 1), unknown=st.sampled_from([0.0, 0.4]))
def test_evidence__is_that_of_the_other_items(seed, unknown):
    _, table, _ = make(seed, n=12, n_classes=5, unknown=unknown)
    labels, cells = from_states(table), all_cells(table)
    prior, said = evidence(cells, labels, summarize(labels))
    want = [loop_evidence(table, i, c) for i, c in zip(cells.row, cells.class_id, strict=True)]
    np.testing.assert_allclose(np.stack([prior, said], axis=1), np.array(want), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_evidence__of_classes_independent_given_another_is_bayes_rule(seed):
    """Enumerated: P(c | all others present), where the others are independent given c."""
    rng = np.random.default_rng(seed)
    share, given_c = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8, (2, 3))
    weights = {}
    for pattern in itertools.product([0, 1], repeat=4):
        c, others = pattern[0], np.array(pattern[1:])
        p = np.where(others == 1, given_c[c], 1 - given_c[c])
        weights[pattern] = (share if c else 1 - share) * p.prod()
    n = {pattern: round(w * 1_000_000) for pattern, w in weights.items()}
    table = np.repeat(np.array(list(n), np.int8), list(n.values()), axis=0)
    labels = from_states(table)
    i = int(np.flatnonzero((table == 1).all(axis=1))[0])
    cell = Cells(np.array([i]), np.array([0]), np.array([True]), np.array([0.5]))
    prior, said = evidence(cell, labels, summarize(labels))
    want = weights[1, 1, 1, 1] / (weights[1, 1, 1, 1] + weights[0, 1, 1, 1])
    # A million items: counts are rounded, and four more are believed independent.
    assert expit(prior + said)[0] == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("unknown", [0.0, 0.5])
@pytest.mark.parametrize("cut", [0, 1, 77, 200])
def test_counts__add_up_over_shards_exactly(cut, unknown):
    _, table, _ = make(3, unknown=unknown)
    labels = from_states(table)
    whole = summarize(labels)
    both = merge(*(summarize(take_rows(labels, s)) for s in (slice(0, cut), slice(cut, None))))
    for a, b in zip(whole, both, strict=True):
        if a is not None:
            a, b = (x if isinstance(x, np.ndarray) else x.toarray() for x in (a, b))
            assert np.array_equal(a, b)


def test_counts__what_is_unknown_here_and_ruled_out_there_is_not_added():
    parts = label_sets([[0]], n_classes=2), label_sets([[0]], [[]], n_classes=2)
    with pytest.raises(ValueError, match="may be unknown; say for both which"):
        merge(*map(summarize, parts))


def test_evidence__moves_with_items_and_classes():
    _, table, _ = make(4, n=50)
    items, classes = np.random.default_rng(0).permutation(50), np.array([3, 0, 4, 1, 2])
    moved = table[items][:, classes]
    want, got = (
        evidence(all_cells(t), from_states(t), summarize(from_states(t)))[1].reshape(50, 5)
        for t in (table, moved)
    )
    # Sums of up to four terms in two orders.
    np.testing.assert_allclose(got, want[items][:, classes], atol=1e-12)


def test_evidence__of_no_cells_of_one_item_and_of_an_item_without_classes():
    labels = label_sets([[0, 1]], n_classes=2)
    prior, said = evidence(all_cells(states(labels)), labels, summarize(labels))
    # Left out of the counts, the only item leaves nothing behind.
    assert prior.tolist() == said.tolist() == [0.0, 0.0]
    none = all_cells(np.zeros((0, 2), np.int8))
    assert evidence(none, label_sets([], n_classes=2), summarize(labels))[1].shape == (0,)
    empty = label_sets([[], [0]], n_classes=2)
    _, said = evidence(all_cells(states(empty)), empty, summarize(empty))
    assert said[:2].tolist() == [0.0, 0.0]
