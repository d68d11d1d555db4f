"""Which unknown cells of a batch are recalled, fold by fold; see `labelops.partial.recall`."""

# F folds, n items, K classes

from typing import NamedTuple

import numpy as np

from labelops.fast.cell_costs import Cells
from labelops.fast.jit import compiled
from labelops.fast.logistic import ONE, ZERO, sides
from labelops.multilabel.labels import UNKNOWN, YES

FAR = np.float32(-3e38)
"""Below every logit."""


@compiled()
def _mean_yes(cells, taken, kept, means):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    taken, kept = np.float32(taken), np.float32(kept)
    for f in range(len(z)):
        n, sums = ZERO, np.zeros(z.shape[2], np.float32)
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            n += inside
            for k in range(z.shape[2]):
                x = z[f, i, k] - (taken if states[i, k] == YES else ZERO)
                p, _q, _cost_yes, _cost_no = sides(x)
                sums[k] += inside * p
        if n > ZERO:
            for k in range(z.shape[2]):
                means[f, k] = kept * means[f, k] + (ONE - kept) * sums[k] / n


@compiled()
def _beyond(cells, p, recalled, n_recalled, n_given, items):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    for f in range(len(z)):
        least = np.empty(z.shape[2], np.float32)
        for k in range(z.shape[2]):
            least[k] = np.log(p[f, k] / (ONE - p[f, k]))
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            items[f] += inside
            for k in range(z.shape[2]):
                found = (states[i, k] == UNKNOWN) & (z[f, i, k] > least[k])
                recalled[f, i, k] = found
                n_recalled[f, k] += inside if found else ZERO
                n_given[f, k] += inside if states[i, k] == YES else ZERO


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


def move_means(cells: Cells, means: np.ndarray, *, taken: float = 0.0, kept: float = 0.0) -> None:
    """Move means towards mean probabilities of the items that a network is trained on, in place.

    Parameters
    ----------
    cells
        The batch.
    means
        Of each class, float32, shape (F, K); left as they are where there is no item.
    taken
        From the logits of a given yes.
    kept
        Share of the means that is left as it is.

    Examples
    --------
    >>> z, once = np.zeros((1, 3, 1), np.float32), np.ones((1, 3), np.float32)
    >>> means = np.ones((1, 1), np.float32)
    >>> move_means(Cells(z, np.full((3, 1), -1, np.int8), once), means, kept=0.75)
    >>> means.tolist()
    [[0.875]]
    """
    _mean_yes(tuple(cells), taken, kept, means)


class Beyond(NamedTuple):
    """Recalled cells of a batch.

    Attributes
    ----------
    recalled : 1 where a cell is; int8, shape (F, n, K).
    n_recalled, n_given, items : how many there are, and how many given yes, among the items that a
        network is trained on, and how many those are; float32, shapes (F, K), (F, K) and (F,).
    """

    recalled: np.ndarray
    n_recalled: np.ndarray
    n_given: np.ndarray
    items: np.ndarray


def beyond(cells: Cells, p: np.ndarray) -> Beyond:
    """Return unknown cells that are more probable than p, in (0, 1), float32, shape (F, K).

    Examples
    --------
    >>> z, once = np.array([[[1], [3]]], np.float32), np.ones((1, 2), np.float32)
    >>> found = beyond(Cells(z, np.full((2, 1), -1, np.int8), once), np.full((1, 1), 0.8, "f"))
    >>> found.recalled.tolist(), found.n_recalled.tolist(), found.n_given.tolist()
    ([[[0], [1]]], [[1.0]], [[0.0]])
    """
    found = Beyond(
        np.empty(cells.z.shape, np.int8),
        np.zeros_like(p),
        np.zeros_like(p),
        np.zeros(len(p), np.float32),
    )
    _beyond(tuple(cells), p, *found)
    return found


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
