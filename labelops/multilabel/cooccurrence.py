"""A second opinion on an item's classes from its other classes.

A beach without sea, or a guitar beside an aorta, makes one look twice whatever a model says of the
pixels. How often two classes are said of one item is counted; from an item's *present* classes,
each tells by how much it raises or lowers the odds of another one. Classes that are absent are not
heard: they are the least reliable, and where labels are missing they would argue against just what
is looked for.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

from labelops.multilabel.cells import Cells
from labelops.multilabel.labels import LabelSets, n_no, n_yes
from labelops.ragged import spans

# N items, K classes, M cells

PSEUDO_ITEMS = 4.0
"""Every pair is believed independent with the weight of so many items."""

HALF = 0.5
"""Added to either state of a class: no class is certain."""


class Pairs(NamedTuple):
    """Counts of classes and pairs of them; those of shards are added by `merge`.

    Attributes
    ----------
    n_yes, n_no : items by class and given state, int64, shape (K,).
    both : items in which both classes are present, sparse int64, shape (K, K).
    against : items in which the class of the row is present and that of the column ruled out,
        likewise; None where that is said of every class that is not present.
    """

    n_yes: np.ndarray
    n_no: np.ndarray
    both: sparse.csr_array
    against: sparse.csr_array | None


def summarize(labels: LabelSets) -> Pairs:
    """Count classes and pairs of classes.

    Notes
    -----
    Time and memory as the number of pairs of present (or ruled out) classes within items, never
    K × K; exact.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> summarize(label_sets([[0, 1], [0], [0, 1]], n_classes=3)).both.toarray().tolist()
    [[3, 2, 0], [2, 2, 0], [0, 0, 0]]
    """
    present = _indicator(labels.ids, labels.start, labels.n_classes)
    against = None
    if labels.negative_ids is not None and labels.negative_start is not None:
        ruled_out = _indicator(labels.negative_ids, labels.negative_start, labels.n_classes)
        against = sparse.csr_array(present.T @ ruled_out)
    return Pairs(n_yes(labels), n_no(labels), sparse.csr_array(present.T @ present), against)


def _indicator(ids: np.ndarray, start: np.ndarray, n_classes: int) -> sparse.csr_array:
    ones = np.ones(len(ids), np.int64)
    return sparse.csr_array((ones, ids.astype(np.int64), start), shape=(len(start) - 1, n_classes))


def merge(a: Pairs, b: Pairs) -> Pairs:
    """Add the counts of two sets of items, both with or both without classes ruled out.

    Raises
    ------
    ValueError
        If one rules out what the other leaves unknown.
    """
    if (a.against is None) != (b.against is None):
        raise ValueError(
            "merge: in one part every class that is not present is ruled out, in the other it may "
            "be unknown; say for both which classes are ruled out"
        )
    against = None if a.against is None or b.against is None else a.against + b.against
    return Pairs(a.n_yes + b.n_yes, a.n_no + b.n_no, a.both + b.both, against)


def evidence(cells: Cells, labels: LabelSets, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return what is known of each cell before its item is looked at, and what its classes add.

    prior_c = logit π_c; e_ic = Σ_{j≠c} log (n_jc + m π_c) / (n_j¬c + m (1 − π_c)) − prior_c

    over the item's present classes j, with n_jc items that have j and c, n_j¬c that have j and not
    c, and m = 4. The item itself is left out of all counts, so no label vouches for itself.

    Parameters
    ----------
    cells
        Cells with a known state, as given.
    labels
        Given classes of the block that the cells are of.
    pairs
        Counts over all items, those of the block among them.

    Returns
    -------
    prior, evidence: log-odds, float64, shape (M,); 0 evidence for an item without another class.

    Notes
    -----
    O(classes of the item) a cell. Terms are added as if classes were independent given c, so the
    sum shouts; `labelops.multilabel.opinion` finds how much of it to believe.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> labels = label_sets([[0, 1]] * 8 + [[2]] * 8 + [[0]], n_classes=3)
    >>> cell = Cells(np.array([16]), np.array([1]), np.array([False]), np.array([0.5]))
    >>> prior, log_ratio = evidence(cell, labels, summarize(labels))
    >>> prior.tolist(), log_ratio.round(3).tolist()  # log (8 + 4 / 2) / (0 + 4 / 2)
    ([0.0], [1.609])
    """
    first, last = labels.start[cells.row], labels.start[cells.row + 1]
    cell, at = spans(first, last - first)
    other = labels.ids[at].astype(np.int64)
    is_other = other != cells.class_id[cell]
    cell, other = cell[is_other], other[is_other]
    own = cells.is_given.astype(np.int64)
    yes = pairs.n_yes[cells.class_id] - own + HALF
    prior = np.log(yes / (pairs.n_no[cells.class_id] - (1 - own) + HALF))
    target = cells.class_id[cell]
    together = _at(pairs.both, other, target) - own[cell]
    if pairs.against is None:
        apart = pairs.n_yes[other] - 1 - together
    else:
        apart = _at(pairs.against, other, target) - (1 - own[cell])
    terms = _terms(together, apart, prior[cell])
    return prior, np.bincount(cell, terms, minlength=len(prior))


def _terms(together: np.ndarray, apart: np.ndarray, prior: np.ndarray) -> np.ndarray:
    share = expit(prior)
    ratio = np.log(together + PSEUDO_ITEMS * share) - np.log(apart + PSEUDO_ITEMS * (1 - share))
    return np.asarray(ratio - prior)


def most_lowered(pairs: Pairs) -> np.ndarray:
    """Return by how much a present class lowers the evidence of a ruled-out one at most.

    So much where they never come together, and the other is the most frequent one: log (n_j − 1 +
    m (1 − π)) / (m (1 − π)). float64, shape (K,).

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> most_lowered(summarize(label_sets([[0]] * 8 + [[1]] * 8, n_classes=2))).round(3).tolist()
    [1.555, 1.555]
    """
    known = pairs.n_no > 0
    share = np.max(
        (pairs.n_yes[known] + HALF) / (pairs.n_yes[known] + pairs.n_no[known]), initial=0
    )
    apart = PSEUDO_ITEMS * (1 - share)
    return np.asarray(np.log1p(np.maximum(pairs.n_yes - 1, 0) / apart))


def raising(pairs: Pairs) -> sparse.csr_array:
    """Return what a present class (row) adds to the evidence of a ruled-out one, if it raises it.

    The terms of `evidence` that are positive; there are none for classes that never come together.
    Sparse float64, shape (K, K).

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> labels = label_sets([[0, 1]] * 8 + [[2]] * 8 + [[0]], n_classes=3)
    >>> raising(summarize(labels)).toarray().round(3).tolist()
    [[0.0, 1.609, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    both = sparse.coo_array(pairs.both)
    other, target = both.coords
    differs = other != target
    other, target, together = other[differs], target[differs], both.data[differs]
    if pairs.against is None:
        apart = pairs.n_yes[other] - together
    else:
        apart = _at(pairs.against, other, target)
    # Without an item that rules the class out there is no cell to speak of.
    known = apart > 0
    other, target, together, apart = other[known], target[known], together[known], apart[known]
    prior = np.log((pairs.n_yes[target] + HALF) / (pairs.n_no[target] - 1 + HALF))
    terms = _terms(together, apart - 1, prior)
    up = terms > 0
    return sparse.csr_array((terms[up], (other[up], target[up])), shape=pairs.both.shape)


def _at(counts: sparse.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    if not len(row):
        return np.zeros(0, np.int64)
    return np.asarray(counts[row, column]).ravel()
