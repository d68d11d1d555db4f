"""From scores to sets of classes: a cutoff for every class, chosen on held-out labels.

A class of which the held-out items hold hundreds deserves a cutoff of its own; one of which they
hold three would get whatever suits these three. So every class is judged as if it also had some
items that behave as the average class does.
"""

import numpy as np

from labelops.multilabel.labels import NO, UNKNOWN, YES, LabelSets, states

# N items, K classes, T cutoffs tried

PSEUDO_POSITIVES = 10.0
"""Weight of the average class, in items that have it."""

MAX_TRIED = 512


def choose_cutoffs(
    scores: np.ndarray,
    truth: LabelSets,
    *,
    pseudo_positives: float = PSEUDO_POSITIVES,
    max_tried: int = MAX_TRIED,
) -> np.ndarray:
    """Choose the score from which each class is taken for present: the one of largest F1.

    F_c(t) = 2 (TP_c + s TP) / (2 (TP_c + s TP) + FP_c + s FP + FN_c + s FN) at cutoff t, where TP,
    FP and FN are those of all classes together and s shrinks them to `pseudo_positives` present
    cells.

    Parameters
    ----------
    scores
        Higher is more present, of items on which nothing was trained, shape (N, K).
    truth
        Their classes; unknown ones take no part.
    pseudo_positives
        0 for each class by itself.
    max_tried
        Cutoffs are tried midway between neighbouring scores; of more, evenly many by rank.

    Returns
    -------
    float64, shape (K,); infinite where nothing is known of any class. Of equally good cutoffs the
    highest.

    Raises
    ------
    ValueError
        If shapes do not fit or a score is not finite.

    Notes
    -----
    O(N K log N + T K). F1 over one more than a few hundred cutoffs differs by less than its error.

    References
    ----------
    Lipton, Elkan, Naryanaswamy: Optimal thresholding of classifiers to maximize F1 measure. ECML
    PKDD 2014.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> scores = np.array([[0.9], [0.6], [0.2], [0.1]])
    >>> truth = label_sets([[0], [0], [], []], n_classes=1)
    >>> choose_cutoffs(scores, truth).tolist()
    [0.4]
    """
    table = _checked(scores, truth)
    tried = _cutoffs_to_try(scores[table != UNKNOWN].astype(np.float64), max_tried)
    if not len(tried):
        return np.full(truth.n_classes, np.inf)
    true_positive = _count_above(scores, table == YES, tried)
    false_positive = _count_above(scores, table == NO, tried)
    n_present = (table == YES).sum(axis=0)[:, None].astype(np.float64)
    s = pseudo_positives / max(float(n_present.sum()), 1.0)
    counted = true_positive + s * true_positive.sum(axis=0)
    predicted = counted + false_positive + s * false_positive.sum(axis=0)
    present = n_present + s * n_present.sum()
    # 2 TP + FP + FN = predicted + present.
    return _highest_best(tried, 2 * counted / np.maximum(predicted + present, 1e-12))


def choose_cutoffs_from_positives(
    scores: np.ndarray,
    truth: LabelSets,
    *,
    pseudo_positives: float = PSEUDO_POSITIVES,
) -> np.ndarray:
    """Choose each class's cutoff where it is only known what items have, never what they have not.

    The one of largest recall² / P(score ≥ t), which is precision × recall but for a factor that no
    cutoff changes, P(present): recall is that of the items known to have the class, and how often
    the score is high can be seen in all items. The label of a picture with several contents is such
    knowledge, if which of them it names does not depend on the score.

    Parameters, errors and cost as of `choose_cutoffs`; what is ruled out takes no part.

    Returns
    -------
    float64, shape (K,); infinite where no item has any class. Of equally good cutoffs the highest.

    References
    ----------
    Lee, Liu: Learning with positive and unlabeled examples using weighted logistic regression.
    ICML 2003, section 4.
    Elkan, Noto: Learning classifiers from only positive and unlabeled data. KDD 2008 (labels that
    are drawn from the present ones at random).

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    >>> truth = label_sets([[0], [], [0], []], n_classes=1)
    >>> choose_cutoffs_from_positives(scores, truth, pseudo_positives=0).tolist()
    [0.4]
    """
    table = _checked(scores, truth)
    is_yes = table == YES
    if not is_yes.any():
        return np.full(truth.n_classes, np.inf)
    tried = _cutoffs_to_try(scores.astype(np.float64), MAX_TRIED)
    hits = _count_above(scores, is_yes, tried)
    predicted = _count_above(scores, table != NO, tried)
    s = pseudo_positives / float(is_yes.sum())
    hits, predicted = hits + s * hits.sum(axis=0), predicted + s * predicted.sum(axis=0)
    return _highest_best(tried, hits**2 / np.maximum(predicted, 1e-12))


def _count_above(scores: np.ndarray, counted: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """Return how many of the counted cells of each class reach each cutoff, shape (K, T)."""
    counts = np.zeros((scores.shape[1], len(tried)))
    for c in range(scores.shape[1]):
        ordered = np.sort(scores[counted[:, c], c].astype(np.float64))
        counts[c] = len(ordered) - np.searchsorted(ordered, tried)
    return counts


def _highest_best(tried: np.ndarray, value: np.ndarray) -> np.ndarray:
    best = value.shape[1] - 1 - value[:, ::-1].argmax(axis=1)
    return np.asarray(tried[best])


def _checked(scores: np.ndarray, truth: LabelSets) -> np.ndarray:
    """Return the states of all cells, if scores fit them."""
    if scores.shape != (truth.n_items, truth.n_classes) or not np.isfinite(scores).all():
        raise ValueError(
            f"cutoffs: finite scores of shape {(truth.n_items, truth.n_classes)}, as truth has "
            f"items and classes, were expected, got {scores.shape}"
        )
    return states(truth)


def _cutoffs_to_try(scores: np.ndarray, max_tried: int) -> np.ndarray:
    """Return values midway between neighbouring scores, and one above and one below all."""
    values = np.unique(scores)
    if not len(values):
        return values
    middle = (values[1:] + values[:-1]) / 2
    # Between neighbouring floats lies none: then it is the upper one.
    middle = np.maximum(middle, np.nextafter(values[:-1], np.inf))
    tried = np.concatenate([values[:1], middle, [np.nextafter(values[-1], np.inf)]])
    if len(tried) > max_tried:
        tried = tried[np.linspace(0, len(tried) - 1, max_tried).round().astype(np.int64)]
    return tried


def sets_from(scores: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """Return whether each class is taken for present: score ≥ cutoff; bool, shape (N, K).

    Examples
    --------
    >>> sets_from(np.array([[0.5, 0.5]]), np.array([0.5, np.inf])).tolist()
    [[True, False]]
    """
    return np.asarray(scores >= cutoffs)
