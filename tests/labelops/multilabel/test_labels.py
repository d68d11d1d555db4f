"""Oracle: Python sets; tables of three states go through the sparse form unchanged."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from labelops.multilabel.labels import (
    choose_rows,
    from_flat,
    from_states,
    label_sets,
    n_no,
    n_yes,
    states,
    take_rows,
    with_unknown_absent,
)

tables = arrays(
    np.int8,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.sampled_from([1, 0, -1]),
)


@examples(table=tables)
def test_states__survive_the_sparse_form(table):
    labels = from_states(table)
    assert np.array_equal(states(labels), table)
    assert np.array_equal(n_yes(labels), (table == 1).sum(axis=0))
    assert np.array_equal(n_no(labels), (table == 0).sum(axis=0))


@examples(table=tables, first=st.integers(0, 8), n=st.integers(0, 8))
def test_rows__of_the_sparse_form_are_those_of_the_table(table, first, n):
    part = take_rows(from_states(table), slice(first, first + n))
    assert np.array_equal(states(part), table[first : first + n])


@examples(table=tables, seed=st.integers(0, 7))
def test_unknown_cells__are_absent_where_they_count_as_absent(table, seed):
    is_counted = np.random.default_rng(seed).random(table.shape[1]) < seed / 6
    counted = with_unknown_absent(from_states(table), is_counted)
    wanted = [
        [0 if said == -1 and c else said for said, c in zip(row, is_counted, strict=True)]
        for row in table
    ]
    assert states(counted).tolist() == wanted


def test_sets__do_not_depend_on_order_and_repetition():
    assert states(label_sets([[2, 0, 2], []], [[1, 1], [0]], n_classes=3)).tolist() == [
        [1, 0, 1],
        [0, -1, -1],
    ]


def test_sets__unknown_is_not_no():
    said = label_sets([[0], []], n_classes=2)
    partly = label_sets([[0], []], [[], []], n_classes=2)
    assert states(said).tolist() == [[1, 0], [0, 0]]
    assert states(partly).tolist() == [[1, -1], [-1, -1]]
    assert n_no(partly).tolist() == [0, 0]


def test_sets__of_no_items_and_of_empty_lists():
    assert states(label_sets([], n_classes=2)).shape == (0, 2)
    assert states(label_sets([[], []], [[], []], n_classes=2)).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(("n_classes", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids__are_the_smallest_integers_that_hold_every_class(n_classes, dtype):
    labels = label_sets([[n_classes - 1]], n_classes=n_classes)
    assert labels.ids.dtype == dtype
    assert labels.ids.tolist() == [n_classes - 1]


def test_inputs__are_not_modified():
    ids, start = np.array([2, 0, 1]), np.array([0, 2, 3])
    from_flat(ids, start, n_classes=3)
    assert ids.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: label_sets([[0], [3]], n_classes=3), "in 0…2; item 1 has present class 3"),
        (lambda: label_sets([[0]], [[-1]], n_classes=3), "item 0 has absent class -1"),
        (lambda: label_sets([[], [1]], [[], [2, 1]], n_classes=3), "item 1 has class 1 in both"),
        (lambda: label_sets([[0]], [[1], [1]], n_classes=2), "as many lists .* got 2 and 1"),
        (lambda: label_sets([], n_classes=0), "at least one class was expected, got n_classes=0"),
        (lambda: from_flat(np.zeros(2, int), np.array([0, 1]), n_classes=1), "rise from 0 to 2"),
        (lambda: from_flat(np.zeros(1), np.array([0, 1]), n_classes=1), "integers, got float64"),
        (lambda: from_states(np.array([[2]])), r"of 1, 0 and −1 was expected, got shape \(1, 1\)"),
    ],
)
def test_labels__that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("seed", range(3))
def test_choose_rows__is_one_row_after_the_other(seed):
    rng = np.random.default_rng(seed)
    table = rng.choice([1, 0, -1], (12, 5), p=[0.3, 0.4, 0.3])
    labels, rows = from_states(table), rng.integers(0, 12, 20)
    assert np.array_equal(states(choose_rows(labels, rows)), table[rows])
    assert choose_rows(labels, rows[:0]).n_items == 0
