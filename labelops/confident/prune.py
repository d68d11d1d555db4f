"""How many items of each given class belong to each class, from the joint."""

import numpy as np

from labelops.confident.joint import round_rows

# K classes


def prune_counts(
    joint: np.ndarray, *, min_examples: int = 1, frac_noise: float = 1.0
) -> np.ndarray:
    """Return how many items of each given class belong to each class, keeping some of every class.

    The diagonal is raised to the smallest number of items a class must keep, at the cost of the
    other non-zero counts of the same given class, in equal parts; then the share of the noise that
    is wanted is taken, and the rest goes back to the diagonal.

    Parameters
    ----------
    joint
        Calibrated joint, int64, shape (K, K), rows = given.
    min_examples
        Each class keeps at least so many.
    frac_noise
        Share of the estimated errors to flag, in [0, 1].

    Returns
    -------
    int64, shape (K, K), rows = given.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> prune_counts(np.array([[8, 2], [3, 0]]), min_examples=1).tolist()
    [[8, 2], [2, 1]]
    """
    check_settings(min_examples=min_examples, frac_noise=frac_noise)
    # Rows of this matrix are true classes, as in cleanlab: its sums and roundings run along them.
    true_given = joint.T
    diagonal = np.maximum(true_given.diagonal(), min_examples)
    n_noise = np.maximum(np.count_nonzero(true_given, axis=0) - 1.0, 1.0)
    counts = np.maximum(true_given - (diagonal - true_given.diagonal()) / n_noise, 0.0)
    np.fill_diagonal(counts, diagonal)
    kept = counts * frac_noise
    np.fill_diagonal(kept, diagonal)
    np.fill_diagonal(kept, diagonal + np.sum(counts - kept, axis=0))
    return np.ascontiguousarray(round_rows(np.trunc(kept)).T)


def check_settings(*, min_examples: int, frac_noise: float) -> None:
    """Refuse settings out of range.

    Raises
    ------
    ValueError
        If one is.
    """
    if not 0 <= frac_noise <= 1:
        raise ValueError(f"prune_counts: frac_noise must lie in [0, 1], got {frac_noise}")
    if min_examples < 0:
        raise ValueError(f"prune_counts: min_examples must not be negative, got {min_examples}")
