"""Confident learning as the paper and cleanlab's docstring print it, in loops."""

from fractions import Fraction

import numpy as np


def slow_thresholds(p_given: np.ndarray, given: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean of the probabilities of the given class, in exact rational arithmetic."""
    means = []
    for k in range(n_classes):
        values = [Fraction(float(p)) for p, y in zip(p_given, given, strict=True) if y == k]
        means.append(float(sum(values) / len(values)) if values else 2.0)
    return np.maximum(means, 2e-6)


def slow_guess(row: np.ndarray, thresholds: np.ndarray) -> int:
    """The confident class of one row, or −1."""
    confident = [k for k in range(len(row)) if float(row[k]) >= thresholds[k] - 1e-6]
    if len(confident) == 1:
        return confident[0]
    return int(np.argmax(row)) if confident else -1


def slow_joint(probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Counts by given class and guess."""
    counts = np.zeros((probs.shape[1], probs.shape[1]), int)
    for row, y in zip(probs, given, strict=True):
        guess = slow_guess(row, thresholds)
        if guess >= 0:
            counts[y, guess] += 1
    return counts


def slow_first(quotas, groups, keys, hashes) -> np.ndarray:
    """The first so many of each group: sort everything, take from the front."""
    taken = np.zeros(len(groups), bool)
    left = dict(enumerate(np.asarray(quotas).tolist()))
    order = sorted(zip(keys.tolist(), hashes.tolist(), range(len(keys)), strict=True))
    for _, _, i in order:
        group = int(groups[i])
        if left.get(group, 0) > 0:
            left[group] -= 1
            taken[i] = True
    return taken
