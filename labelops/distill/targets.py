"""Soft labels as a loss needs them: a few classes by name, and all others alike.

q_c = u + Σ_j e_j [i_j = c]: every class has u, and the listed ones an excess. What is stored of
views, classes that were drawn and the soft labels of a product all come to this form exactly, and
it is linear: labels are mixed, or teachers averaged, by listing the classes of all of them.
"""

# N items, K classes, m listed classes, T targets

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from labelops.ragged import owners
from labelops.soft.labels import SoftLabels
from labelops.soft.sampled import DrawnLabels
from labelops.soft.views import Coding, Rest, SoftViews, check_coding, read_values


class SparseTarget(NamedTuple):
    """Soft labels of N items; each sums to one.

    Attributes
    ----------
    ids : listed classes, integers, shape (N, m); one that is listed again has no excess there.
    excess : e, what they have beyond u; may be negative; shape (N, m).
    even : u, shape (N,).
    n_classes : K.
    """

    ids: np.ndarray
    excess: np.ndarray
    even: np.ndarray
    n_classes: int


def of_views(
    views: SoftViews, *, coding: Coding, temperature: float | None = None, rest: Rest = "even"
) -> SparseTarget:
    """Return what `labelops.soft.views.decode` returns, without the K numbers of every view.

    Parameters
    ----------
    views, coding, temperature, rest
        As of `decode`.

    Returns
    -------
    SparseTarget with k + 1 listed classes, the given one last.

    Raises
    ------
    ValueError
        If another temperature is asked of probabilities.

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> coding = Coding("prob", "f32", 4)
    >>> views = encode(np.log([[0.5, 0.25, 0.125, 0.125]]), np.array([0]), coding=coding, k=2)
    >>> target = of_views(views, coding=coding)
    >>> target.ids.tolist(), target.excess.tolist(), target.even.tolist()
    ([[0, 1, 0]], [[0.375, 0.125, 0.0]], [0.125])
    """
    check_coding(coding)
    tau = check_temperature(coding, temperature)
    ids = np.column_stack([views.ids, views.given]).astype(np.int64)
    raw = read_values(np.column_stack([views.values, views.given_value]), coding)
    k = views.ids.shape[1]
    is_new = np.ones(ids.shape, bool)
    is_new[:, k] = ~(ids[:, :k] == ids[:, k:]).any(axis=1)
    n_others = coding.n_classes - is_new.sum(axis=1)
    tail, mean = views.tail.astype(np.float64), views.tail_mean.astype(np.float64)
    if coding.kind == "logit":
        level = mean + (tail - mean) * (coding.temperature / tau)
        # As of `decode`: not above the least of the k.
        other = np.minimum(level, raw[:, :k].min(axis=1, initial=0.0))
        highest = np.maximum(raw.max(axis=1), other)
        mass = np.exp((raw - highest[:, None]) / tau)
        even = np.exp((other - highest) / tau)
    else:
        mass, even = raw, tail / np.maximum(n_others, 1)
    if rest == "none":
        even = np.zeros(len(even))
    return _normalised(ids, np.where(is_new, mass - even[:, None], 0.0), even, coding.n_classes)


def check_temperature(coding: Coding, temperature: float | None) -> float:
    """Return the temperature that is asked for, the stored one by default; refuse others of masses.

    Examples
    --------
    >>> check_temperature(Coding("logit", "f16", 10), 4.0)
    4.0
    """
    tau = coding.temperature if temperature is None else temperature
    if not 0 < tau < np.inf:
        raise ValueError(f"soft labels: a positive temperature was expected, got {tau}")
    if coding.kind != "logit" and tau != coding.temperature:
        raise ValueError(
            f"soft labels: these are probabilities at a temperature of {coding.temperature:g}, and "
            f"{tau:g} was asked for. Store logits to temper them anew"
        )
    return tau


def _normalised(
    ids: np.ndarray, excess: np.ndarray, even: np.ndarray, n_classes: int
) -> SparseTarget:
    """Bring sums to one: rounded values need not have that; all may have been rounded to nothing.

    The sum over K classes is Σ e + K u, whether or not there are classes that are not listed.
    """
    total = excess.sum(axis=1) + n_classes * even
    is_some = total > 0
    total = np.where(is_some, total, 1.0)
    return SparseTarget(
        ids,
        np.where(is_some[:, None], excess / total[:, None], 0.0),
        np.where(is_some, even / total, 1 / n_classes),
        n_classes,
    )


