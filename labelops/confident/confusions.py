"""Which classes are taken for which."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from labelops.confident.latent import Matrix

# K classes


class Confusions(NamedTuple):
    """Ordered pairs of classes, most items first.

    Attributes
    ----------
    given, true : class ids, int32.
    n_items : estimated number of items given one that are the other, int64.
    share : the same as a share of all items given that class, float64.
    """

    given: np.ndarray
    true: np.ndarray
    n_items: np.ndarray
    share: np.ndarray


def rank_confusions(calibrated: Matrix, *, limit: int = 1000) -> Confusions:
    """Return the pairs (given, true) with the most estimated errors, `limit` at most.

    The calibrated joint is int64, shape (K, K), rows = given; dense or sparse.

    Returns
    -------
    Sorted by falling number of items, then by class ids; without pairs that have no errors.

    Examples
    --------
    >>> ranked = rank_confusions(np.array([[8, 2, 0], [3, 5, 0], [0, 0, 4]]))
    >>> ranked.given.tolist(), ranked.true.tolist(), ranked.n_items.tolist(), ranked.share.tolist()
    ([1, 0], [0, 1], [3, 2], [0.375, 0.2])
    """
    cells = sparse.coo_array(calibrated)
    given, true = cells.coords
    is_error = (given != true) & (cells.data > 0)
    given, true, n_items = given[is_error], true[is_error], cells.data[is_error]
    order = np.lexsort((true, given, -n_items))[:limit]
    given, true, n_items = given[order], true[order], n_items[order]
    return Confusions(
        given=given.astype(np.int32),
        true=true.astype(np.int32),
        n_items=n_items.astype(np.int64),
        share=n_items / np.maximum(calibrated.sum(axis=1)[given], 1),
    )
