"""Sums of mostly empty rows, with the last bit that `numpy.sum` gives of the whole rows.

`numpy.sum` adds a long row in halves, and short pieces of it in eight lanes, so that errors of
rounding stay small. Which numbers meet first depends on where they stand, zeros included. Where a
sum is rounded to an integer afterwards, its last bit decides; so what is summed without its zeros
must be summed along the same tree.
"""

import numpy as np

# E entries, S rows, n numbers in a row

PIECE = 128
"""Rows of more numbers than this are cut in two; multiples of eight, as `numpy.sum` does it."""

LANES = 8


def row_sums(
    values: np.ndarray, row: np.ndarray, at: np.ndarray, *, n_rows: int, length: int
) -> np.ndarray:
    """Sum the rows of a sparse matrix as `numpy.sum` sums those of the dense one.

    Parameters
    ----------
    values
        Entries, float64, shape (E,), in the order of rows and positions.
    row, at
        Row of each entry, and its position there, int64, shape (E,).
    n_rows
        S.
    length
        n, of every row.

    Returns
    -------
    float64, shape (S,): the bits of ``np.sum(dense_row)``.

    Notes
    -----
    O(E log n) time, however long the rows are.

    Examples
    --------
    >>> dense = np.zeros(1000)
    >>> at = np.array([3, 40, 800, 801])
    >>> dense[at] = [0.1, 1e16, -1e16, 0.3]
    >>> [total] = row_sums(dense[at], np.zeros(4, int), at, n_rows=1, length=1000)
    >>> bool(total == dense.sum())
    True
    """
    start = np.zeros(len(at), np.int64)
    size = np.full(len(at), length, np.int64)
    levels = []
    while size.size and size.max() > PIECE:
        levels.append(start)
        half = size // 2
        half -= half % LANES
        is_cut = size > PIECE
        is_right = is_cut & (at - start >= half)
        start = np.where(is_right, start + half, start)
        size = np.where(is_cut, np.where(is_right, size - half, half), size)
    first, piece = _runs(row, start)
    total = _sum_pieces(values, at - start, size, piece, len(first))
    # From the pieces back to whole rows; the left half comes first.
    for level in reversed(levels):
        own, parent = _runs(row[first], level[first])
        total = np.bincount(parent, total, minlength=len(own)).astype(np.float64)
        first = first[own]
    sums = np.zeros(n_rows)
    sums[row[first]] = total
    return sums


def _runs(row: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where runs of equal (row, start) begin, and to which run each entry belongs."""
    is_new = np.ones(len(row), bool)
    is_new[1:] = (row[1:] != row[:-1]) | (start[1:] != start[:-1])
    return np.flatnonzero(is_new), np.cumsum(is_new) - 1


def _sum_pieces(
    values: np.ndarray, offset: np.ndarray, size: np.ndarray, piece: np.ndarray, n_pieces: int
) -> np.ndarray:
    """Sum pieces: eight lanes, which are added in pairs, then what is left over at the end."""
    is_rest = (size >= LANES) & (offset >= size - size % LANES)
    lane = np.where(size < LANES, 0, offset % LANES)
    at = (piece * LANES + lane)[~is_rest]
    lanes = np.bincount(at, values[~is_rest], minlength=n_pieces * LANES).astype(np.float64)
    two = lanes.reshape(n_pieces, LANES // 2, 2).sum(axis=2)
    total = (two[:, 0] + two[:, 1]) + (two[:, 2] + two[:, 3])
    np.add.at(total, piece[is_rest], values[is_rest])
    return np.asarray(total)