def _padded(start: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return rows of different lengths as a matrix, filled up with 0."""
    sizes = np.diff(start)
    row = owners(start)
    whole = np.zeros((len(sizes), int(sizes.max(initial=0))), flat.dtype)
    whole[row, np.arange(len(row)) - start[:-1][row]] = flat
    return whole


def of_drawn(drawn: DrawnLabels) -> SparseTarget:
    """Return drawn classes, counts over draws; as `labelops.soft.sampled.read_drawn`.

    Examples
    --------
    >>> from labelops.soft.sampled import draw_classes
    >>> drawn = draw_classes(np.array([[0.5, 0.5, 0.0]]), np.array([0], np.uint64), n_draws=2)
    >>> of_drawn(drawn).excess.tolist()
    [[0.5, 0.5]]
    """
    ids = _padded(drawn.offsets, drawn.ids.astype(np.int64))
    excess = _padded(drawn.offsets, drawn.counts / drawn.n_draws)
    return SparseTarget(ids, excess, np.zeros(len(ids)), drawn.n_classes)


def of_labels(soft: SoftLabels) -> SparseTarget:
    """Return the soft labels of items; as `labelops.soft.labels.smooth`.

    Examples
    --------
    >>> from labelops.soft.labels import sparsify
    >>> target = of_labels(sparsify(np.array([[0.5, 0.25, 0.125, 0.125]]), k=2))
    >>> target.excess.tolist(), target.even.tolist()
    ([[0.375, 0.125]], [0.125])
    """
    sizes = np.diff(soft.offsets)
    even = soft.tail.astype(np.float64) / np.maximum(soft.n_classes - sizes, 1)
    excess = soft.probs.astype(np.float64) - even[owners(soft.offsets)]
    ids = _padded(soft.offsets, soft.ids.astype(np.int64))
    return _normalised(ids, _padded(soft.offsets, excess), even, soft.n_classes)


def dense(target: SparseTarget) -> np.ndarray:
    """Return all probabilities; float64, shape (N, K).

    Examples
    --------
    >>> one = SparseTarget(np.array([[2]]), np.array([[0.4]]), np.array([0.2]), 3)
    >>> dense(one).round(3).tolist()
    [[0.2, 0.2, 0.6]]
    """
    whole = np.repeat(target.even[:, None], target.n_classes, axis=1).astype(np.float64)
    np.add.at(whole, (np.arange(len(whole))[:, None], target.ids), target.excess)
    return whole


def entropy(target: SparseTarget) -> np.ndarray:
    """Return the entropy of every label in nats; float64, shape (N,).

    Examples
    --------
    >>> one = SparseTarget(np.array([[2, 2]]), np.array([[0.25, 0.0]]), np.array([0.25]), 3)
    >>> entropy(one).round(4).tolist()
    [1.0397]
    """
    # A class that is listed again stands for one that is not listed: both have u.
    listed = _information(target.even[:, None] + target.excess).sum(axis=1)
    n_others = target.n_classes - target.ids.shape[1]
    return np.asarray(listed + n_others * _information(target.even))


def _information(q: np.ndarray) -> np.ndarray:
    """Return −q log q; 0 also just below 0, where a difference was rounded."""
    return np.asarray(-q * np.log(np.where(q > 0, q, 1.0)))


def combine(targets: Sequence[SparseTarget], shares: np.ndarray) -> SparseTarget:
    """Return Σ_t a_t q_t: several teachers averaged, or the labels of mixed items.

    Parameters
    ----------
    targets
        T of them, of the same items and classes.
    shares
        a in [0, 1], shape (T,) or (T, N), that sum to one over t.

    Returns
    -------
    SparseTarget with the listed classes of all; exact, since nothing is left out.

    Raises
    ------
    ValueError
        If there are no targets, they do not fit, or the shares do not sum to one.

    Examples
    --------
    >>> one = SparseTarget(np.array([[0]]), np.array([[1.0]]), np.array([0.0]), 3)
    >>> two = SparseTarget(np.array([[0]]), np.array([[0.7]]), np.array([0.1]), 3)
    >>> both = combine([one, two], np.array([0.5, 0.5]))
    >>> both.ids.tolist(), both.excess.round(3).tolist(), both.even.tolist()
    ([[0, 0]], [[0.85, 0.0]], [0.05])
    """
    share = np.asarray(shares, np.float64)
    kinds = {(len(t.ids), t.n_classes) for t in targets}
    if len(kinds) != 1 or share.shape[:1] != (len(targets),):
        raise ValueError(
            "combine: targets of the same items and classes, and a share of each, were expected, "
            f"got (items, classes) {sorted(kinds)} and shares of shape {share.shape}"
        )
    share = share if share.ndim == 2 else share[:, None]
    if not ((share >= 0).all() and np.allclose(share.sum(axis=0), 1, atol=1e-6)):
        raise ValueError("combine: shares in [0, 1] that sum to one were expected, got others")
    ids = np.concatenate([t.ids for t in targets], axis=1)
    excess = np.concatenate(
        [a[:, None] * t.excess for t, a in zip(targets, share, strict=True)], axis=1
    )
    even = sum(t.even * a for t, a in zip(targets, share, strict=True))
    return SparseTarget(*_merged(ids, excess), np.asarray(even), targets[0].n_classes)


def _merged(ids: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort listed classes, and give the first place of each what all its places have."""
    order = np.argsort(ids, axis=1, kind="stable")
    ids, excess = (np.take_along_axis(x, order, axis=1) for x in (ids, excess))
    is_first = np.diff(ids, axis=1, prepend=-1) != 0
    place = np.maximum.accumulate(np.where(is_first, np.arange(ids.shape[1]), 0), axis=1)
    whole = np.zeros(excess.shape)
    np.add.at(whole, (np.arange(len(ids))[:, None], place), excess)
    return ids, whole


def take_items(target: SparseTarget, rows: np.ndarray | slice) -> SparseTarget:
    """Return the labels of some items.

    Examples
    --------
    >>> both = SparseTarget(np.array([[2], [1]]), np.ones((2, 1)), np.zeros(2), 3)
    >>> take_items(both, np.array([1])).ids.tolist()
    [[1]]
    """
    return target._replace(ids=target.ids[rows], excess=target.excess[rows], even=target.even[rows])
