"""Rows of different lengths in one flat array; `start` says where each begins."""

import numpy as np

# N rows, M entries, R runs


def owners(start: np.ndarray) -> np.ndarray:
    """Return the row of every entry; int64, shape (M,)."""
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


def offsets(sizes: np.ndarray) -> np.ndarray:
    """Return where rows of some sizes begin, and where the last one ends; int64, shape (N + 1,)."""
    return np.append(0, np.cumsum(sizes, dtype=np.int64))


def spans(first: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries first[r] … first[r] + sizes[r] − 1 of every run, and whose they are.

    Returns
    -------
    Runs and positions, int64, as many as all sizes together.

    Examples
    --------
    >>> [part.tolist() for part in spans(np.array([7, 0]), np.array([2, 1]))]
    [[0, 0, 1], [7, 8, 0]]
    """
    start = offsets(sizes)
    run = owners(start)
    return run, np.arange(len(run)) + (first - start[:-1])[run]
