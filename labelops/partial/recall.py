"""Which unknown cells are taken for a yes that was left unsaid, and a log of them.

One rule, three strategies: a probability beyond a fixed threshold, beyond that and what the class
has on average, or among the largest losses that the cells would have as a no.
"""

# n items, N items in all, K classes, M cells

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from labelops.multilabel.labels import UNKNOWN

Strategy = Literal["fixed", "class", "largest"]

THRESHOLD, CLASS_THRESHOLD = 0.6, 0.7
"""Of SPLC and of COMIC."""

KEPT = 0.99
"""Share of the mean of a class that a batch leaves as it is."""

STEP = 0.002
"""Share of the cells that the largest losses become more by, epoch after epoch."""


def recall_mask(
    p: np.ndarray,
    states: np.ndarray,
    *,
    strategy: Strategy,
    threshold: float | None = None,
    class_mean: np.ndarray | None = None,
    n_largest: int = 0,
) -> np.ndarray:
    """Return which unknown cells are recalled; bool, shape (n, K).

    Parameters
    ----------
    p
        Probabilities of yes, in [0, 1], shape (n, K).
    states
        1 (yes), 0 (no), −1 (unknown), shape (n, K). Only unknown cells are ever recalled.
    strategy
        *fixed*: p > τ; *class*: p > max(τ, P_c); *largest*: the `n_largest` cells with the greatest
        −log (1 − p), all if there are fewer, of ties the first.
    threshold
        τ; None: 0.6, for *class* 0.7.
    class_mean
        P_c, shape (K,), as of `move_means`; None: the mean of p over the n items.
    n_largest
        As of `largest`.

    Raises
    ------
    ValueError
        If shapes differ or a probability is not in [0, 1].

    References
    ----------
    Zhang et al., arXiv 2112.07368, equation 9 (SPLC). Zhang et al., ICCV 2023, equation 2 (COMIC).
    Kim et al., CVPR 2022, equation 5 (large losses).

    Examples
    --------
    >>> p, states = np.array([[0.9, 0.8], [0.7, 0.9]]), np.array([[-1, -1], [1, 0]])
    >>> recall_mask(p, states, strategy="fixed").tolist()
    [[True, True], [False, False]]
    >>> recall_mask(p, states, strategy="class").tolist()
    [[True, False], [False, False]]
    >>> recall_mask(p, states, strategy="largest", n_largest=1).tolist()
    [[True, False], [False, False]]
    """
    p = np.asarray(p, np.float64)
    if p.shape != np.shape(states) or p.ndim != 2:
        raise ValueError(
            f"recall_mask: p and states of one shape (n, K) were expected, got {p.shape} and "
            f"{np.shape(states)}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"recall_mask: probabilities were expected, got {p[~((p >= 0) & (p <= 1))][0]:g}. "
            "Were logits passed?"
        )
    unknown = np.asarray(states) == UNKNOWN
    if strategy == "largest":
        order = np.argsort(np.where(unknown, -p, np.inf), axis=None, kind="stable")
        mask = np.zeros(p.size, bool)
        mask[order[: min(n_largest, int(unknown.sum()))]] = True
        return mask.reshape(p.shape)
    if strategy == "fixed":
        return np.asarray(unknown & (p > (THRESHOLD if threshold is None else threshold)))
    if class_mean is None:
        class_mean = p.sum(axis=0) / max(len(p), 1)
    least = np.maximum(class_mean, CLASS_THRESHOLD if threshold is None else threshold)
    return np.asarray(unknown & (p > least))


def largest(n_cells: int, epoch: int, *, step: float = STEP, is_permanent: bool = False) -> int:
    """Return how many of the largest losses are recalled in an epoch; epochs count from 0.

    ⌈cells · epoch · Δ⌉, so that none is in the first epoch and each has those of the one before;
    ⌈cells · Δ⌉ from the second on where what is recalled remains so.

    Examples
    --------
    >>> [largest(1000, epoch) for epoch in range(4)]
    [0, 2, 4, 6]
    >>> [largest(1000, epoch, is_permanent=True) for epoch in range(4)]
    [0, 2, 2, 2]
    """
    times = min(epoch, 1) if is_permanent else epoch
    # 1000 · 3 · 0.002 is a little more than 6.
    return math.ceil(n_cells * times * step - 1e-9)


def first_means(states: np.ndarray) -> np.ndarray:
    """Return what a class has on average before anything is learned: half its share of given yes.

    Examples
    --------
    >>> first_means(np.array([[1, -1], [-1, -1]])).tolist()
    [0.25, 0.0]
    """
    return np.asarray((np.asarray(states) == 1).sum(axis=0) / max(2 * len(states), 1))


def move_means(means: np.ndarray, p: np.ndarray, *, kept: float = KEPT) -> np.ndarray:
    """Return means of the classes, moved towards those of a batch.

    P_c ← κ P_c + (1 − κ) mean_i p_ic. The mean of a batch alone says little of small ones.

    Examples
    --------
    >>> move_means(np.array([0.1]), np.array([[0.9], [0.3]]), kept=0.5).round(3).tolist()
    [0.35]
    """
    return np.asarray(kept * means + (1 - kept) * p.mean(axis=0)) if len(p) else means


class Recalls(NamedTuple):
    """Recalled cells, epoch after epoch; shape (M,) each.

    Attributes
    ----------
    row, class_id : int64.
    p : probability of yes then, float32.
    epoch : int64, from 0.
    """

    row: np.ndarray
    class_id: np.ndarray
    p: np.ndarray
    epoch: np.ndarray


def log_recalls(mask: np.ndarray, p: np.ndarray, *, epoch: int) -> Recalls:
    """Return the cells of a mask, row after row.

    Examples
    --------
    >>> log_recalls(np.array([[False, True]]), np.array([[0.1, 0.9]]), epoch=3).class_id.tolist()
    [1]
    """
    row, class_id = np.nonzero(mask)
    return Recalls(row, class_id, p[mask].astype(np.float32), np.full(len(row), epoch))


def join_recalls(parts: Sequence[Recalls]) -> Recalls:
    """Return several logs as one."""
    none = Recalls(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.float32, np.int64)))
    return Recalls(*(np.concatenate(columns) for columns in zip(none, *parts, strict=True)))


class Found(NamedTuple):
    """How well an epoch recalls, shape (E,) each; NaN where it is not defined.

    Attributes
    ----------
    n : cells recalled.
    precision : share of them that are present.
    recall : share of the unknown cells that are present which it recalls.
    """

    n: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def found_by_epoch(
    recalls: Recalls, states: np.ndarray, truth: np.ndarray, *, epochs: int
) -> Found:
    """Return precision and recall of every epoch where the truth is known.

    Parameters
    ----------
    recalls
        The log.
    states, truth
        Given states and whether each class is present, shape (N, K).
    epochs
        E.

    Examples
    --------
    >>> states, truth = np.array([[-1, -1, 1]]), np.array([[True, False, True]])
    >>> recalls = log_recalls(np.array([[True, True, False]]), np.ones((1, 3)), epoch=0)
    >>> [values.tolist() for values in found_by_epoch(recalls, states, truth, epochs=1)]
    [[2], [0.5], [1.0]]
    """
    is_right = truth[recalls.row, recalls.class_id].astype(bool)
    n = np.bincount(recalls.epoch, minlength=epochs)
    right = np.bincount(recalls.epoch[is_right], minlength=epochs)
    there = int((truth.astype(bool) & (states == UNKNOWN)).sum())
    missing = np.full(epochs, there if there else np.nan)
    return Found(n, right / np.where(n > 0, n, np.nan), right / missing)
