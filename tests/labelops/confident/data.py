"""Probabilities and labels for tests of confident learning."""

import functools
import warnings

import numpy as np
from hypothesis import strategies as st


def make(
    seed: int,
    *,
    n: int = 300,
    n_classes: int = 5,
    dtype: type = np.float64,
    noise: float = 0.2,
    sharpness: float = 4.0,
    spread: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (probs, given, true) of a model that is right more or less often."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) * spread
    logits[np.arange(n), true] += rng.uniform(0, sharpness, n)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    given = np.where(rng.random(n) < noise, rng.integers(0, n_classes, n), true)
    return probs.astype(dtype), given, true


@st.composite
def problems(draw, dtypes=(np.float64, np.float32)):
    """Problems from nearly random to nearly sure models, clean to hopeless labels; no ties."""
    n_classes = draw(st.integers(2, 12))
    probs, given, _ = make(
        draw(st.integers(0, 2**32 - 1)),
        n=draw(st.integers(n_classes, 400)),
        n_classes=n_classes,
        dtype=draw(st.sampled_from(dtypes)),
        noise=draw(st.sampled_from([0.0, 0.05, 0.2, 0.5])),
        sharpness=draw(st.sampled_from([0.5, 3.0, 8.0])),
        spread=draw(st.sampled_from([0.3, 1.0, 3.0])),
    )
    if draw(st.booleans()):
        given = np.minimum(given, n_classes - 2) if n_classes > 2 else given
    # cleanlab refuses labels of a single class.
    given[:2] = [0, 1]
    return probs, given


def is_untied(probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> bool:
    """Say whether the order of equal values, or the last bit of a mean, cannot matter.

    cleanlab means float32 probabilities in float32, which moves a threshold by some 10⁻⁷.
    """
    rows = np.arange(len(probs))
    for k in np.unique(given):
        lead = probs[given == k] - probs[given == k][:, [k]]
        lead[:, k] = probs[given == k, k]
        if any(len(np.unique(column)) < len(column) for column in lead.T):
            return False
    others = probs.copy()
    others[rows, given] = -1
    margins = (probs[rows, given] - others.max(axis=1) + 1) / 2
    if any(len(np.unique(v)) < len(v) for v in (margins, probs[rows, given])):
        return False
    near = np.abs(probs.astype(np.float64) - (thresholds - 1e-6)) < 1e-6
    return not (probs.dtype == np.float32 and near.any())


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cross-validated (probs, given, true) of digits, a tenth of them mislabelled."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    images, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    other = (true + rng.integers(1, 10, len(true))) % 10
    given = np.where(rng.random(len(true)) < 0.1, other, true)
    model = LogisticRegression(max_iter=1000, C=0.01, tol=1e-3)
    probs = cross_val_predict(model, images / 16.0, given, cv=3, method="predict_proba")
    return probs, given, true


def cleanlab_flags(probs: np.ndarray, given: np.ndarray, filter_by: str, **settings) -> np.ndarray:
    """Return the flags of cleanlab; it warns of small classes and unused settings."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_label_issues(given, probs, filter_by=filter_by, n_jobs=1, **settings)
