"""Hard labels that keep the counts."""

# N items, B bags

import numpy as np


def top_of_bags(
    beliefs: np.ndarray, log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Label the k_b items of each bag that are most believed to be positive.

    Of equal beliefs the larger log-odds come first, then the earlier item; so there are always just
    k_b, which comparing with the k-th largest value would not keep to.

    Parameters
    ----------
    beliefs, log_odds
        Of `labelops.proportions.propagate.propagate`, ordered by bag, shape (N,).
    start
        Where bags begin, shape (B + 1,).
    positives
        k_b, integers from 0 to the size of the bag, shape (B,).

    Returns
    -------
    bool, shape (N,).

    Raises
    ------
    ValueError
        If a count is not one of its bag.

    Examples
    --------
    >>> b, q = np.array([0.5, 0.5, 0.5, 0.9]), np.array([0.0, 1.0, 0.0, 0.0])
    >>> top_of_bags(b, q, np.array([0, 3, 4]), np.array([2, 0])).tolist()
    [True, True, False, False]
    """
    sizes = np.diff(start)
    wrong = np.flatnonzero((positives < 0) | (positives > sizes))
    if len(wrong):
        b = wrong[0]
        raise ValueError(f"top_of_bags: bag {b} of {sizes[b]} items cannot have {positives[b]}")
    bag_of_item = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort([-log_odds, -beliefs, bag_of_item])
    rank = np.arange(len(beliefs)) - start[bag_of_item]
    is_positive = np.empty(len(beliefs), bool)
    is_positive[order] = rank < positives[bag_of_item]
    return is_positive
