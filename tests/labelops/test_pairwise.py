"""Oracle: `numpy.sum` of the rows with their zeros, bit by bit."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.pairwise import row_sums


@examples(
    seed=st.integers(0, 99_999),
    length=st.one_of(st.integers(1, 300), st.integers(1, 5000)),
    share=st.sampled_from([0.0, 0.001, 0.05, 1.0]),
)
def test_row_sums__have_the_bits_of_numpy(seed, length, share):
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(0, 4))
    whole = rng.random((n_rows, length)) * 10.0 ** rng.integers(-9, 9, (n_rows, length))
    whole *= rng.random((n_rows, length)) < share
    row, at = np.nonzero(whole)
    sums = row_sums(whole[row, at], row, at, n_rows=n_rows, length=length)
    assert sums.dtype == np.float64
    assert np.array_equal(sums, [np.sum(values) for values in whole])
    # Columns that lie in memory one after the other are summed along the same tree.
    assert np.array_equal(sums, np.asfortranarray(whole.T).sum(axis=0))


@pytest.mark.parametrize("n_classes", [3, 100, 777])
def test_row_sums__of_a_matrix_as_one_row_is_its_sum(n_classes):
    rng = np.random.default_rng(n_classes)
    matrix = np.asfortranarray(rng.random((n_classes, n_classes)) ** 9)
    matrix *= rng.random(matrix.shape) < 0.05
    flat = matrix.T.ravel()
    at = np.flatnonzero(flat)
    [total] = row_sums(flat[at], np.zeros(len(at), int), at, n_rows=1, length=len(flat))
    assert total == np.sum(matrix)
