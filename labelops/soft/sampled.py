"""Soft labels of which a few classes are drawn, so that they are right on average.

The most probable classes are the cheapest label to store and a biased one: what trains on it never
hears of the others. Drawn by their probability, a dozen of them are wrong for each item and right
on average over items and views, and so is every gradient, which is linear in the label. That is
not yet a better student: of few items with one view each it learns the draws by heart, and the most
probable classes teach it better (`benchmarks/soft_labels.py`); many views were not measured.
"""

# V views, K classes, n draws a view, M stored classes

from typing import NamedTuple

import numpy as np

from labelops.hashing import hash_integers
from labelops.ragged import offsets, owners
from labelops.soft.labels import id_type

MOST_DRAWS = 255
"""A count is a byte."""


class DrawnLabels(NamedTuple):
    """Classes drawn for V views.

    Attributes
    ----------
    ids : classes, view after view, ascending; uint16 up to 65 536 classes, else uint32.
    counts : how often each was drawn, uint8; they sum to n.
    offsets : view i owns ``ids[offsets[i]:offsets[i + 1]]``; int64, shape (V + 1,).
    n_draws : n.
    n_classes : K.
    """

    ids: np.ndarray
    counts: np.ndarray
    offsets: np.ndarray
    n_draws: int
    n_classes: int


def draw_classes(probs: np.ndarray, hashes: np.ndarray, *, n_draws: int = 12) -> DrawnLabels:
    """Draw classes of every view, each as often as it is probable, on average exactly.

    With one number u of the view's hash, uniform in [0, 1), class c is drawn as often as points
    (u + j) / n, j = 0 … n − 1, lie between the cumulated probabilities before it and with it
    (systematic sampling). So it is drawn n p_c times on average, never one more or less than that.

    Parameters
    ----------
    probs
        Shape (V, K); rows sum to one.
    hashes
        Of item and view, uint64, shape (V,): the same hash draws the same.
    n_draws
        n, at most 255.

    Raises
    ------
    ValueError
        If n is not in 1 … 255, or shapes do not fit.

    References
    ----------
    Anshumann et al.: Sparse logit sampling: accelerating knowledge distillation in LLMs. ACL 2025,
    section 4, where draws are independent; with systematic ones the same mean has less variance.

    Examples
    --------
    >>> drawn = draw_classes(np.array([[0.5, 0.3, 0.2]]), np.array([0], np.uint64), n_draws=10)
    >>> drawn.ids.tolist(), drawn.counts.tolist()
    ([0, 1, 2], [5, 3, 2])
    """
    if not 1 <= n_draws <= MOST_DRAWS or probs.ndim != 2 or hashes.shape != (len(probs),):
        raise ValueError(
            f"draw_classes: probs of shape (V, K), as many hashes, and 1 to {MOST_DRAWS} draws "
            f"were expected, got {probs.shape}, {hashes.shape} and {n_draws}"
        )
    until = np.cumsum(probs, axis=1, dtype=np.float64)
    until /= until[:, -1:]
    mixed = hash_integers(hashes.astype(np.uint64).view(np.int64))
    u = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    drawn = np.clip(np.ceil(n_draws * until - u[:, None]), 0, n_draws).astype(np.int64)
    drawn[:, -1] = n_draws
    counts = np.diff(drawn, axis=1, prepend=0)
    is_drawn = counts > 0
    return DrawnLabels(
        np.nonzero(is_drawn)[1].astype(id_type(probs.shape[1])),
        counts[is_drawn].astype(np.uint8),
        offsets(is_drawn.sum(axis=1)),
        n_draws,
        probs.shape[1],
    )


def read_drawn(drawn: DrawnLabels) -> np.ndarray:
    """Return dense labels, counts over draws; float64, shape (V, K), rows sum to one.

    Examples
    --------
    >>> drawn = draw_classes(np.array([[0.5, 0.5, 0.0]]), np.array([0], np.uint64), n_draws=2)
    >>> read_drawn(drawn).tolist()
    [[0.5, 0.5, 0.0]]
    """
    dense = np.zeros((len(drawn.offsets) - 1, drawn.n_classes))
    dense[owners(drawn.offsets), drawn.ids] = drawn.counts / drawn.n_draws
    return dense
