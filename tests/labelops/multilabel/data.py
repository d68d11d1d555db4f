"""Probabilities and given classes for tests of several labels an item."""

import functools
import gzip
import warnings
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from labelops.multilabel.cells import Cells


def make(
    seed: int,
    *,
    n: int = 200,
    n_classes: int = 5,
    dtype: type = np.float64,
    noise: float = 0.15,
    sharpness: float = 1.5,
    unknown: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (probs, states, truth) of a model that is right more or less often."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, n_classes)) < rng.uniform(0.1, 0.6, n_classes)
    logits = rng.normal(size=(n, n_classes)) + np.where(truth, 1, -1) * sharpness
    probs = (1 / (1 + np.exp(-logits))).astype(dtype)
    table = (truth ^ (rng.random(truth.shape) < noise)).astype(np.int8)
    table[rng.random(truth.shape) < unknown] = -1
    return probs, table, truth


@st.composite
def problems(draw, dtypes=(np.float64, np.float32), unknown=(0.0,)):
    """Problems from nearly random to nearly sure models, clean to hopeless labels."""
    probs, table, _ = make(
        draw(st.integers(0, 2**32 - 1)),
        n=draw(st.integers(2, 150)),
        n_classes=draw(st.integers(1, 7)),
        dtype=draw(st.sampled_from(dtypes)),
        noise=draw(st.sampled_from([0.0, 0.05, 0.2, 0.5])),
        sharpness=draw(st.sampled_from([0.2, 1.0, 3.0])),
        unknown=draw(st.sampled_from(unknown)),
    )
    # cleanlab refuses classes that nobody, or everybody, has.
    table[0], table[1] = 0, 1
    return probs, table


def is_untied(probs: np.ndarray, table: np.ndarray, thresholds: np.ndarray) -> bool:
    """Say whether the order of equal values, or the last bit of a mean, cannot matter.

    cleanlab orders by p − (1 − p), which for float32 may tie where p does not, and means float32
    probabilities in float32.
    """
    for c in range(probs.shape[1]):
        pair = np.stack([1 - probs[:, c], probs[:, c]], axis=1)
        for state in (0, 1):
            own, other = pair[table[:, c] == state].T[[state, 1 - state]]
            if any(len(np.unique(v)) < len(v) for v in (own, own - other)):
                return False
        # The lowest of all are ordered with both states together.
        own = np.where(table[:, c] == 1, pair[:, 1], pair[:, 0])
        if any(len(np.unique(v)) < len(v) for v in (own, (2 * own - 1 + 1) / 2)):
            return False
        near = np.abs(pair.astype(np.float64) - (thresholds[c] - 1e-6)) < 1e-6
        if probs.dtype == np.float32 and near.any():
            return False
    return True


def all_cells(table: np.ndarray, probs: np.ndarray | None = None) -> Cells:
    """Return every cell with a known state."""
    row, class_id = np.nonzero(table >= 0)
    p = np.full(len(row), 0.5) if probs is None else probs[row, class_id]
    return Cells(row, class_id, table[row, class_id] == 1, p)


def dense(cells: Cells, shape: tuple[int, int]) -> np.ndarray:
    """Return flags of all cells."""
    flags = np.zeros(shape, bool)
    flags[cells.row, cells.class_id] = True
    return flags


def lists(table: np.ndarray) -> list[list[int]]:
    """Return the present classes of every item, as cleanlab wants them."""
    return [np.flatnonzero(row == 1).tolist() for row in table]


def cleanlab_flags(probs: np.ndarray, table: np.ndarray, filter_by: str, **settings) -> np.ndarray:
    """Return cleanlab's flags of every class; it warns of small classes and unused settings."""
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_multilabel_issues_per_class(
            lists(table), probs, filter_by=filter_by, n_jobs=1, **settings
        )


@functools.cache
def read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (features, states) of a data set whose label columns start with `label__`."""
    with gzip.open(path, "rt") as file:
        names = [name.strip('"') for name in file.readline().strip().split(",")]
        values = np.loadtxt(file, delimiter=",", dtype=np.float32, quotechar='"')
    is_label = np.array([name.startswith("label__") for name in names])
    return values[:, ~is_label], values[:, is_label].astype(np.int8)


@functools.cache
def real_problem(path: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (out-of-sample probabilities, states with a tenth of them wrong, true states)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import scale

    features, truth = read_set(path)
    rng = np.random.default_rng(seed)
    table = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth)
    model = OneVsRestClassifier(LogisticRegression(C=0.05, max_iter=200, tol=1e-2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probs = cross_val_predict(model, scale(features), table, cv=3, method="predict_proba")
    return probs, table, truth
