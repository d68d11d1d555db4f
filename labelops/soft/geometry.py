"""Which part of a picture a soft label is of: boxes of whole pixels, flips, and mixed partners.

Boxes are (top, left, height, width) in pixels of the picture as it was decoded, whose size stands
beside them. Whole pixels are exact, and as small as half-precision shares, of which one in twelve
is a pixel off. The order of a view is: crop, scale, flip, then colour.
"""

# V views

import numpy as np

from labelops.hashing import hash_integers

MOST_PIXELS = 65_535
"""Of a side, so that boxes are uint16."""


def check_pixel_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Refuse boxes that reach outside their pictures; return them as uint16.

    Parameters
    ----------
    boxes
        (top, left, height, width), whole numbers, shape (V, 4).
    sizes
        (height, width) of the pictures, shape (V, 2).

    Raises
    ------
    ValueError
        If shapes do not fit, numbers are not whole, a box is empty or reaches outside, or a picture
        is larger than 65 535 pixels.

    Examples
    --------
    >>> check_pixel_boxes(np.array([[2, 0, 8, 5]]), np.array([[10, 5]])).tolist()
    [[2, 0, 8, 5]]
    """
    if boxes.ndim != 2 or boxes.shape[1:] != (4,) or sizes.shape != (len(boxes), 2):
        raise ValueError(
            "boxes (top, left, height, width), shape (V, 4), and sizes (height, width), shape (V, "
            f"2), were expected, got {boxes.shape} and {sizes.shape}"
        )
    exact, limits = boxes.astype(np.float64), sizes.astype(np.float64)
    first, length = exact[:, :2], exact[:, 2:]
    # Written so that NaN fails too.
    is_fit = ((first >= 0) & (length >= 1) & (first + length <= limits)).all(axis=1)
    is_fit &= (exact == np.floor(exact)).all(axis=1) & (limits <= MOST_PIXELS).all(axis=1)
    if not is_fit.all():
        i = int(np.argmin(is_fit))
        raise ValueError(
            f"a box (top, left, height, width) of whole pixels within a picture of height and "
            f"width {sizes[i].tolist()} was expected, got {boxes[i].tolist()} for view {i}. Were x "
            "and y swapped?"
        )
    return np.asarray(exact.astype(np.uint16))


def shares_of(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return boxes (top, left, height, width) as shares (x1, y1, x2, y2) of width and height.

    As label maps and RoIAlign take them; float64, shape (V, 4).

    Examples
    --------
    >>> shares_of(np.array([[2, 0, 8, 5]]), np.array([[10, 5]])).tolist()
    [[0.0, 0.2, 1.0, 1.0]]
    """
    top, left, height, width = boxes.astype(np.float64).T
    rows, columns = sizes.astype(np.float64).T
    return np.column_stack(
        [left / columns, top / rows, (left + width) / columns, (top + height) / rows]
    )


