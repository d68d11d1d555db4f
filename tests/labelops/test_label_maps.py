"""Oracles: closed forms on ramps, dense maps, and enumeration of small maps."""

import numpy as np
import pytest
from scipy.special import softmax

from labelops.label_maps import (
    LabelMaps,
    axis_weights,
    check_maps,
    densify,
    pool,
    sparsify_maps,
    take_maps,
    whole_boxes,
)


def random_scores(seed: int, n=2, n_classes=7, height=5, width=8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n_classes, height, width)) * 3


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    ends = np.sort(rng.random((n, 2, 2)), axis=1)
    ends[:, 1] = np.maximum(ends[:, 1], ends[:, 0] + 1e-3).clip(max=1)
    return ends.reshape(n, 4)


def ramp(height=15, width=15) -> LabelMaps:
    values = 3.0 * np.arange(width) + 100.0 * np.arange(height)[:, None]
    return sparsify_maps(values[None, None], dtype=np.float64)


@pytest.mark.parametrize(
    ("box", "value"),
    [
        # Of a ramp the value at the centre, 3 (15 x − ½) + 100 (15 y − ½).
        ((0.2, 0.3, 0.6, 0.9), 866.5),
        ((0.4, 0.4, 0.43, 0.43), 589.675),
        # At the border sampling points are moved to the outermost centres.
        ((0.0, 0.0, 0.3, 1.0), 705.28),
    ],
)
def test_pool__of_a_ramp_is_the_value_at_the_centre(box, value):
    # Published to two decimals for the last.
    assert pool(ramp(), np.array([box]))[0, 0] == pytest.approx(value, abs=6e-3)


def test_pool__first_coordinate_is_along_columns():
    third = np.zeros((1, 2, 9, 9))
    third[0, 0, :, :3] = third[0, 1, :, 6:] = 10
    maps = sparsify_maps(third, dtype=np.float64)
    left = pool(maps, np.array([[0, 0, 1 / 3, 1]]))[0]
    assert softmax(left) == pytest.approx([0.99995, 0.00005], abs=5e-6)
    top = pool(maps, np.array([[0, 0, 1, 1 / 3]]))[0]
    assert softmax(top).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("seed", range(5))
def test_pool__sparse_is_dense(seed):
    rng = np.random.default_rng(seed)
    maps = sparsify_maps(random_scores(seed), k=3, dtype=np.float64)
    boxes = random_boxes(rng, 2)
    dense = densify(maps)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        omega = np.outer(axis_weights(5, y1, y2), axis_weights(8, x1, x2))
        want = (dense[i] * omega).sum(axis=(1, 2))
        np.testing.assert_allclose(pool(maps, boxes)[i], want, atol=1e-12)


def test_pool__whole_picture_is_the_mean_over_cells():
    scores = random_scores(1)
    maps = sparsify_maps(scores, k=7, dtype=np.float64)
    np.testing.assert_allclose(
        pool(maps, whole_boxes(2)), scores.mean(axis=(2, 3)), rtol=0, atol=1e-12
    )


def test_pool__of_the_whole_picture_keeps_the_mean_of_the_others_exactly():
    """With few classes stored, the sum over classes is still right: the rest is a mean."""
    scores = random_scores(2)
    pooled = pool(sparsify_maps(scores, k=2, dtype=np.float64), whole_boxes(2))
    np.testing.assert_allclose(pooled.sum(axis=1), scores.mean(axis=(2, 3)).sum(axis=1), atol=1e-12)


@pytest.mark.parametrize("shift", [7.0, -4.0])
def test_pool__a_constant_added_to_all_scores_does_not_change_the_label(shift):
    scores, boxes = random_scores(3), random_boxes(np.random.default_rng(3), 2)
    want, got = (
        softmax(pool(sparsify_maps(s, k=3, dtype=np.float64), boxes), axis=1)
        for s in (scores, scores + shift)
    )
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_pool__mirrored_map_and_box_give_the_same():
    maps = sparsify_maps(random_scores(4), k=3, dtype=np.float64)
    mirrored = LabelMaps(*(x[..., ::-1] for x in (maps.ids, maps.scores, maps.rest)), 7)
    box = np.array([[0.1, 0.2, 0.55, 0.9]] * 2)
    other = np.array([[0.45, 0.2, 0.9, 0.9]] * 2)
    np.testing.assert_allclose(pool(mirrored, other), pool(maps, box), atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_weights__sum_to_one_and_stay_within(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.random(2))
    weights = axis_weights(int(rng.integers(1, 20)), low, high)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights >= 0).all()


