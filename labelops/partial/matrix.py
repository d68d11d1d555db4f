"""Positives that are missing in a table of labels: items by classes, or users by items.

What nobody said yes to may be a no, or a yes that was passed over. Two tables of low rank are
learned together: how probable a true yes is (s), and how probable it is that a true yes is passed
over (g); P(given) = (1 − g) s. A cell that is not given is then a missing positive with probability
g s / (1 − s + g s).

**Never report g as a calibrated noise rate.** The data show only the product (1 − g) s: a class
that is given to a tenth of the items may be true of a tenth and never overlooked, or be true of a
half and overlooked four times in five; both make exactly the same tables. What is found depends on
where the search begins (g near 0), on the penalties and on the rank. Nor are the updates those of a
likelihood: where a cell is given with the share a, they settle at g = 1 − a, whatever is true, at
an s with (1 − g) s ≠ a, and at odds of being missing of a² + (1 − a)², the same for a and 1 − a.
With the paper's penalty of flips that end comes near on small tables, and the score is worse than
s. Held ten times as strongly, g is about ½ everywhere: the score then orders cells as s does, and
what differs from g = 0 is that a cell which is not given is half believed. That finds more in made
tables of rank 2, and mostly less in real ones (`benchmarks/matrix.py`, also beside what an item's
other classes say).
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit

from labelops.ragged import offsets

# M rows, N columns, K rank, C cells

PAPER_BATCH = 5000
"""Positives in a batch of the paper; penalties are for so many."""

MEETINGS = 3.3
"""Positives a batch for each row or column, whichever are fewer, as in the paper's first set."""

LARGEST = 1e3
"""A factor beyond it has run away."""

FLIP_START = 5.0
"""Flips begin at logits of about −25/4: as good as none."""


class Training(NamedTuple):
    """How factors are found; defaults are the paper's for its first data set, but for flips.

    Which has 1,435 rows and 1,522 columns; smaller tables want a lower rank.

    Attributes
    ----------
    rank : K of both tables.
    flips : whether to look for positives that were passed over; otherwise g = 0 (BPO).
    n_epochs : how often all positives are gone through.
    n_unvoted : cells drawn for each positive, from those of its row that are not given.
    batch : positives a step. None: 3.3 for each row or column, whichever are fewer, at most 5000.
        Gradients are summed, so where a column is met in many cells at once a step is too long.
    rate, decay : length of a step, and what it is multiplied by after every epoch.
    penalty, flip_penalty : of the factors of s and of g, for 5000 positives; the paper's
        are 1 and 5.
    """

    rank: int = 50
    flips: bool = True
    n_epochs: int = 200
    n_unvoted: int = 4
    batch: int | None = None
    rate: float = 0.05
    decay: float = 0.99
    penalty: float = 1.0
    flip_penalty: float = 50.0


