"""Oracles: pixels cut out of arrays, and label maps of known scores."""

import numpy as np
import pytest

from labelops.label_maps import pool, sparsify_maps
from labelops.soft.geometry import check_pixel_boxes, mirrored, pixels_of, shares_of


def test_boxes_and_shares__are_the_same_pixels():
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 4000, (500, 2))
    first = (rng.random((500, 2)) * sizes).astype(int)
    length = 1 + (rng.random((500, 2)) * (sizes - first - 1)).astype(int)
    boxes = np.column_stack([first, length])
    (top, left, height, width), (rows, columns) = boxes.T, sizes.T
    published = np.column_stack([top / rows, left / columns, height / rows, width / columns])
    np.testing.assert_array_equal(pixels_of(published.astype(np.float32), sizes), boxes)
    x1, y1, x2, y2 = shares_of(boxes, sizes).T
    np.testing.assert_allclose([x1 * columns, y1 * rows], [left, top], atol=1e-9)
    np.testing.assert_allclose([x2 * columns, y2 * rows], [left + width, top + height], atol=1e-9)


def test_shares__go_to_label_maps_in_their_order():
    scores = np.zeros((1, 2, 4, 6))
    scores[0, 0, :, :2] = 10
    scores[0, 1, :, 4:] = 10
    left_third = shares_of(np.array([[0, 0, 60, 30]]), np.array([[60, 90]]))
    np.testing.assert_allclose(pool(sparsify_maps(scores, k=2), left_third), [[10, 0]], atol=1e-6)


def test_mirrored__shows_the_same_of_the_mirrored_picture():
    picture = np.random.default_rng(1).integers(0, 255, (7, 11))
    box = np.array([[2, 3, 4, 5]])
    top, left, height, width = mirrored(box, np.array([[7, 11]]))[0]
    seen = picture[:, ::-1][top : top + height, left : left + width]
    np.testing.assert_array_equal(seen[:, ::-1], picture[2:6, 3:8])


@pytest.mark.parametrize(
    "box", [[0, 0, 11, 5], [0, 0, 5, 11], [-1, 0, 2, 2], [0, 0, 0, 2], [0, 0.5, 2, 2], [9, 0, 2, 2]]
)
def test_boxes__stay_within_their_pictures(box):
    with pytest.raises(ValueError, match="within a picture of height and width"):
        check_pixel_boxes(np.array([[0, 0, 10, 10], box]), np.array([[10, 10], [10, 10]]))


def test_boxes__refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="sizes \\(height, width\\)"):
        check_pixel_boxes(np.zeros((1, 3)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="within a picture"):
        check_pixel_boxes(np.array([[0, 0, 1, 1]]), np.array([[70_000, 10]]))
    assert check_pixel_boxes(np.zeros((0, 4)), np.zeros((0, 2))).shape == (0, 4)
