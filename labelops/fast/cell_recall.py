"""Which unknown cells of a batch are recalled, fold by fold; see `labelops.partial.recall`."""

# F folds, n items, K classes

import numpy as np

from labelops.fast.cell_costs import Cells
from labelops.fast.jit import compiled
from labelops.fast.logistic import ONE, ZERO, sides
from labelops.multilabel.labels import UNKNOWN, YES

FAR = np.float32(-3e38)
"""Below every logit."""


@compiled()
def _mean_yes(cells, taken, mean):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    for f in range(len(z)):
        n = ZERO
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            n += inside
            for k in range(z.shape[2]):
                x = z[f, i, k] - (taken if states[i, k] == YES else ZERO)
                p, _q, _cost_yes, _cost_no = sides(x)
                mean[f, k] += inside * p
        for k in range(z.shape[2]):
            mean[f, k] /= max(n, ONE)


@compiled()
def _beyond(cells, least, recalled, counts):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    for f in range(len(z)):
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            for k in range(z.shape[2]):
                found = (states[i, k] == UNKNOWN) & (z[f, i, k] > least[f, k])
                recalled[f, i, k] = found
                counts[f, k] += inside if found else ZERO


@compiled()
def _lowered(cells, before, far, out):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    for f in range(len(z)):
        for i in range(len(states)):
            inside = weight[f, i] > ZERO
            for k in range(z.shape[2]):
                is_free = (states[i, k] == UNKNOWN) & (before[f, i, k] == 0) & inside
                out[f, i, k] = z[f, i, k] if is_free else far


@compiled()
def _at_least(lowered, least, far, n, recalled):  # type: ignore[no-untyped-def]
    for f in range(len(lowered)):
        values, mask, bound = lowered[f].ravel(), recalled[f].ravel(), least[f]
        count = 0
        for j in range(len(values)):
            found = (values[j] >= bound) & (values[j] > far)
            mask[j] = found
            count += found
        j = len(values) - 1
        # Of ties, the first.
        while count > n:
            if values[j] == bound:
                mask[j] = 0
                count -= 1
            j -= 1


def mean_yes(cells: Cells, *, taken: float = 0.0) -> np.ndarray:
    """Return mean probabilities of the classes over the items that a network is trained on.

    Parameters
    ----------
    cells
        The batch.
    taken
        From the logits of a given yes.

    Returns
    -------
    float32, shape (F, K); 0 where there is no item.

    Examples
    --------
    >>> z, once = np.zeros((1, 3, 1), np.float32), np.ones((1, 3), np.float32)
    >>> mean_yes(Cells(z, np.full((3, 1), -1, np.int8), once)).tolist()
    [[0.5]]
    """
    mean = np.zeros((len(cells.z), cells.z.shape[2]), np.float32)
    _mean_yes(tuple(cells), np.float32(taken), mean)
    return mean


def beyond(cells: Cells, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unknown cells with a logit of more than `least`, float32, shape (F, K).

    Returns
    -------
    1 where a cell is one of them, int8, shape (F, n, K); and how many there are of each class among
    the items that a network is trained on, float32, shape (F, K).

    Examples
    --------
    >>> z, once = np.array([[[1], [3]]], np.float32), np.ones((1, 2), np.float32)
    >>> cells = Cells(z, np.full((2, 1), -1, np.int8), once)
    >>> [found.tolist() for found in beyond(cells, np.array([[2]], np.float32))]
    [[[[0], [1]]], [[1.0]]]
    """
    recalled, counts = np.empty(cells.z.shape, np.int8), np.zeros(least.shape, np.float32)
    _beyond(tuple(cells), least, recalled, counts)
    return recalled, counts


def largest_losses(cells: Cells, n: int, before: np.ndarray | None = None) -> np.ndarray:
    """Return which n unknown cells of each fold would cost most as a no; int8, shape (F, n, K).

    Of the items that a fold's network is trained on; all if there are fewer, of ties the first.

    Parameters
    ----------
    cells
        The batch.
    n
        How many.
    before
        1 where a cell is recalled already, which is not again; int8, shape (F, n, K).

    Notes
    -----
    numpy selects without a branch for each cell; `torch.topk` took ten times as long.

    Examples
    --------
    >>> z, once = np.array([[[1], [3], [3]]], np.float32), np.ones((1, 3), np.float32)
    >>> largest_losses(Cells(z, np.full((3, 1), -1, np.int8), once), 1).tolist()
    [[[0], [1], [0]]]
    """
    recalled = np.zeros(cells.z.shape, np.int8)
    n = min(n, cells.states.size)
    if n and len(cells.z):
        lowered = np.empty_like(cells.z)
        _lowered(tuple(cells), recalled if before is None else before, FAR, lowered)
        place = cells.states.size - n
        least = np.partition(lowered.reshape(len(lowered), -1), place, axis=1)[:, place]
        _at_least(lowered, least.copy(), FAR, n, recalled)
    return recalled
