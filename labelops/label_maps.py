"""Label maps: what a strong classifier sees in every cell of a picture, and in any crop of it.

A random crop often does not hold the object that the picture was labelled for. A classifier that
ends in "pool, then linear" says what it sees in every cell before it pools; stored once, that gives
a label for any crop, by pooling only the cells within.

For every cell the k highest scores (logits, before softmax) are kept, and the mean of all others.
The mean, because pooling is linear; with zeros in its place the label of a crop depends on a
constant that softmax ignores.
"""

from typing import NamedTuple

import numpy as np

from labelops.soft.labels import id_type

# N pictures, K classes, k kept, h×w cells; a box is (x1, y1, x2, y2), x along columns


class LabelMaps(NamedTuple):
    """Label maps of N pictures.

    Attributes
    ----------
    ids : the classes with the highest scores in each cell, highest first; uint16 up to 65 536
        classes, else uint32, shape (N, k, h, w).
    scores : their scores, shape (N, k, h, w).
    rest : mean score of the classes that are not stored, shape (N, h, w); 0 if all are.
    n_classes : K.
    """

    ids: np.ndarray
    scores: np.ndarray
    rest: np.ndarray
    n_classes: int


def sparsify_maps(scores: np.ndarray, *, k: int = 5, dtype: type = np.float16) -> LabelMaps:
    """Keep the k highest scores of every cell and the mean of the others.

    Parameters
    ----------
    scores
        Logits, shape (N, K, h, w).
    k
        How many; all if there are no more. Ties go to the smaller id.
    dtype
        What the scores are stored in. Half precision moves a logit of 16 by 0.008 at most.

    Returns
    -------
    LabelMaps: 5 × 4 + 2 bytes a cell at k = 5.

    Raises
    ------
    ValueError
        If `scores` has another number of axes, no cell, or a value that is not finite or does not
        fit the type; or k < 1.

    References
    ----------
    Yun, Oh, Heo, Han, Choe, Chun: Re-labeling ImageNet: from single to multi-labels, from global to
    localized labels. CVPR 2021, section 3.1. There the others are set to zero.

    Examples
    --------
    >>> maps = sparsify_maps(np.array([3.0, 9.0, 1.0, 2.0]).reshape(1, 4, 1, 1), k=2)
    >>> maps.ids.ravel().tolist(), maps.scores.ravel().tolist(), maps.rest.ravel().tolist()
    ([1, 0], [9.0, 3.0], [1.5])
    """
    if scores.ndim != 4 or 0 in scores.shape[1:] or k < 1:
        raise ValueError(
            f"sparsify_maps: scores of shape (N, K, h, w) with at least one class and cell, and k "
            f"≥ 1 were expected, got {scores.shape} and k={k}"
        )
    exact = np.array(scores, np.float64)
    if not (np.abs(exact) <= np.finfo(dtype).max).all():
        item = int(np.flatnonzero(~(np.abs(exact) <= np.finfo(dtype).max).all(axis=(1, 2, 3)))[0])
        raise ValueError(
            f"sparsify_maps: scores must be finite and fit {np.dtype(dtype)}; those of picture "
            f"{item} do not"
        )
    n, n_classes, height, width = exact.shape
    k = min(k, n_classes)
    ids = np.empty((n, k, height, width), id_type(n_classes))
    values: np.ndarray = np.empty((n, k, height, width), dtype)
    for j in range(k):
        best = exact.argmax(axis=1, keepdims=True)
        ids[:, j] = best[:, 0]
        values[:, j] = np.take_along_axis(exact, best, axis=1)[:, 0]
        np.put_along_axis(exact, best, -np.inf, axis=1)
    others = np.where(np.isneginf(exact), 0.0, exact).sum(axis=1) / max(n_classes - k, 1)
    return LabelMaps(ids, values, others.astype(dtype), n_classes)


def take_maps(maps: LabelMaps, rows: slice) -> LabelMaps:
    """Return the label maps of some pictures, without copying."""
    return LabelMaps(maps.ids[rows], maps.scores[rows], maps.rest[rows], maps.n_classes)


def check_maps(maps: LabelMaps, *, grid: tuple[int, int]) -> LabelMaps:
    """Refuse label maps of another grid (height and width in cells), or with unknown classes.

    Raises
    ------
    ValueError
        If they do not fit.

    Examples
    --------
    >>> maps = sparsify_maps(np.zeros((1, 2, 3, 4)), k=1)
    >>> check_maps(maps, grid=(3, 4)) is maps
    True
    """
    n, k, *cells = maps.ids.shape if maps.ids.ndim == 4 else (0, 0, 0, 0)
    if maps.ids.ndim != 4 or tuple(cells) != tuple(grid) or not 1 <= k <= maps.n_classes:
        raise ValueError(
            f"label maps of {grid[0]} × {grid[1]} cells were expected, shape (N, k, h, w); got ids "
            f"{maps.ids.shape}. Were they made with another model or picture size?"
        )
    if maps.scores.shape != maps.ids.shape or maps.rest.shape != (n, *grid):
        raise ValueError(
            f"label maps: scores {maps.ids.shape} and rest {(n, *grid)} were expected beside ids, "
            f"got {maps.scores.shape} and {maps.rest.shape}"
        )
    if maps.ids.size and int(maps.ids.max()) >= maps.n_classes:
        item = int(np.flatnonzero((maps.ids >= maps.n_classes).any(axis=(1, 2, 3)))[0])
        raise ValueError(
            f"label maps: classes must lie in 0…{maps.n_classes - 1}; picture {item} has "
            f"{int(maps.ids[item].max())}"
        )
    return maps


