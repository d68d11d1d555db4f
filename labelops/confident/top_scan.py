"""What confident learning looks at in rows of which only the probable classes are listed.

The answers are those of `labelops.confident.scan.scan_rows` on the rows written out, in all bits.
The classes that are not listed are all alike. Where they are what decides, the order of the classes
does, as it does between any equal probabilities: the most probable class of a row whose listed ones
are all below the rest is the first one that is not listed.
"""

import numpy as np

from labelops.confident.scan import Scan
from labelops.confident.scores import margin_score, weighted_entropy
from labelops.confident.thresholds import TOLERANCE, confident_bounds
from labelops.top_rows import TopRows, largest_of

# N items, K classes, M listed probabilities


def scan_top(rows: TopRows, given: np.ndarray, thresholds: np.ndarray) -> Scan:
    """Look at every row once; see `labelops.confident.scan.scan_rows`.

    Examples
    --------
    >>> rows = TopRows(np.array([0, 1, 2]), np.array([2, 0]), np.array([0.9, 0.1]),
    ...                np.array([0.05, 0.45]), 3)
    >>> scan = scan_top(rows, np.array([2, 0]), np.full(3, 0.5))
    >>> scan.predicted.tolist(), scan.guess.tolist(), scan.p_other.tolist()
    ([2, 1], [2, -1], [0.05, 0.45])
    """
    given = given.astype(np.int64)
    row, ids, values, rest = rows.row, rows.ids, rows.values, rows.rest
    n_others = rows.n_classes - rows.n_listed
    y = given[row]
    at_given = rows.at(np.arange(len(rows)), given)
    n_left = np.bincount(row, ids < y, minlength=len(rows)).astype(np.int64)
    n_right = np.bincount(row, ids > y, minlength=len(rows)).astype(np.int64)
    low = rest.dtype.type(-np.inf)
    # The largest probability before the given class, and after it.
    left = np.maximum(
        largest_of(np.where(ids < y, values, low), rows.start),
        np.where(given > n_left, rest, low),
    )
    right = np.maximum(
        largest_of(np.where(ids > y, values, low), rows.start),
        np.where(rows.n_classes - 1 - given > n_right, rest, low),
    )
    raised = at_given + rest.dtype.type(TOLERANCE)
    top = rows.largest()
    is_top = values == top[row]
    first_listed = _first(np.where(is_top, ids, rows.n_classes), rows.start, rows.n_classes)
    is_rest_top = (n_others > 0) & (rest == top)
    predicted = np.where(is_rest_top, np.minimum(first_listed, first_unlisted(rows)), first_listed)
    return Scan(
        guess=_guesses(rows, thresholds, predicted),
        predicted=predicted.astype(np.int32),
        p_predicted=top,
        p_other=np.maximum(left, right),
        agrees=(raised > left) & (raised >= right),
    )


def _first(ids: np.ndarray, start: np.ndarray, absent: int) -> np.ndarray:
    """Return the smallest id of each run; `absent` of an empty one."""
    lowest = np.full(len(start) - 1, absent, np.int64)
    some = np.flatnonzero(np.diff(start))
    if some.size:
        lowest[some] = np.minimum.reduceat(ids, start[some])
    return lowest


def first_unlisted(rows: TopRows) -> np.ndarray:
    """Return the first class that each row does not list; int64, shape (N,), K if there is none."""
    place = np.arange(len(rows.ids)) - np.repeat(rows.start[:-1], rows.n_listed)
    return np.bincount(rows.row, rows.ids == place, minlength=len(rows)).astype(np.int64)


def _guesses(rows: TopRows, thresholds: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the class that each item confidently belongs to, or −1; int32, shape (N,)."""
    bounds = confident_bounds(thresholds, rows.dtype)
    order = np.argsort(bounds, kind="stable")
    row, ids = rows.row, rows.ids
    n = len(rows)
    is_confident = rows.values >= bounds[ids]
    n_listed = np.bincount(row, is_confident, minlength=n).astype(np.int64)
    # Classes that the rest would reach, without those that are listed.
    reached = np.searchsorted(bounds[order], rows.rest, side="right")
    is_reached = bounds[ids] <= rows.rest[row]
    n_rest = reached - np.bincount(row, is_reached, minlength=n).astype(np.int64)
    n_rest = np.where(rows.n_listed < rows.n_classes, n_rest, 0)
    only_listed = np.zeros(n, np.int64)
    np.add.at(only_listed, row[is_confident], ids[is_confident])
    # Where it is one class, it is what the sum of all that are reached has besides the listed ones.
    of_reached = np.append(0, np.cumsum(order))[reached]
    listed_reached = np.zeros(n, np.int64)
    np.add.at(listed_reached, row[is_reached], ids[is_reached])
    only = np.where(n_listed == 1, only_listed, of_reached - listed_reached)
    total = n_listed + n_rest
    return np.where(total == 0, -1, np.where(total == 1, only, predicted)).astype(np.int32)


def top_scores(
    rows: TopRows, given: np.ndarray, *, score: str, thresholds: np.ndarray | None
) -> np.ndarray:
    """Score every item; see `labelops.confident.scores.label_scores`.

    Sums over classes are rounded otherwise than those of the rows written out: by some 10⁻¹⁶.
    """
    n, n_classes = rows.shape
    items, given = np.arange(n), given.astype(np.int64)
    row, values = rows.row, rows.values.astype(np.float64)
    rest, n_others = rows.rest.astype(np.float64), n_classes - rows.n_listed
    p_given = rows.at(items, given).astype(np.float64)
    if score == "confidence_weighted_entropy":
        if thresholds is not None:
            raise ValueError("label_scores: the entropy score is not defined on adjusted rows")
        entropies = np.bincount(row, _terms(values), minlength=n) + n_others * _terms(rest)
        return weighted_entropy(entropies, p_given, n_classes)
    if thresholds is None:
        other = scan_top(rows, given, np.full(n_classes, 2.0)).p_other
        return p_given if score == "self_confidence" else margin_score(p_given, other)
    top = float(thresholds.max())
    listed = values - thresholds[rows.ids] + top
    of_rest = thresholds.sum() - np.bincount(row, thresholds[rows.ids], minlength=n)
    total = np.bincount(row, listed, minlength=n) + n_others * (rest + top) - of_rest
    p_given = (p_given - thresholds[given] + top) / total
    if score == "self_confidence":
        return np.asarray(p_given)
    is_other = rows.ids != given[row]
    other = largest_of(np.where(is_other, listed, -np.inf), rows.start)
    lowest = _lowest_unlisted(rows, given, thresholds)
    other = np.maximum(other, np.where(np.isfinite(lowest), rest - lowest + top, -np.inf))
    return margin_score(p_given, other / total)


def _terms(p: np.ndarray) -> np.ndarray:
    return np.asarray(-p * np.log(np.where(p > 0, p, 1.0)))


def _lowest_unlisted(rows: TopRows, given: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the least threshold of a class that is neither listed nor given; ∞ without one."""
    order = np.argsort(thresholds, kind="stable")
    lowest = np.full(len(rows), np.inf)
    open_rows = np.arange(len(rows))
    for class_id in order.tolist():
        if not open_rows.size:
            break
        asked = np.full(len(open_rows), class_id)
        _, is_listed = rows.find(open_rows, asked)
        free = ~is_listed & (given[open_rows] != class_id)
        lowest[open_rows[free]] = thresholds[class_id]
        open_rows = open_rows[~free]
    return lowest
