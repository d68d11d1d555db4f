"""Whether the columns of predicted probabilities stand for the classes in another order."""

import numpy as np
from scipy.optimize import linear_sum_assignment

ITEMS_A_CLASS = 20
"""With fewer, some order fits chance: the best of all orders is chosen from the data."""

MOST_CLASSES = 2000
"""Assigning takes the cube of the number of classes: about a second for so many."""


def likelier_order(given: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray | None:
    """Return an order of the columns under which far more labels agree, if there is one.

    An order that is not the one in which classes are numbered makes predictions disagree in a
    regular way: nearly all items of class k are predicted as one other class. The best order is the
    assignment of largest agreement (Kuhn 1955). It is likelier if at least half of all labels agree
    under it, and more than twice as many as do as things are; label noise does not do that unless
    it swaps whole classes.

    Parameters
    ----------
    given, predicted
        Shape (N,), ids in 0..K−1: the given class, and the column with the largest probability.
    n_classes
        K.

    Returns
    -------
    Shape (K,): at k the column that stands for class k. None if the present order is good enough,
    or there are too few items, or too many classes, to tell.

    Examples
    --------
    >>> given = np.repeat([0, 1, 2], 40)
    >>> likelier_order(given, (given + 1) % 3, 3).tolist()
    [1, 2, 0]
    >>> likelier_order(given, given, 3) is None
    True
    """
    n = given.size
    if n_classes > MOST_CLASSES or n < ITEMS_A_CLASS * n_classes:
        return None
    agreed = int(np.count_nonzero(given == predicted))
    if 2 * agreed >= n:
        return None
    pair = given.astype(np.int64) * n_classes + predicted
    counts = np.bincount(pair, minlength=n_classes**2).reshape(n_classes, n_classes)
    # A class without items keeps its column: of equal sums the one nearest to the present order.
    weight = counts.astype(np.float64) + 0.5 / n_classes * np.eye(n_classes)
    _, order = linear_sum_assignment(weight, maximize=True)
    best = int(counts[np.arange(n_classes), order].sum())
    # Four standard errors beyond one half: of few items some order always fits.
    if best < n / 2 + 2 * np.sqrt(n) or best <= 2 * agreed:
        return None
    return np.asarray(order)
