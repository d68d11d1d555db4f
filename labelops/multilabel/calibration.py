"""How far probabilities of single classes can be taken at their word."""

from collections.abc import Mapping

import numpy as np

from labelops.calibration import N_BINS, log_safe, reliability
from labelops.multilabel.labels import UNKNOWN, YES
from labelops.multilabel.opinion import model_log_odds
from labelops.multilabel.scaling import fit_scaling

# N items, K classes, B bins


def known_cells(probs: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the cells with a known state, and which are given yes.

    The table holds 1 (yes), 0 (no) and −1 (unknown), shape (N, K).
    """
    known = table != UNKNOWN
    return np.asarray(probs[known], np.float64), np.asarray(table[known] == YES)


def metrics(p: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> Mapping[str, float]:
    """Return log loss, Brier score and calibration error over cells.

    p is the probability of yes; its calibration against how often yes is given, shape (M,) each, is
    measured in `n_bins` bins of equal width.

    Examples
    --------
    >>> measures = metrics(np.array([0.8, 0.8, 0.2, 0.2]), np.array([True, True, False, True]))
    >>> {name: round(value, 3) for name, value in measures.items()}
    {'nll': 0.57, 'brier': 0.19, 'ece': 0.25}
    """
    if not len(p):
        return {"nll": 0.0, "brier": 0.0, "ece": 0.0}
    bins = reliability(p, given, n_bins=n_bins)
    return {
        "nll": float(-np.mean(log_safe(np.where(given, p, 1 - p)))),
        "brier": float(np.mean(np.square(p - given))),
        "ece": float((bins.n * bins.gap).sum() / len(p)),
    }


def pooled_scaling(p: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """Return the slope and shift of log-odds that fit given states best, one for all classes.

    Examples
    --------
    >>> p, given = np.full(10_000, 0.9), np.arange(10_000) % 4 > 0
    >>> slope, shift = pooled_scaling(p, given)
    >>> round(float(1 / (1 + np.exp(-(slope * np.log(9) + shift)))), 2)
    0.75
    """
    one = np.zeros(len(p), np.int64)
    scaling = fit_scaling(model_log_odds(p), given, one, np.ones(len(p)), n_classes=1)
    return float(scaling.slope[0]), float(scaling.shift[0])