def pixels_of(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return shares (top / H, left / W, height / H, width / W) as boxes of whole pixels, uint16.

    As published stores have them, to the nearest pixel.

    Raises
    ------
    ValueError
        If a box is not within its picture; see `check_pixel_boxes`.

    Examples
    --------
    >>> pixels_of(np.array([[0.2, 0.0, 0.8, 1.0]]), np.array([[10, 5]])).tolist()
    [[2, 0, 8, 5]]
    """
    rows, columns = sizes.astype(np.float64).T
    boxes = np.rint(shares.astype(np.float64) * np.column_stack([rows, columns, rows, columns]))
    return check_pixel_boxes(boxes, sizes)


def mirrored(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the boxes that show the same in the mirrored pictures.

    Examples
    --------
    >>> mirrored(np.array([[0, 1, 4, 2]]), np.array([[4, 5]])).tolist()
    [[0, 2, 4, 2]]
    """
    turned = boxes.copy()
    turned[:, 1] = sizes[:, 1] - boxes[:, 1].astype(np.int64) - boxes[:, 3]
    return turned


# -- which regions ---------------------------------------------------------------------------------

TRIES = 10
"""So often a region is drawn that has to fit into its picture; then the largest one is taken."""

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
"""Shares of a picture's area, and width over height, as most classifiers are trained with."""


def view_hashes(item_hash: np.ndarray, view: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the hash of a view, of which all that is random about it is made; uint64, shape (V,).

    Parameters
    ----------
    item_hash
        Of its item, uint64, shape (V,).
    view
        Its number within the item, shape (V,).
    seed
        Another one gives other views.

    Examples
    --------
    >>> view_hashes(np.array([7, 7], np.uint64), np.array([0, 1])).tolist()
    [5651114593729759386, 752404669500479874]
    """
    of_seed = hash_integers(np.array([seed], np.int64))[0]
    of_item = hash_integers((item_hash.astype(np.uint64) ^ of_seed).view(np.int64))
    return hash_integers((of_item + view.astype(np.uint64)).view(np.int64))


def central_squares(sizes: np.ndarray) -> np.ndarray:
    """Return the largest central square of every picture, as boxes of whole pixels, uint16.

    What classifiers are shown where nothing is random; torchvision's, which rounds halves to even.

    Examples
    --------
    >>> central_squares(np.array([[4, 7], [9, 4]])).tolist()
    [[0, 2, 4, 4], [2, 0, 4, 4]]
    """
    short = sizes.min(axis=1, keepdims=True).astype(np.int64)
    first = np.rint((sizes - short) / 2)
    return check_pixel_boxes(np.hstack([first, short, short]), sizes)


def draw_regions(
    sizes: np.ndarray,
    hashes: np.ndarray,
    *,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
) -> np.ndarray:
    """Return a region of every picture, drawn as training crops are ("random resized crop").

    Its share of the picture's area is uniform, the logarithm of width over height is, and so is the
    place. What does not fit into the picture is drawn again, ten times at most; then the region is
    the largest central one of an aspect in the range.

    Parameters
    ----------
    sizes
        (height, width), shape (V, 2).
    hashes
        Of `view_hashes`: the same hash draws the same.
    area, aspect
        Ranges of share and of width over height.

    Returns
    -------
    (top, left, height, width), uint16, shape (V, 4).

    Raises
    ------
    ValueError
        If shapes do not fit, a range does not ascend, shares are not in (0, 1], or aspects not
        positive.

    References
    ----------
    Szegedy et al.: Going deeper with convolutions. CVPR 2015, section 6; as torchvision's
    RandomResizedCrop.

    Examples
    --------
    >>> sizes = np.array([[300, 400], [300, 400]])
    >>> draw_regions(sizes, np.array([1, 2], np.uint64)).tolist()
    [[58, 134, 208, 242], [49, 109, 217, 244]]
    """
    if not (0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1] < np.inf):
        raise ValueError(
            "draw_regions: shares of area in (0, 1] and positive aspects, each in ascending order, "
            f"were expected, got {area} and {aspect}"
        )
    if sizes.ndim != 2 or sizes.shape != (len(hashes), 2):
        raise ValueError(
            "draw_regions: sizes (height, width), shape (V, 2), and as many hashes were expected, "
            f"got {sizes.shape} and {hashes.shape}"
        )
    exact = sizes.astype(np.float64)
    u = _uniform(hashes, 2 * TRIES + 2)
    share = area[0] + (area[1] - area[0]) * u[:, :TRIES]
    low, high = np.log(aspect)
    ratio = np.exp(low + (high - low) * u[:, TRIES : 2 * TRIES])
    pixels = share * exact.prod(axis=1, keepdims=True)
    drawn = np.rint(np.sqrt(np.stack([pixels / ratio, pixels * ratio], axis=2)))
    fits = ((drawn >= 1) & (drawn <= exact[:, None])).all(axis=2)
    length = np.where(
        fits.any(axis=1, keepdims=True),
        drawn[np.arange(len(drawn)), fits.argmax(axis=1)],
        _largest(exact, aspect),
    )
    room = exact - length
    first = np.where(
        fits.any(axis=1, keepdims=True),
        np.minimum(np.floor(u[:, 2 * TRIES :] * (room + 1)), room),
        np.floor(room / 2),
    )
    return check_pixel_boxes(np.hstack([first, length]), sizes)


def _largest(sizes: np.ndarray, aspect: tuple[float, float]) -> np.ndarray:
    """Return height and width of the largest region of an aspect in the range."""
    height, width = sizes.T
    is_tall, is_flat = width < aspect[0] * height, width > aspect[1] * height
    tall, flat = np.rint(width / aspect[0]), np.rint(height * aspect[1])
    least = np.column_stack([np.where(is_tall, tall, height), np.where(is_flat, flat, width)])
    return np.asarray(np.maximum(np.minimum(least, sizes), 1))


def draw_flips(hashes: np.ndarray) -> np.ndarray:
    """Return which views are mirrored left to right, half of them; bool, shape (V,).

    Examples
    --------
    >>> draw_flips(np.array([1, 2, 3, 4], np.uint64)).tolist()
    [False, True, True, False]
    """
    return np.asarray(_uniform(hashes, 2 * TRIES + 3)[:, -1] < 0.5)


def _uniform(hashes: np.ndarray, n: int) -> np.ndarray:
    """Return n numbers in [0, 1) of every hash, shape (V, n)."""
    first = hash_integers(hashes.astype(np.uint64).view(np.int64))
    each = first[:, None] + np.arange(n, dtype=np.uint64)
    mixed = hash_integers(each.view(np.int64))
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)
