"""From scores to sets of classes: a cutoff for every class, chosen on held-out labels.

A class of which the held-out items hold hundreds deserves a cutoff of its own; one of which they
hold three would get whatever suits these three. So every class is judged as if it also had some
items that behave as the average class does.
"""

import numpy as np

from labelops.multilabel.labels import UNKNOWN, YES, LabelSets, states

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
    if scores.shape != (truth.n_items, truth.n_classes) or not np.isfinite(scores).all():
        raise ValueError(
            f"choose_cutoffs: finite scores of shape {(truth.n_items, truth.n_classes)}, as truth "
            f"has items and classes, were expected, got {scores.shape}"
        )
    table = states(truth)
    tried = _cutoffs_to_try(scores[table != UNKNOWN].astype(np.float64), max_tried)
    n_classes = truth.n_classes
    if not len(tried):
        return np.full(n_classes, np.inf)
    true_positive, false_positive = np.zeros((2, n_classes, len(tried)))
    n_present = np.zeros((n_classes, 1))
    for c in range(n_classes):
        for state, count in ((YES, true_positive), (0, false_positive)):
            ordered = np.sort(scores[table[:, c] == state, c].astype(np.float64))
            count[c] = len(ordered) - np.searchsorted(ordered, tried)
        n_present[c] = (table[:, c] == YES).sum()
    s = pseudo_positives / max(float(n_present.sum()), 1.0)
    counted = true_positive + s * true_positive.sum(axis=0)
    said = counted + false_positive + s * false_positive.sum(axis=0)
    present = n_present + s * n_present.sum()
    # 2 TP + FP + FN = said + present.
    f1 = 2 * counted / np.maximum(said + present, 1e-12)
    best = f1.shape[1] - 1 - f1[:, ::-1].argmax(axis=1)
    return np.asarray(tried[best])


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