def check_boxes(boxes: np.ndarray, n: int) -> np.ndarray:
    """Refuse what is not a box (x1, y1, x2, y2) within the picture for each of n pictures.

    Raises
    ------
    ValueError
        If the shape does not fit, or a box is empty, turned round, or reaches outside.

    Examples
    --------
    >>> check_boxes(np.array([[0.0, 0.0, 1.0, 0.5]]), 1).tolist()
    [[0.0, 0.0, 1.0, 0.5]]
    """
    if boxes.shape != (n, 4):
        raise ValueError(
            f"boxes (x1, y1, x2, y2) of shape ({n}, 4) were expected, got {boxes.shape}"
        )
    low, high = boxes[:, :2], boxes[:, 2:]
    # Written so that NaN fails too.
    is_fit = ((low >= 0) & (low < high) & (high <= 1)).all(axis=1)
    if not is_fit.all():
        i = int(np.argmin(is_fit))
        raise ValueError(
            f"boxes must have 0 ≤ x1 < x2 ≤ 1 and 0 ≤ y1 < y2 ≤ 1, in shares of the picture's "
            f"sides; box {i} is {[float(x) for x in boxes[i]]}. Were pixels passed?"
        )
    return boxes


def axis_weights(n_cells: int, low: float, high: float) -> np.ndarray:
    """Return how much each cell of an axis counts within an interval, as RoIAlign has it.

    s = low · n − ½, length = (high − low) · n; m = max(1, ⌈length⌉) points s + (j + ½) length / m,
    each shared by the two cells whose centres it lies between; 0 ≤ low < high ≤ 1.

    Returns
    -------
    float64, shape (n,); sums to 1.

    References
    ----------
    He, Gkioxari, Dollár, Girshick: Mask R-CNN. ICCV 2017, section 3 (RoIAlign).

    Examples
    --------
    >>> axis_weights(4, 0.25, 0.75).tolist(), axis_weights(2, 0.0, 1.0).tolist()
    ([0.0, 0.5, 0.5, 0.0], [0.5, 0.5])
    """
    start = low * n_cells - 0.5
    length = (high * n_cells - 0.5) - start
    m = max(1, int(np.ceil(length)))
    weights = np.zeros(n_cells)
    for j in range(m):
        t = max(0.0, start + (j + 0.5) * length / m)
        cell = int(t)
        if cell >= n_cells - 1:
            weights[n_cells - 1] += 1
        else:
            weights[cell] += 1 - (t - cell)
            weights[cell + 1] += t - cell
    return weights / m


def pool(maps: LabelMaps, boxes: np.ndarray) -> np.ndarray:
    """Return the scores of a crop of every picture.

    ℓ_c = Σ_uv ω(u, v) rest(u, v) + Σ_{stored c at u, v} ω(u, v) (score − rest), with ω the product
    of both axes' weights. Boxes are (x1, y1, x2, y2) in shares of width and height, shape (N, 4).

    Returns
    -------
    Logits, float64, shape (N, K); their softmax is the crop's soft label.

    Raises
    ------
    ValueError
        If a box reaches outside its picture.

    Notes
    -----
    O(k h w + K) a crop. The definition; `labelops.nn.label_pooling` does it by RoIAlign.

    References
    ----------
    Yun et al.: Re-labeling ImageNet. CVPR 2021, section 3.2.

    Examples
    --------
    >>> left = np.array([[[9.0, 0.0]], [[0.0, 9.0]]])[None]
    >>> pool(sparsify_maps(left, k=1), np.array([[0.0, 0.0, 0.5, 1.0]])).tolist()
    [[9.0, 0.0]]
    """
    check_boxes(boxes, len(maps.ids))
    *_, height, width = maps.ids.shape
    pooled = np.empty((len(maps.ids), maps.n_classes))
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(np.float64)):
        omega = axis_weights(height, y1, y2)[:, None] * axis_weights(width, x1, x2)
        rest = maps.rest[i].astype(np.float64)
        above = (omega * (maps.scores[i].astype(np.float64) - rest)).ravel()
        pooled[i] = np.bincount(maps.ids[i].ravel(), above, minlength=maps.n_classes)
        pooled[i] += (omega * rest).sum()
    return pooled


def whole_boxes(n: int) -> np.ndarray:
    """Return the box of the whole picture n times, shape (n, 4)."""
    return np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))


def densify(maps: LabelMaps) -> np.ndarray:
    """Return all scores, those not stored as the mean of their cell; float64, shape (N, K, h, w).

    Examples
    --------
    >>> scores = np.array([3.0, 9.0, 1.0, 2.0]).reshape(1, 4, 1, 1)
    >>> densify(sparsify_maps(scores, k=2)).ravel().tolist()
    [3.0, 9.0, 1.5, 1.5]
    """
    n, _, height, width = maps.ids.shape
    dense = np.broadcast_to(
        maps.rest.astype(np.float64)[:, None], (n, maps.n_classes, height, width)
    ).copy()
    np.put_along_axis(dense, maps.ids.astype(np.int64), maps.scores.astype(np.float64), axis=1)
    return dense
