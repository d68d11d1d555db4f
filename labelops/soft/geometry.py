"""Which part of a picture a soft label is of: boxes of whole pixels, flips, and mixed partners.

Boxes are (top, left, height, width) in pixels of the picture as it was decoded, whose size stands
beside them. Whole pixels are exact, and as small as half-precision shares, of which one in twelve
is a pixel off. The order of a view is: crop, scale, flip, then colour.
"""

# V views

import numpy as np

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
