"""Oracles: pixels cut out of arrays, and label maps of known scores."""

import numpy as np
import pytest

from labelops.hashing import hash_integers
from labelops.label_maps import pool, sparsify_maps
from labelops.soft.geometry import (
    central_squares,
    check_pixel_boxes,
    draw_flips,
    draw_regions,
    mirrored,
    pixels_of,
    shares_of,
    view_hashes,
)


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


# -- drawn regions ---------------------------------------------------------------------------------


def hashes(n):
    return hash_integers(np.arange(n))


def test_regions__have_the_laws_of_torchvisions_random_resized_crop():
    """Two samples of 4 000: quantiles of area, log aspect and place agree as two samples do."""
    torch = pytest.importorskip("torch")
    from scipy.stats import ks_2samp
    from torchvision.transforms import v2

    n, size = 4000, (90, 160)
    ours = draw_regions(np.tile([size], (n, 1)), hashes(n), area=(0.2, 0.9)).astype(float)
    crop, blank = v2.RandomResizedCrop(8, scale=(0.2, 0.9)), torch.zeros(1, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [crop.make_params([blank]) for _ in range(n)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs], float)

    def of(box):
        top, left, height, width = box.T
        return height * width, np.log(width / height), top / (size[0] - height + 1), left

    for a, b in zip(of(ours), of(theirs), strict=True):
        assert ks_2samp(a, b).pvalue > 0.001
    assert abs(draw_flips(hashes(n)).mean() - 0.5) < 0.03


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (1, 1), (1, 7), (9, 2)])
def test_regions__that_never_fit_are_those_of_torchvision(size):
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    drawn = v2.RandomResizedCrop(8, scale=(0.8, 1.0)).make_params([torch.zeros(1, *size)])
    found = draw_regions(np.array([size]), hashes(1), area=(0.8, 1.0))
    assert found.tolist() == [[drawn[name] for name in ("top", "left", "height", "width")]]


def test_regions__depend_on_item_view_and_seed_alone():
    item = hashes(50).repeat(4)
    view, sizes = np.tile(np.arange(4), 50), np.tile([[60, 80]], (200, 1))
    whole = draw_regions(sizes, view_hashes(item, view))
    some = np.random.default_rng(0).permutation(200)[:30]
    np.testing.assert_array_equal(
        draw_regions(sizes[some], view_hashes(item[some], view[some])), whole[some]
    )
    assert len(np.unique(view_hashes(item, view))) == 200
    other = draw_regions(sizes, view_hashes(item, view, seed=1))
    assert (other != whole).any(axis=1).mean() > 0.95


def test_central_squares__are_what_torchvision_crops():
    torch = pytest.importorskip("torch")
    from torchvision.transforms.v2 import functional as v2

    for size in ((4, 7), (7, 4), (5, 8), (6, 6), (1, 2), (2, 9)):
        picture = torch.arange(size[0] * size[1]).reshape(1, *size)
        top, left, height, width = central_squares(np.array([size]))[0].tolist()
        wanted = v2.center_crop(picture, [min(size), min(size)])
        assert torch.equal(picture[:, top : top + height, left : left + width], wanted)


@pytest.mark.parametrize("ranges", [{"area": (0.0, 1.0)}, {"area": (0.5, 1.1)},
                                    {"area": (0.6, 0.5)}, {"aspect": (0.0, 1.0)}])  # fmt: skip
def test_regions__of_odd_ranges_are_refused(ranges):
    with pytest.raises(ValueError, match="each in ascending order"):
        draw_regions(np.array([[4, 4]]), hashes(1), **ranges)
    with pytest.raises(ValueError, match="as many hashes were expected"):
        draw_regions(np.array([[4, 4]]), hashes(2))


def test_no_view__has_no_region():
    none = np.zeros((0, 2), int)
    assert draw_regions(none, hashes(0)).shape == central_squares(none).shape == (0, 4)
