"""The joint counts of given and true classes."""

import numpy as np

# K classes; joint_KK has rows = given, columns = true

TINY = 1e-100
"""Keeps a division by an empty sum at zero."""


def count(given: np.ndarray, guess: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Count items by given class and confident guess; those without a guess (−1) are left out.

    Returns
    -------
    int64, shape (K, K). Counts of shards are added.
    """
    has_guess = guess >= 0
    cell = given[has_guess].astype(np.int64) * n_classes + guess[has_guess]
    counts = np.bincount(cell, minlength=n_classes * n_classes)
    return counts.astype(np.int64).reshape(n_classes, n_classes)


def confident_joint(counts: np.ndarray) -> np.ndarray:
    """Return the confident joint: the counts, with at least one right label for every class.

    Examples
    --------
    >>> confident_joint(np.array([[0, 3], [1, 5]])).tolist()
    [[1, 3], [1, 5]]
    """
    joint = counts.copy()
    np.fill_diagonal(joint, np.maximum(counts.diagonal(), 1))
    return joint


def calibrate(joint: np.ndarray, n_given: np.ndarray) -> np.ndarray:
    """Scale the confident joint so that it counts all items: rows sum to the given classes' sizes.

    Parameters
    ----------
    joint
        Confident joint, shape (K, K), rows = given.
    n_given
        Number of items given each class, int64, shape (K,).

    Returns
    -------
    int64, shape (K, K).

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning. JAIR 70, 2021, equation 3.

    Examples
    --------
    >>> calibrate(np.array([[4, 1], [0, 5]]), np.array([10, 20])).tolist()
    [[8, 2], [0, 20]]
    """
    # Operations and their order, which for the sum is that of the columns, are those of cleanlab: a
    # last bit can move a half to either side.
    joint = np.asfortranarray(joint)
    scaled = (joint.T / np.maximum(joint.sum(axis=1), TINY) * n_given).T
    scaled = scaled / np.maximum(np.sum(scaled), TINY) * int(n_given.sum())
    return round_rows(scaled)


def round_rows(values: np.ndarray) -> np.ndarray:
    """Round to integers so that every row keeps its rounded sum.

    Each value is rounded; what a row is short of goes to its entries with the largest remainder,
    what it has too much is taken from those with the smallest.

    Parameters
    ----------
    values
        Non-negative, shape (R, C).

    Returns
    -------
    int64, shape (R, C).

    Notes
    -----
    Which of several equal remainders comes first is what ``numpy.argsort`` says, as in cleanlab. It
    depends on the machine's vector instructions, and on nothing else.

    Examples
    --------
    >>> round_rows(np.array([[1.4, 1.3, 1.3], [0.6, 0.7, 0.8]])).tolist()
    [[2, 1, 1], [0, 1, 1]]
    """
    rounded = np.ascontiguousarray(values.round())
    wanted = np.array([np.sum(row) for row in values]).round()
    for r in np.flatnonzero(rounded.sum(axis=1) != wanted):
        settle_row(values[r], rounded[r], target=wanted[r])
    return rounded.astype(np.int64)


def settle_row(row: np.ndarray, rounded: np.ndarray, *, target: float) -> None:
    """Change rounded values of a row, in place, until they sum to the target."""
    while (missing := int(target - rounded.sum())) != 0:
        order = np.argsort(row - rounded)
        if missing > 0:
            order = order[::-1]
        rounded[order[: abs(missing)]] += np.sign(missing)
