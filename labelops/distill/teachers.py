"""Which of several teachers to learn from: the one whose labels make the best student.

The most accurate teacher is often not it: of the nine teachers of ImageNet in FerKD's table, the
most accurate made the worst ResNet-50. So each teaches a cheap student, a linear model of ready
features, and the students are compared on items whose classes are known.
"""

# T teachers, N items, M test items, D features, K classes

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, ndtri
from threadpoolctl import threadpool_limits

Z = float(ndtri(0.975))

MAX_STEPS = 500


class Student(NamedTuple):
    """A linear model of standardised features.

    Attributes
    ----------
    weight, bias : float64, shapes (D, K) and (K,).
    mean, std : by which features are standardised, shape (D,).
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return scores of classes, shape (N, K)."""
        x = (np.asarray(features, np.float64) - self.mean) / self.std
        return np.asarray(x @ self.weight + self.bias)


class Probe(NamedTuple):
    """How good the students of T teachers are; float64, shape (T,), unless said otherwise.

    Attributes
    ----------
    order : teachers, best student first, ties by number; int64.
    accuracy : of each teacher's student on the test items.
    behind : how much less accurate it is than the best.
    low, high : 95 % interval of that.
    """

    order: np.ndarray
    accuracy: np.ndarray
    behind: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fit_student(features: np.ndarray, labels: np.ndarray, *, l2: float = 0.01) -> Student:
    """Fit a linear model to soft labels.

    The least of −(1 / N) Σ_i Σ_k q_ik log softmax(W x_i + b)_k + l2 / 2 |W|², of standardised x.

    Parameters
    ----------
    features
        Shape (N, D), N ≥ 1.
    labels
        q ≥ 0, shape (N, K); rows that are 0 teach nothing. Not all are.
    l2
        > 0.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite or a label negative, all labels are 0, or l2 is
        not positive.

    Notes
    -----
    Convex; L-BFGS from 0, on one thread, so that the same rows in the same order give the same
    bits.

    Examples
    --------
    >>> x, q = np.array([[-1.0], [1.0]]), np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> fit_student(x, q).logits(x).argmax(axis=1).tolist()
    [0, 1]
    """
    x, q = np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if x.ndim != 2 or q.ndim != 2 or len(x) != len(q) or not len(x) or not l2 > 0:
        raise ValueError(
            "student: features (N, D), as many labels (N, K), N ≥ 1, and l2 > 0 were expected, got "
            f"{x.shape}, {q.shape} and {l2:g}"
        )
    if not (np.isfinite(x).all() and np.isfinite(q).all() and (q >= 0).all()):
        raise ValueError("student: finite features and labels of at least 0 were expected")
    if not q.any():
        raise ValueError(f"student: a label above 0 was expected, all of {len(q)} rows are 0")
    mean, std = x.mean(axis=0), x.std(axis=0)
    # What is left of a constant feature is rounding.
    std = np.where(std > 1e-9 * (1 + np.abs(mean)), std, 1.0)
    z = (x - mean) / std
    shape, mass = (x.shape[1] + 1, q.shape[1]), q.sum(axis=1, keepdims=True)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(shape)
        log_p = log_softmax(z @ theta[:-1] + theta[-1], axis=1)
        slope = (mass * np.exp(log_p) - q) / len(q)
        grad = np.vstack([z.T @ slope + l2 * theta[:-1], slope.sum(axis=0)])
        value = -(q * log_p).sum() / len(q) + l2 / 2 * (theta[:-1] ** 2).sum()
        return float(value), grad.ravel()

    with threadpool_limits(limits=1):
        found = minimize(
            loss,
            np.zeros(shape[0] * shape[1]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_STEPS, "ftol": 1e-12, "gtol": 1e-7},
        )
    theta = found.x.reshape(shape)
    return Student(theta[:-1], theta[-1], mean, std)


def probe_teachers(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    test_features: np.ndarray,
    reference: np.ndarray,
    l2: float = 0.01,
) -> Probe:
    """Rank teachers by how accurate a linear student of each is.

    Parameters
    ----------
    features
        Of a model that is none of the teachers, such as the embedder of the run; shape (N, D).
    labels
        Each teacher's of these items, shape (T, N, K), T ≥ 1.
    test_features, reference
        Of other items, shape (M, D), and their classes, shape (M,); M ≥ 1.
    l2
        See `fit_student`; the same for all.

    Raises
    ------
    ValueError
        As `fit_student`, or if there is no teacher or no test item.

    Notes
    -----
    The interval is of chance in the test items, with half an item added to each of the four cells
    of a pair; not of chance in the items taught. Where several lie within 0 of the best, the probe
    does not tell them apart.

    References
    ----------
    Shen: FerKD: surgical label adaptation for efficient distillation. ICCV 2023 (the authors' table
    of teachers). Agresti, Min: Simple improved confidence intervals for comparing matched
    proportions. Statistics in Medicine 24, 2005.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> true = (x[:, 0] > 0).astype(int)
    >>> labels = np.stack([np.eye(2)[1 - true], np.eye(2)[true]])
    >>> found = probe_teachers(x, labels, test_features=x, reference=true)
    >>> found.order.tolist(), found.accuracy.tolist()
    ([1, 0], [0.0, 1.0])
    """
    q, true = np.asarray(labels, np.float64), np.asarray(reference)
    if q.ndim != 3 or not len(q) or not len(true) or len(true) != len(test_features):
        raise ValueError(
            "probe_teachers: labels (T, N, K), T ≥ 1, and as many classes as test items, at least "
            f"one, were expected, got {q.shape}, {true.shape} and {np.shape(test_features)}"
        )
    with threadpool_limits(limits=1):
        said = [fit_student(features, of, l2=l2).logits(test_features).argmax(axis=1) for of in q]
    right = np.stack(said) == true
    order = np.lexsort((np.arange(len(right)), -right.sum(axis=1)))
    best = right[order[0]]
    n, better, worse = len(true), (best & ~right).sum(axis=1), (~best & right).sum(axis=1)
    share = (better - worse) / (n + 2)
    apart = (better + worse + 1) / (n + 2)
    half = Z * np.sqrt((apart - share**2) / (n + 2))
    is_best = np.arange(len(right)) == order[0]
    low, high = (np.where(is_best, 0.0, np.clip(share + s * half, -1, 1)) for s in (-1, 1))
    return Probe(order, right.mean(axis=1), (better - worse) / n, low, high)
