"""Oracles: dense maps, gone through cell by cell; softmax and logistic function as they are."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from labelops.label_maps import densify, sparsify_maps, take_maps
from labelops.label_peaks import binary_cell_probs, binary_peaks, cell_probs, class_map, peaks
from tests.labelops.test_label_maps import random_scores


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("output", ["softmax", "logistic"])
def test_peaks__are_the_largest_probability_of_the_stored_map(k, output):
    maps = sparsify_maps(random_scores(7), k=k, dtype=np.float64)
    dense = densify(maps)
    probs = softmax(dense, axis=1) if output == "softmax" else expit(dense)
    sure, cell = (peaks if output == "softmax" else binary_peaks)(maps)
    for i in range(2):
        for c in range(7):
            at = np.argwhere((maps.ids[i] == c).any(axis=0))
            if len(at):
                values = np.array([probs[i, c, y, x] for y, x in at])
                y, x = at[values.argmax()]
                assert cell[i, c] == y * 8 + x
                assert sure[i, c] == pytest.approx(values.max(), abs=1e-12)
            else:
                assert cell[i, c] == -1
                assert sure[i, c] == pytest.approx(probs[i, c].max(), abs=1e-12)


@pytest.mark.parametrize("find", [peaks, binary_peaks])
def test_peaks__move_with_the_classes(find):
    scores, order = random_scores(3), np.random.default_rng(0).permutation(7)
    (sure, cell), (moved, there) = (
        find(sparsify_maps(s, k=3, dtype=np.float64)) for s in (scores, scores[:, order])
    )
    np.testing.assert_allclose(moved, sure[:, order], rtol=0, atol=1e-12)
    assert np.array_equal(there, cell[:, order])


@pytest.mark.parametrize("find", [peaks, binary_peaks])
def test_peaks__of_no_pictures_and_of_one_class(find):
    one = sparsify_maps(np.full((2, 1, 2, 2), 40.0))
    assert find(one)[0].tolist() == [[1.0], [1.0]]
    assert find(one)[1].tolist() == [[0], [0]]
    assert find(take_maps(one, slice(0, 0)))[0].shape == (0, 1)


def test_peaks__of_equal_cells_are_in_the_first():
    tied = sparsify_maps(np.zeros((1, 3, 2, 2)), k=2)
    assert peaks(tied)[1].tolist() == [[0, 0, -1]]


@pytest.mark.parametrize("k", [1, 4, 7])
def test_class_map__is_the_dense_one_where_it_is_stored(k):
    maps = sparsify_maps(random_scores(2), k=k, dtype=np.float64)
    dense = densify(maps)
    for probs, want in (
        (cell_probs(maps), softmax(dense, axis=1)),
        (binary_cell_probs(maps), expit(dense)),
    ):
        for c in range(7):
            stored = (maps.ids == c).any(axis=1)
            got = class_map(maps, probs, c)
            np.testing.assert_allclose(got, np.where(stored, want[:, c], 0), rtol=0, atol=1e-12)
