"""Calibration errors as their definitions read: loops over items and bins."""

import numpy as np


def gap(items: list[int], confidence: np.ndarray, right: np.ndarray) -> float:
    mean_c = sum(float(confidence[i]) for i in items) / len(items)
    mean_h = sum(float(right[i]) for i in items) / len(items)
    return abs(mean_h - mean_c)


def equal_width(confidence: np.ndarray, right: np.ndarray, bins: int) -> list[tuple[int, float]]:
    """Items and gap of each non-empty bin (lo, hi]."""
    found = []
    for b in range(bins):
        lo, hi = b / bins, (b + 1) / bins
        items = [i for i in range(len(confidence)) if lo < confidence[i] <= hi]
        if items:
            found.append((len(items), gap(items, confidence, right)))
    return found


def ece(probs: np.ndarray, given: np.ndarray, bins: int) -> float:
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == given
    parts = equal_width(confidence, right, bins)
    return sum(n * g for n, g in parts) / len(given)


def mce(probs: np.ndarray, given: np.ndarray, bins: int) -> float:
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == given
    return max(g for _, g in equal_width(confidence, right, bins))


def adaptive_ece(probs: np.ndarray, given: np.ndarray, bins: int) -> float:
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == given
    total = 0.0
    for part in np.array_split(np.argsort(confidence, kind="stable"), bins):
        if len(part):
            total += len(part) * gap(part.tolist(), confidence, right)
    return total / len(given)


def classwise_ece(probs: np.ndarray, given: np.ndarray, bins: int) -> float:
    total = 0.0
    for k in range(probs.shape[1]):
        parts = equal_width(probs[:, k], given == k, bins)
        total += sum(n * g for n, g in parts) / len(given)
    return total / probs.shape[1]
