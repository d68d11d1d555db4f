"""Oracles: points laid one by one, and means over many hashes."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from labelops.hashing import hash_integers
from labelops.soft.sampled import draw_classes, read_drawn
from tests.oracles import soft_views as slow


def test_draws__are_the_points_laid_one_by_one():
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(size=(40, 7)) * 2, axis=1)
    hashes = rng.integers(0, 2**63, 40).astype(np.uint64)
    for n in (1, 2, 12, 255):
        got = read_drawn(draw_classes(p, hashes, n_draws=n))
        mixed = hash_integers(hashes.view(np.int64))
        for i in range(40):
            u = (int(mixed[i]) >> 11) / 2**53
            want = np.array(slow.systematic(p[i].tolist(), u, n)) / n
            np.testing.assert_array_equal(got[i], want)


def test_labels_and_gradients__are_right_on_average():
    rng = np.random.default_rng(1)
    p = softmax(rng.normal(size=(1, 30)) * 2, axis=1)
    student = rng.normal(size=30)
    drawn = draw_classes(np.repeat(p, 40_000, axis=0), np.arange(40_000, dtype=np.uint64))
    labels = read_drawn(drawn)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-12)
    # None is drawn once more or less often than that.
    assert np.abs(12 * labels - 12 * p).max() < 1
    # Of a share p of n draws, systematically: variance at most 1 / 4 n².
    standard = 1 / (2 * 12) / np.sqrt(40_000)
    assert np.abs(labels.mean(axis=0) - p[0]).max() < 4 * standard
    loss = -(labels @ log_softmax(student))
    assert abs(loss.mean() - slow.cross_entropy(p[0].tolist(), student.tolist())) < 0.01
    # Independent draws have the variance p (1 − p) / n; these have less.
    assert (labels.var(axis=0) <= p[0] * (1 - p[0]) / 12 + 1e-3).all()
    assert labels.var(axis=0).sum() < 0.5 * (p[0] * (1 - p[0]) / 12).sum()


def test_draws__depend_on_hashes_alone():
    p = softmax(np.random.default_rng(2).normal(size=(50, 9)), axis=1)
    hashes = np.arange(50, dtype=np.uint64) * np.uint64(977)
    whole = read_drawn(draw_classes(p, hashes))
    order = np.random.default_rng(3).permutation(50)
    np.testing.assert_array_equal(read_drawn(draw_classes(p[order], hashes[order])), whole[order])


def test_corners__none_one_class_impossible_and_certain_ones():
    assert read_drawn(draw_classes(np.zeros((0, 3)), np.zeros(0, np.uint64))).shape == (0, 3)
    hashes = np.arange(500, dtype=np.uint64)
    assert (read_drawn(draw_classes(np.ones((500, 1)), hashes)) == 1).all()
    drawn = draw_classes(np.tile([0.0, 1.0, 0.0], (500, 1)), hashes)
    assert drawn.ids.tolist() == [1] * 500
    assert (drawn.counts == 12).all()
    many = np.zeros((1, 70_000))
    many[0, [3, 69_998]] = 0.5
    drawn = draw_classes(many, np.zeros(1, np.uint64))
    assert drawn.ids.dtype == np.uint32
    assert drawn.ids.tolist() == [3, 69_998]


@pytest.mark.parametrize("n", [0, 256])
def test_draws__are_bytes(n):
    with pytest.raises(ValueError, match="1 to 255 draws were expected"):
        draw_classes(np.ones((1, 2)) / 2, np.zeros(1, np.uint64), n_draws=n)
