"""A student of two kinds of label whose accuracy is known exactly: hyperplanes in 40 dimensions.

Items are normally distributed, an expert's labels follow one hyperplane, cheap ones another that is
27 degrees away, so 85 % of them are right and no number of them removes the rest. A student that is
an angle away from the expert's hyperplane is wrong about angle / π of all items.
"""

import numpy as np
from scipy.special import expit

DIMENSIONS, ANGLE = 40, 27


def fit(x, y, start, strength):
    """Return a logistic regression held back toward a start, by Newton's method."""
    w = start.copy()
    for _ in range(12):
        p = expit(x @ w)
        slope = x.T @ (p - y) + strength * (w - start)
        w = w - np.linalg.solve(
            (x * (p * (1 - p))[:, None]).T @ x + strength * np.eye(len(w)), slope
        )
    return w


def error(n_weak, n_expert, seed):
    """Return the error of a student with cheap labels first, then an expert's of other items."""
    rng = np.random.default_rng([seed, n_weak, n_expert])
    expert, weak = np.eye(2, DIMENSIONS)
    weak = np.cos(np.deg2rad(ANGLE)) * expert + np.sin(np.deg2rad(ANGLE)) * weak
    w = np.zeros(DIMENSIONS)
    for n, plane in ((n_weak, weak), (n_expert, expert)):
        if n:
            x = rng.normal(size=(n, DIMENSIONS))
            w = fit(x, x @ plane > 0, w, 1.0)
    return float(np.arccos(w @ expert / np.linalg.norm(w)) / np.pi)