class Table(NamedTuple):
    """Factors of a table of logits, float64, shapes (M, K) and (N, K)."""

    rows: np.ndarray
    columns: np.ndarray

    def logits(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the logits of some cells, shape (C,)."""
        return np.asarray((self.rows[row] * self.columns[column]).sum(axis=1))


class Factors(NamedTuple):
    """What was learned.

    Attributes
    ----------
    preference : logits of s.
    flip : logits of g; None where g = 0.
    """

    preference: Table
    flip: Table | None


def gradients(
    logit: np.ndarray, flip_logit: np.ndarray, is_positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the direction in which each cell's two logits go, that of s and that of g.

    Given: (1 − g)(1 − s) and −g s. Not given: g (1 − s) − s and (1 − g) s. A cell that is not given
    counts as a no, and with the weight g as a yes; and g rises where s is high. With g = 0 the
    first is that of a logistic regression (BPO).

    Parameters
    ----------
    logit, flip_logit
        Of s and g; −inf is g = 0. Shape (C,).
    is_positive
        Whether the cell is given, shape (C,).

    References
    ----------
    Yu, Qin: Sampler design for implicit feedback data by noisy-label robust learning. SIGIR 2020
    (NBPO).

    Examples
    --------
    >>> logits = np.array([0.7, 0.7]), np.array([-1.3, -1.3])
    >>> [part.round(4).tolist() for part in gradients(*logits, np.array([True, False]))]
    [[0.2608, -0.5971], [-0.1431, 0.5251]]
    """
    s, g, no, kept = expit(logit), expit(flip_logit), expit(-logit), expit(-flip_logit)
    by_logit = np.where(is_positive, kept * no, g * no - s)
    return np.asarray(by_logit), np.asarray(np.where(is_positive, -g * s, kept * s))


def p_missing(logit: np.ndarray, flip_logit: np.ndarray) -> np.ndarray:
    """Return g s / (1 − s + g s), P(true | not given) of the model, in [0, 1]; shape (C,).

    Examples
    --------
    >>> p_missing(np.zeros(3), np.array([-np.inf, 0.0, np.inf])).round(3).tolist()
    [0.0, 0.333, 0.5]
    """
    # Its odds are g s / (1 − s): no digits are lost where s is close to 1.
    return np.asarray(expit(logit + log_expit(flip_logit)))


class _Unvoted:
    """Cells that are not given, found without a list of them."""

    def __init__(self, row: np.ndarray, column: np.ndarray, *, n_rows: int, n_columns: int) -> None:
        """Take cells that are given, by row and then column."""
        sizes = np.bincount(row, minlength=n_rows)
        self.n_columns, self.free, self.start = n_columns, n_columns - sizes, offsets(sizes)
        # How many are not given before each one that is; ascending.
        before = column - (np.arange(len(row)) - self.start[row])
        self.key = row * n_columns + before

    def columns(self, row: np.ndarray, nth: np.ndarray) -> np.ndarray:
        """Return the nth column, from 0, that is not given in each row."""
        passed = np.searchsorted(self.key, row * self.n_columns + nth, side="right")
        return np.asarray(nth + passed - self.start[row])


def _started(
    rng: np.random.Generator, *, n_rows: int, n_columns: int, rank: int
) -> tuple[Table, Table]:
    """Return factors of preference, and of flips that are as good as none."""
    u, v, p, q = (
        rng.random((n, rank)) / np.sqrt(rank) for n in (n_rows, n_columns, n_rows, n_columns)
    )
    return Table(u, v), Table(FLIP_START * p, -FLIP_START * q)


def _moved(table: Table, slopes: sparse.csr_array, *, rate: float, penalty: float) -> Table:
    """Return factors after a step, both moved from where they were before it."""
    rows = table.rows + rate * (slopes @ table.columns - penalty * table.rows)
    return Table(rows, table.columns + rate * (slopes.T @ table.rows - penalty * table.columns))


def fit_matrix(
    row: np.ndarray,
    column: np.ndarray,
    *,
    n_rows: int,
    n_columns: int,
    training: Training | None = None,
    seed: int = 0,
) -> Factors:
    """Learn which cells are truly positive, and which of those are passed over.

    Parameters
    ----------
    row, column
        Cells that are given, each once, in any order; ids, shape (C,).
    n_rows, n_columns
        M, N.
    training
        Settings; None for the defaults.
    seed
        Of the start, the order of positives, and the cells drawn.

    Raises
    ------
    ValueError
        If an id is out of range, a cell is given twice, or steps are so long that they run away.

    Notes
    -----
    O(K (cells drawn + M + N)) a batch; memory as all factors and the cells of one batch. The
    same bits for the same cells in any order. Rows in which every cell is given are not learned
    from: nothing can be drawn beside them.

    References
    ----------
    Yu, Qin: Sampler design for implicit feedback data by noisy-label robust learning. SIGIR 2020
    (NBPO). Here the penalty of a batch grows with its size, and no logit is cut off at ±10.

    Examples
    --------
    >>> row, column = np.divmod(np.flatnonzero(np.kron(np.eye(2), np.ones((4, 4)))), 8)
    >>> some = np.arange(len(row)) != 5  # of row 1, column 1
    >>> training = Training(rank=2, rate=0.1)
    >>> found = fit_matrix(row[some], column[some], n_rows=8, n_columns=8, training=training)
    >>> score = missing_scores(found, np.full(5, 1), np.array([1, 4, 5, 6, 7]))
    >>> int(score.argmax())
    0
    """
    training = training or Training()
    cell = _checked(row, column, n_rows=n_rows, n_columns=n_columns)
    row, column = np.divmod(cell, max(n_columns, 1))
    unvoted = _Unvoted(row, column, n_rows=n_rows, n_columns=n_columns)
    learned = unvoted.free[row] > 0
    row, column = row[learned], column[learned]
    rng = np.random.default_rng(seed)
    preference, flip = _started(rng, n_rows=n_rows, n_columns=n_columns, rank=training.rank)
    size = training.batch or _batch(n_rows, n_columns)
    rate = training.rate
    for _ in range(training.n_epochs):
        order = rng.permutation(len(row))
        for first in range(0, len(order), size):
            part = order[first : first + size]
            share = len(part) / PAPER_BATCH
            drawn = np.repeat(row[part], training.n_unvoted)
            nth = rng.integers(0, unvoted.free[drawn])
            rows = np.concatenate([row[part], drawn])
            columns = np.concatenate([column[part], unvoted.columns(drawn, nth)])
            is_positive = np.arange(len(rows)) < len(part)
            by_logit, by_flip = gradients(
                preference.logits(rows, columns),
                flip.logits(rows, columns) if training.flips else np.full(len(rows), -np.inf),
                is_positive,
            )
            # A positive counts once for every cell drawn beside it.
            weight = np.where(is_positive, float(training.n_unvoted), 1.0)
            shape = (n_rows, n_columns)
            slopes = sparse.csr_array((weight * by_logit, (rows, columns)), shape=shape)
            penalty = training.penalty * share
            preference = _moved(preference, slopes, rate=rate, penalty=penalty)
            if training.flips:
                slopes = sparse.csr_array((weight * by_flip, (rows, columns)), shape=shape)
                penalty = training.flip_penalty * share
                flip = _moved(flip, slopes, rate=rate, penalty=penalty)
        rate *= training.decay
    factors = Factors(preference, flip if training.flips else None)
    parts = [part for table in factors if table is not None for part in table]
    if not all((np.abs(part) <= LARGEST).all() for part in parts):
        raise ValueError(
            f"fit_matrix: steps of {training.rate:g} with {size} positives a batch run away; take "
            "a lower rate or smaller batches"
        )
    return factors


def _batch(n_rows: int, n_columns: int) -> int:
    return int(np.clip(MEETINGS * min(n_rows, n_columns), 1, PAPER_BATCH))


def _checked(row: np.ndarray, column: np.ndarray, *, n_rows: int, n_columns: int) -> np.ndarray:
    """Return cells as row · N + column, ascending; int64."""
    row, column = row.astype(np.int64), column.astype(np.int64)
    for name, ids, n in (("rows", row, n_rows), ("columns", column, n_columns)):
        outside = (ids < 0) | (ids >= n)
        if outside.any():
            raise ValueError(f"fit_matrix: {name} must be from 0 to {n - 1}, got {ids[outside][0]}")
    cell = np.sort(row * n_columns + column)
    twice = cell[1:][cell[1:] == cell[:-1]]
    if len(twice):
        raise ValueError(
            f"fit_matrix: every cell must be given once; row {twice[0] // n_columns} has column "
            f"{twice[0] % n_columns} twice"
        )
    return cell


def missing_scores(factors: Factors, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return how much each cell that is not given looks like a positive that was passed over.

    g s / (1 − s + g s); without flips s itself. In [0, 1], shape (C,); an order, no probability,
    and where flips are learned from little data a worse one than `factors.preference.logits`.
    """
    logit = factors.preference.logits(row, column)
    if factors.flip is None:
        return np.asarray(expit(logit))
    return p_missing(logit, factors.flip.logits(row, column))