def test_sparsify__keeps_the_highest_and_the_true_mean_of_the_others():
    scores = random_scores(5)
    maps = sparsify_maps(scores, k=3, dtype=np.float64)
    ordered = np.sort(scores, axis=1)[:, ::-1]
    assert np.array_equal(maps.scores, ordered[:, :3])
    assert np.array_equal(np.take_along_axis(scores, maps.ids.astype(int), axis=1), ordered[:, :3])
    np.testing.assert_allclose(maps.rest, ordered[:, 3:].mean(axis=1), atol=1e-12)


def test_sparsify__ties_go_to_the_smaller_id_and_inputs_are_not_modified():
    scores = np.zeros((1, 4, 2, 2))
    maps = sparsify_maps(scores, k=2)
    assert maps.ids[0, :, 0, 0].tolist() == [0, 1]
    assert (scores == 0).all()


def test_sparsify__permuted_classes_are_permuted():
    scores, order = random_scores(6), np.random.default_rng(0).permutation(7)
    maps, moved = (sparsify_maps(s, k=3) for s in (scores, scores[:, order]))
    assert np.array_equal(order[moved.ids], maps.ids)
    assert np.array_equal(moved.scores, maps.scores)


@pytest.mark.parametrize(("n_classes", "dtype"), [(300, np.uint16), (70_000, np.uint32)])
def test_ids__are_integers_that_hold_every_class(n_classes, dtype):
    scores = np.zeros((1, n_classes, 1, 1))
    scores[0, n_classes - 1] = 5
    maps = sparsify_maps(scores, k=1)
    assert maps.ids.dtype == dtype
    assert maps.ids.item() == n_classes - 1


@pytest.mark.parametrize("k", [1, 2, 5])
def test_maps__of_one_class_no_pictures_and_more_kept_than_there_are(k):
    maps = sparsify_maps(np.full((2, 1, 2, 2), 3.0), k=k)
    assert maps.ids.shape == (2, 1, 2, 2)
    assert pool(maps, whole_boxes(2)).tolist() == [[3.0], [3.0]]
    none = take_maps(maps, slice(0, 0))
    assert pool(none, whole_boxes(0)).shape == (0, 1)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((-0.1, 0.0, 0.5, 1.0), "box 0 is"),
        ((0.0, 0.0, 0.5, 1.01), "Were pixels passed"),
        ((0.5, 0.0, 0.5, 1.0), "0 ≤ x1 < x2 ≤ 1"),
        ((0.0, 0.9, 0.5, 0.1), "0 ≤ y1 < y2 ≤ 1"),
        ((0.0, 0.0, np.nan, 1.0), "nan"),
    ],
)
def test_boxes__outside_the_picture_are_refused(box, said):
    with pytest.raises(ValueError, match=said):
        pool(ramp(), np.array([box]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: check_maps(ramp(), grid=(15, 14)), r"15 × 14 cells were expected.*\(1, 1, 15, 15"),
        (lambda: check_maps(ramp()._replace(rest=np.zeros((1, 2, 2))), grid=(15, 15)), "and rest"),
        (lambda: check_maps(ramp()._replace(ids=ramp().ids + 1), grid=(15, 15)), "picture 0 has 1"),
        (lambda: sparsify_maps(np.zeros((2, 3, 4))), r"shape \(N, K, h, w\)"),
        (lambda: sparsify_maps(np.zeros((1, 2, 1, 1)), k=0), "k ≥ 1 were expected"),
        (lambda: sparsify_maps(np.full((1, 2, 1, 1), np.nan)), "those of picture 0 do not"),
        (lambda: sparsify_maps(np.full((1, 2, 1, 1), 1e5)), "fit float16"),
        (lambda: pool(ramp(), np.zeros((2, 4))), r"of shape \(1, 4\) were expected"),
    ],
)
def test_maps__that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
