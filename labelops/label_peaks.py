"""How sure label maps are of each class, and in which cell.

The mean over a whole picture drowns what is small; the surest cell does not. Whether a cell has one
class or any number of them is a property of the classifier: softmax over its classes, or a logistic
function of each.
"""

import numpy as np
from scipy.special import expit, softmax

from labelops.label_maps import LabelMaps

# N pictures, K classes, k kept, h×w cells


def cell_probs(maps: LabelMaps) -> np.ndarray:
    """Return the softmax of every cell at its stored classes, float64, shape (N, k, h, w).

    Each class that is not stored stands at the mean score of those.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> scores = np.log([1.0, 7.0, 1.0, 1.0]).reshape(1, 4, 1, 1)
    >>> cell_probs(sparsify_maps(scores, k=1, dtype=np.float64)).round(3).item()
    0.7
    """
    return _softmax_with_rest(maps)[:, :-1]


def binary_cell_probs(maps: LabelMaps) -> np.ndarray:
    """Return the logistic function of every cell's stored scores, float64, shape (N, k, h, w).

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> binary_cell_probs(sparsify_maps(np.zeros((1, 2, 1, 1)), k=1)).item()
    0.5
    """
    return np.asarray(expit(maps.scores.astype(np.float64)))


def _softmax_with_rest(maps: LabelMaps) -> np.ndarray:
    """Return the softmax at the stored classes and, last, that of all others together."""
    # The others as one more class with their whole weight, so that nothing is K wide.
    others = max(maps.n_classes - maps.ids.shape[1], 0)
    rest = maps.rest.astype(np.float64)[:, None]
    logits = np.concatenate([maps.scores.astype(np.float64), rest], axis=1)
    if others:
        logits[:, -1] += np.log(others)
    else:
        logits[:, -1] = -np.inf
    return np.asarray(softmax(logits, axis=1))


def peaks(maps: LabelMaps) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure the surest cell of a picture is of each class, and which cell that is.

    Softmax within every cell (`cell_probs`); then the largest over cells.

    Returns
    -------
    Probabilities, float64, shape (N, K), and cells, row · w + column, int64, shape (N, K); −1 for
    classes that no cell stores, whose probability is that of the rest.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> left = np.array([[[9.0, 0.0]], [[0.0, 9.0]], [[0.0, 0.0]]])[None]
    >>> sure, cell = peaks(sparsify_maps(left, k=1))
    >>> sure.round(3).tolist(), cell.tolist()
    ([[1.0, 1.0, 0.0]], [[0, 1, -1]])
    """
    probs = _softmax_with_rest(maps)
    others = max(maps.n_classes - maps.ids.shape[1], 1)
    each_other = (probs[:, -1] / others).max(axis=(1, 2), initial=0.0)
    return _largest(maps, probs[:, :-1], each_other)


def binary_peaks(maps: LabelMaps) -> tuple[np.ndarray, np.ndarray]:
    """Return what `peaks` does, of a classifier that judges every class by itself.

    The logistic function of the largest score; for classes that no cell stores, that of the largest
    mean of the rest.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> both = np.array([[[9.0, 0.0]], [[9.0, 0.0]], [[0.0, 0.0]]])[None]
    >>> sure, cell = binary_peaks(sparsify_maps(both, k=2))
    >>> sure.round(3).tolist(), cell.tolist()
    ([[1.0, 1.0, 0.5]], [[0, 0, -1]])
    """
    each_other = expit(maps.rest.astype(np.float64).max(axis=(1, 2), initial=-np.inf))
    return _largest(maps, binary_cell_probs(maps), each_other)


def _largest(
    maps: LabelMaps, probs: np.ndarray, each_other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest probability of each class and its cell; of equals the first cell."""
    n, k, height, width = maps.ids.shape
    sure = np.repeat(each_other[:, None], maps.n_classes, axis=1)
    cell = np.full((n, maps.n_classes), -1)
    at = np.arange(height * width)
    for i in range(n):
        ids, values = maps.ids[i].reshape(k, -1), probs[i].reshape(k, -1)
        # Of equals the first cell is kept: written last.
        order = np.lexsort((-np.tile(at, k), values.ravel()))
        sure[i, ids.ravel()[order]] = values.ravel()[order]
        cell[i, ids.ravel()[order]] = np.tile(at, k)[order]
    return sure, cell


def class_map(maps: LabelMaps, probs: np.ndarray, class_id: int) -> np.ndarray:
    """Return where in each picture one class is seen: its probability by cell, 0 if not stored.

    Those of the stored classes are from `cell_probs` or `binary_cell_probs`.

    Returns
    -------
    Shape (N, h, w).

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> maps = sparsify_maps(np.array([[[9.0, 0.0]], [[0.0, 9.0]]])[None], k=1)
    >>> class_map(maps, cell_probs(maps), 1).round(3).tolist()
    [[[0.0, 1.0]]]
    """
    return np.asarray(np.where(maps.ids == class_id, probs, 0.0).sum(axis=1))
