"""How often classes that cutoffs find are there: a probability for each, and a check of it.

A score that a class had to reach is no probability: the surest cell of a picture is the largest of
many. Cells of which the truth is known bring it to one, class by class, and those that took no part
in it say what it is worth.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from labelops.multilabel.cutoffs import choose_cutoffs, sets_from
from labelops.multilabel.labels import NO, UNKNOWN, YES, from_states
from labelops.multilabel.opinion import model_log_odds
from labelops.multilabel.scaling import Scaling, fit_scaling, scaled

# N items, K classes, M cells, B bands

FOLDS = 5

WEAK = 0.5
"""Prior cells of what all classes have in common: scores may lie on any scale."""


def fit_probability(scores: np.ndarray, table: np.ndarray, counted: np.ndarray) -> Scaling:
    """Fit how probable it is that a class is there, given its score in (0, 1).

    P(yes | s) = σ(a_c log(s / (1 − s)) + b_c), where a_c and b_c are held to those of all classes
    together (`labelops.multilabel.scaling`), and these hardly to anything.

    Parameters
    ----------
    scores
        In [0, 1], shape (N, K).
    table
        1 (yes), 0 (no) and −1 (unknown), shape (N, K).
    counted
        Which cells to learn from; those with an unknown state never count. Bool, shape (N, K).

    Examples
    --------
    >>> scores = np.full((4000, 1), 0.9)
    >>> table = (np.arange(4000) % 4 > 0).astype(int)[:, None]
    >>> fitted = fit_probability(scores, table, np.ones((4000, 1), bool))
    >>> probability(np.array([0.9]), np.array([0]), fitted).round(2).tolist()
    [0.75]
    """
    item, class_id = np.nonzero(counted & (table != UNKNOWN))
    cells = scores[item, class_id]
    is_yes, weight = table[item, class_id] == YES, np.ones(len(cells))
    log_odds, n_classes = model_log_odds(cells), table.shape[1]
    center, scale = (float(log_odds.mean()), float(log_odds.std())) if len(cells) else (0.0, 1.0)
    scale = max(scale, 1e-3)
    standard, one = (log_odds - center) / scale, np.zeros(len(cells), np.int64)
    common = fit_scaling(standard, is_yes, one, weight, n_classes=1, prior_cells=WEAK)
    a = common.slope / scale
    b = common.shift - a * center
    each = fit_scaling(a * log_odds + b, is_yes, class_id, weight, n_classes=n_classes)
    return Scaling(each.slope * a, each.slope * b + each.shift)


def probability(scores: np.ndarray, class_id: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Return the probability that classes are there; float64, shape (M,)."""
    return np.asarray(expit(scaled(model_log_odds(scores), class_id, scaling)))


def found_by_others(scores: np.ndarray, table: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return which cells reach cutoffs that were chosen on the other folds.

    Those that reach a cutoff which was chosen on them are right more often than others will be:
    the cutoff went where that is so.

    Parameters
    ----------
    scores, table
        As for `fit_probability`.
    fold
        Of each item, shape (N,).

    Returns
    -------
    Bool, shape (N, K); nothing where the other folds know of no absence.
    """
    is_found = np.zeros(scores.shape, bool)
    for f in np.unique(fold).tolist():
        mine, others = fold == f, fold != f
        if (table[others] == NO).any():
            cutoffs = choose_cutoffs(scores[others], from_states(table[others]))
            is_found[mine] = sets_from(scores[mine], cutoffs)
    return is_found


class HeldOut(NamedTuple):
    """Cells by band of a probability that was fitted without their fold.

    Attributes
    ----------
    right, wrong : how many are there, and are not; int64, shape (B,).
    promised : sum of their probabilities, shape (B,).
    """

    right: np.ndarray
    wrong: np.ndarray
    promised: np.ndarray


def held_out(
    scores: np.ndarray,
    table: np.ndarray,
    counted: np.ndarray,
    fold: np.ndarray,
    *,
    edges: np.ndarray,
) -> HeldOut:
    """Count how many cells are right, each fold with the probability that the others fit.

    Parameters
    ----------
    scores, table, counted
        As for `fit_probability`.
    fold
        Of each item, shape (N,).
    edges
        Lower edges of the bands, ascending; what is less probable than the first is left out.

    Examples
    --------
    >>> scores = np.tile([0.9, 0.1], 100)[:, None]
    >>> table, fold = np.tile([1, 0], 100)[:, None], np.arange(200) // 2 % 5
    >>> counted = found_by_others(scores, table, fold)
    >>> held = held_out(scores, table, counted, fold, edges=np.array([0.5]))
    >>> held.right.tolist(), held.wrong.tolist()
    ([100], [0])
    """
    counts = np.zeros((2, len(edges)), np.int64)
    promised = np.zeros(len(edges))
    for f in np.unique(fold).tolist():
        mine, others = fold == f, fold != f
        scaling = fit_probability(scores[others], table[others], counted[others])
        item, class_id = np.nonzero(counted[mine] & (table[mine] != UNKNOWN))
        p = probability(scores[mine][item, class_id], class_id, scaling)
        band = np.searchsorted(edges, p, side="right") - 1
        inside = band >= 0
        is_no = (table[mine][item, class_id] == NO).astype(np.int64)
        np.add.at(counts, (is_no[inside], band[inside]), 1)
        promised += np.bincount(band[inside], p[inside], minlength=len(edges))
    return HeldOut(counts[0], counts[1], promised)
