"""Sparse soft labels: the few probable classes of an item, exactly enough to train on.

For every item the k most probable classes are kept with their probabilities, the given class
always among them, and the mass of all others in one number. Ids are integers (a class id in a
half-precision float is wrong from 2 049 on), probabilities are half precision, and the residual
mass is the true one, not one minus the rounded values.
"""

# N items, K classes, M stored values

from typing import NamedTuple

import numpy as np

from labelops.ragged import offsets, owners


class SoftLabels(NamedTuple):
    """Sparse soft labels of N items.

    Attributes
    ----------
    ids : class ids item after item, most probable first; uint16 up to 65 536 classes, else uint32.
    probs : their probabilities, float16.
    offsets : item i owns ``ids[offsets[i]:offsets[i + 1]]``; int32, shape (N + 1,).
    tail : probability of all classes that are not stored, float16, shape (N,).
    n_classes : K.
    """

    ids: np.ndarray
    probs: np.ndarray
    offsets: np.ndarray
    tail: np.ndarray
    n_classes: int


def id_type(n_classes: int) -> np.dtype:
    """Return the smallest unsigned type that holds every class id.

    Examples
    --------
    >>> id_type(65_536), id_type(65_537)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint16 if n_classes <= 1 << 16 else np.uint32)


def top_classes(probs: np.ndarray, *, k: int) -> np.ndarray:
    """Return the k ≤ K most probable classes of every item, most probable first.

    Returns
    -------
    Class ids, int64, shape (N, k); ties by smaller id.

    Notes
    -----
    k sweeps of arg-max: for the usual k ≤ 10 faster than sorting, and ties are always broken alike.

    Examples
    --------
    >>> top_classes(np.array([[0.2, 0.4, 0.4], [0.9, 0.0, 0.1]]), k=2).tolist()
    [[1, 2], [0, 2]]
    """
    rest = np.array(probs)
    rows = np.arange(len(rest))
    tops = np.empty((len(rest), k), np.int64)
    for j in range(k):
        tops[:, j] = rest.argmax(axis=1)
        rest[rows, tops[:, j]] = -1
    return tops


def sparsify(probs: np.ndarray, *, given: np.ndarray | None = None, k: int = 5) -> SoftLabels:
    """Keep the k most probable classes and the given one, and the true mass of the rest.

    Parameters
    ----------
    probs
        Probabilities that sum to one, shape (N, K).
    given
        Class ids, shape (N,); stored even if they are not among the top k. Methods that weigh the
        target class by itself need it.
    k
        How many classes to keep; all of them if there are no more.

    Returns
    -------
    SoftLabels with k values an item, or k + 1 where the given class is not among the top k.

    Raises
    ------
    ValueError
        If k < 1, or `probs` is not a matrix.

    Examples
    --------
    >>> soft = sparsify(np.array([[0.5, 0.25, 0.125, 0.125]]), given=np.array([3]), k=2)
    >>> soft.ids.tolist(), soft.probs.tolist(), soft.tail.tolist()
    ([0, 1, 3], [0.5, 0.25, 0.125], [0.125])
    """
    if probs.ndim != 2 or k < 1:
        raise ValueError(
            f"sparsify: probs of shape (N, K) and k ≥ 1 were expected, got {probs.shape} and k={k}"
        )
    exact = np.asarray(probs, np.float64)
    kept = top_classes(exact, k=min(k, probs.shape[1]))
    own = None if given is None else np.asarray(given, np.int64)
    return stored(exact, kept, own, n_classes=probs.shape[1])


def stored(
    probs: np.ndarray,
    kept: np.ndarray,
    own: np.ndarray | None,
    *,
    n_classes: int,
    ids: np.ndarray | None = None,
    others: float | np.ndarray = 0.0,
) -> SoftLabels:
    """Return soft labels of some columns, and the mass of the rest.

    Parameters
    ----------
    probs
        Of classes that may be stored, float64, shape (N, C).
    kept
        Columns to store, most probable first, shape (N, k).
    own
        One more column of each item, if it is not among these, shape (N,).
    n_classes
        K.
    ids
        Class of each column, shape (N, C); the column itself by default.
    others
        Probability of all classes without a column, shape (N,).
    """
    is_stored = np.ones(kept.shape, bool)
    if own is not None:
        is_new = ~(kept == own[:, None]).any(axis=1, keepdims=True)
        is_stored = np.concatenate([is_stored, is_new], axis=1)
        kept = np.concatenate([kept, own[:, None]], axis=1)
    values = np.take_along_axis(probs, kept, axis=1)
    rest = probs.copy()
    np.put_along_axis(rest, kept, 0.0, axis=1)
    classes = kept if ids is None else np.take_along_axis(ids, kept, axis=1)
    return SoftLabels(
        ids=classes[is_stored].astype(id_type(n_classes)),
        probs=values[is_stored].astype(np.float16),
        offsets=offsets(is_stored.sum(axis=1)).astype(np.int32),
        tail=(rest.sum(axis=1) + others).astype(np.float16),
        n_classes=n_classes,
    )


def smooth(soft: SoftLabels) -> np.ndarray:
    """Return dense labels with the residual mass spread evenly over the classes not stored.

    q_c = v_c for stored classes, r / (K − m) for the others ("marginal smoothing"); divided by its
    sum, since rounded values may sum to more than one and a target that does not sum to one shifts
    the minimum of the loss.

    Returns
    -------
    float64, shape (N, K); rows sum to one.

    Examples
    --------
    >>> smooth(sparsify(np.array([[0.5, 0.25, 0.125, 0.125]]), k=2)).tolist()
    [[0.5, 0.25, 0.125, 0.125]]
    """
    m = np.diff(soft.offsets)
    others = np.maximum(soft.n_classes - m, 1)
    dense = np.repeat((soft.tail.astype(np.float64) / others)[:, None], soft.n_classes, axis=1)
    dense[owners(soft.offsets), soft.ids] = soft.probs
    return np.asarray(dense / dense.sum(axis=1, keepdims=True))
