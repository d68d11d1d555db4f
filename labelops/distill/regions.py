"""Which stored views of an item a student should learn from, and what.

A crop of a picture may show nothing of what the picture is labelled with. A teacher that is hardly
sure of anything there, or surer than any teacher should be, has nothing to teach by it; where it is
unsure, the label of the whole item says more than it does, if that label is right: labels are
repaired first. Elsewhere the teacher's soft label stands.
"""

# V views, K classes, M items

from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np

from labelops.hashing import is_sampled
from labelops.soft.views import Coding, SoftViews, check_coding, decode, read_values

Subject = Literal["max", "given"]

QUANTILES = (0.05, 0.25, 0.995)
"""Of confidence, where thresholds are taken. The paper's are not known; these are a start."""

SAMPLE = 1_000_000
"""Views of which thresholds are taken, about."""

EPSILON = 0.1


class Verdict(IntEnum):
    """What becomes of a view; stored in a byte."""

    KEPT_SOFT = 0
    HARD_CALIBRATED = 1
    DISCARDED = 2


class Thresholds(NamedTuple):
    """Confidences, in ascending order.

    Attributes
    ----------
    low : T_L; below it a view is discarded.
    middle : T_M; below it the given class is taught.
    high : T_T; above it a view is discarded.
    """

    low: float
    middle: float
    high: float


class Regions(NamedTuple):
    """What becomes of V views.

    Attributes
    ----------
    verdict : `Verdict` of each, uint8, shape (V,).
    n_soft, n_hard, n_discarded : views of each kind.
    n_rescued : of the first two, those kept only because all of their item's would be discarded.
    """

    verdict: np.ndarray
    n_soft: int
    n_hard: int
    n_discarded: int
    n_rescued: int


def view_confidence(views: SoftViews, *, coding: Coding, of: Subject = "max") -> np.ndarray:
    """Return how sure the teacher is of stored views, at its own temperature.

    Parameters
    ----------
    views
        From `labelops.soft.views.encode`, of one class at least.
    coding
        With which they were encoded.
    of
        *max*: of its most probable class; *given*: of the given one.

    Returns
    -------
    Probabilities, float64, shape (V,).

    Notes
    -----
    Those of `labelops.soft.views.decode`, without decoding: O(V k) instead of O(V K).

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> z, coding = np.log([[0.5, 0.25, 0.125, 0.125]]), Coding("prob", "f16", 4)
    >>> views = encode(z, np.array([3]), coding=coding, k=2)
    >>> [view_confidence(views, coding=coding, of=of).tolist() for of in ("max", "given")]
    [[0.5], [0.125]]
    """
    check_coding(coding)
    is_top = views.ids == views.given[:, None]
    n_others = coding.n_classes - views.ids.shape[1] - ~is_top.any(axis=1)
    values, own = (read_values(x, coding) for x in (views.values, views.given_value))
    rest = views.tail.astype(np.float64)
    if coding.kind == "logit":
        values, own = np.exp(values / coding.temperature), np.exp(own / coding.temperature)
        level = np.minimum(np.exp(rest / coding.temperature), values.min(axis=1, initial=1.0))
        rest = n_others * level
    else:
        rest = np.where(n_others > 0, rest, 0.0)
    total = values.sum(axis=1) + np.where(is_top.any(axis=1), 0.0, own) + rest
    said = values.max(axis=1, initial=0.0) if of == "max" else own
    # All that was stored may have been rounded to nothing.
    return np.asarray(
        np.where(total > 0, said / np.where(total > 0, total, 1), 1 / coding.n_classes)
    )


def fit_thresholds(
    confidence: np.ndarray,
    hashes: np.ndarray,
    *,
    quantiles: tuple[float, float, float] = QUANTILES,
    n_sample: int = SAMPLE,
) -> Thresholds:
    """Return thresholds at quantiles of confidence in a sample of views, drawn by hash.

    Parameters
    ----------
    confidence
        Of views, shape (V,), V ≥ 1.
    hashes
        Of item and view, uint64, shape (V,).
    quantiles
        In ascending order, in [0, 1]. The lowest and the highest confidence are at 0 and at 1.
    n_sample
        About how many views; all if there are no more.

    Returns
    -------
    Thresholds, each the confidence of a view of the sample.

    Raises
    ------
    ValueError
        If there is no view, or none in the sample, a confidence is not in [0, 1], or quantiles do
        not ascend.

    Examples
    --------
    >>> fit_thresholds(np.linspace(0, 1, 101), np.arange(101, dtype=np.uint64))
    Thresholds(low=0.05, middle=0.25, high=1.0)
    """
    if not len(confidence) or confidence.shape != hashes.shape:
        raise ValueError(
            "thresholds: at least one view, and as many hashes, were expected, got "
            f"{confidence.shape} and {hashes.shape}"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("thresholds: confidences in [0, 1] were expected")
    if not 0 <= quantiles[0] <= quantiles[1] <= quantiles[2] <= 1:
        raise ValueError(f"thresholds: ascending quantiles were expected, got {quantiles}")
    drawn = confidence[is_sampled(hashes, wanted=n_sample, total=len(hashes))]
    if not len(drawn):
        raise ValueError(f"thresholds: a sample was expected, got none of {len(hashes)} views")
    found = np.quantile(drawn, quantiles, method="inverted_cdf")
    return Thresholds(*(float(x) for x in found))


def judge_views(confidence: np.ndarray, item: np.ndarray, *, thresholds: Thresholds) -> Regions:
    """Say of every view whether it is kept as it is, teaches the given class, or is discarded.

    With confidence s: discarded if s < T_L or s > T_T; hard calibrated if T_L ≤ s < T_M; else kept
    soft. Where an item would lose all its views, the one of the highest confidence (the first of
    such) stays: hard calibrated if s < T_M, else kept soft.

    Parameters
    ----------
    confidence
        Of `view_confidence`, shape (V,).
    item
        Which item each view is of, integers, in any order, shape (V,).
    thresholds
        T_L ≤ T_M ≤ T_T, of `fit_thresholds`; they belong into the record of a run.

    Raises
    ------
    ValueError
        If shapes differ, thresholds do not ascend, or a confidence is not a number.

    References
    ----------
    Shen: FerKD: surgical label adaptation for efficient distillation. ICCV 2023 (its uninformative,
    hard and important regions). That no item loses all its views is ours.

    Examples
    --------
    >>> s, item = np.array([0.35, 0.22, 0.999, 0.9, 0.1]), np.array([0, 0, 0, 0, 1])
    >>> found = judge_views(s, item, thresholds=Thresholds(0.25, 0.5, 0.99))
    >>> found.verdict.tolist(), found.n_rescued
    ([1, 2, 2, 0, 1], 1)
    """
    s, t = np.asarray(confidence, np.float64), thresholds
    if s.ndim != 1 or s.shape != item.shape or np.isnan(s).any():
        raise ValueError(
            "judge_views: as many confidences as items, none of them NaN, were expected, got "
            f"{s.shape} and {item.shape}"
        )
    # Written so that NaN fails too.
    if not t.low <= t.middle <= t.high:
        raise ValueError(f"judge_views: ascending thresholds were expected, got {tuple(t)}")
    kept = np.where(s < t.middle, Verdict.HARD_CALIBRATED, Verdict.KEPT_SOFT).astype(np.uint8)
    is_out = (s < t.low) | (s > t.high)
    _, place = np.unique(item, return_inverse=True)
    n_left = np.bincount(place, weights=~is_out)
    # The surest of each item, and of several the first, lies first of its item.
    order = np.lexsort((np.arange(len(s)), -s, place))
    first = order[np.searchsorted(place[order], np.arange(len(n_left)))]
    rescued = first[n_left == 0]
    is_out[rescued] = False
    verdict = np.where(is_out, Verdict.DISCARDED, kept).astype(np.uint8)
    n = np.bincount(verdict, minlength=len(Verdict))
    return Regions(verdict, int(n[0]), int(n[1]), int(n[2]), len(rescued))


def softened(given: np.ndarray, *, n_classes: int, epsilon: float = EPSILON) -> np.ndarray:
    """Return labels that have 1 − ε of the given class, and of each other one ε / (K − 1).

    Parameters
    ----------
    given
        Class ids, shape (V,).
    n_classes
        K ≥ 1; with one class its label is 1.
    epsilon
        ε in [0, 1).

    Returns
    -------
    float64, shape (V, K); rows sum to one.

    Raises
    ------
    ValueError
        If ε is not in [0, 1), or a class is not in 0 … K − 1.

    Examples
    --------
    >>> softened(np.array([2]), n_classes=5, epsilon=0.1).round(3).tolist()
    [[0.025, 0.025, 0.9, 0.025, 0.025]]
    """
    if not 0 <= epsilon < 1 or n_classes < 1:
        raise ValueError(
            "softened: an epsilon in [0, 1) and at least one class were expected, got "
            f"{epsilon:g} and {n_classes}"
        )
    if len(given) and not (given.min() >= 0 and given.max() < n_classes):
        raise ValueError(
            f"softened: given classes in 0 … {n_classes - 1} were expected, got "
            f"{given.min()} … {given.max()}"
        )
    labels = np.full((len(given), n_classes), epsilon / max(n_classes - 1, 1))
    labels[np.arange(len(given)), given] = 1 - epsilon if n_classes > 1 else 1.0
    return labels


def calibrated_labels(
    views: SoftViews, verdict: np.ndarray, *, coding: Coding, epsilon: float = EPSILON
) -> np.ndarray:
    """Return what a student learns of each view.

    Parameters
    ----------
    views
        V of them.
    verdict
        Of `judge_views`, shape (V,).
    coding
        With which they were encoded.
    epsilon
        Of the given class where it is taught, see `softened`.

    Returns
    -------
    float64, shape (V, K). Rows sum to one; those of discarded views are 0, and so are their cross
    entropy and its gradient. A mean loss is over the others.

    Raises
    ------
    ValueError
        As `softened`, or if shapes differ or a verdict is unknown.

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> z, coding = np.log([[0.5, 0.25, 0.25]] * 3), Coding("prob", "f32", 3)
    >>> views = encode(z, np.array([1, 1, 1]), coding=coding, k=3)
    >>> calibrated_labels(views, np.array([0, 1, 2], np.uint8), coding=coding).tolist()
    [[0.5, 0.25, 0.25], [0.05, 0.9, 0.05], [0.0, 0.0, 0.0]]
    """
    if verdict.shape != views.given.shape or not np.isin(verdict, list(Verdict)).all():
        raise ValueError(
            f"calibrated_labels: {len(views.given)} verdicts in 0 … {max(Verdict)} were expected, "
            f"got {verdict.shape} of {np.unique(verdict).tolist()}"
        )
    labels = decode(views, coding=coding)
    is_hard = verdict == Verdict.HARD_CALIBRATED
    labels[is_hard] = softened(views.given[is_hard], n_classes=coding.n_classes, epsilon=epsilon)
    labels[verdict == Verdict.DISCARDED] = 0.0
    return labels
