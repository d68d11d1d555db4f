"""Soft labels of views, encoded: a few classes with one number each, and the truth about the rest.

Of every view (a picture, a crop of it, a row of a table) the k most probable classes are stored and
the given one, and of all others what a reader needs: their mass, or, with logits, how high they lie
on average and at the temperature of the teacher, so that a training can temper them anew in every
epoch. The mass is the true one: one minus the rounded values is often below zero.
"""

# V views, K classes, k kept, B classes of a view that are not stored

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from labelops.soft.labels import id_type, top_classes

Kind = Literal["prob", "logprob", "logit"]
Number = Literal["u8", "f16", "f32"]
Rest = Literal["even", "none"]

TYPES: dict[Number, np.dtype] = {
    "u8": np.dtype(np.uint8),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
}

NATS, STEPS = 16.0, 255
"""A byte holds −log p from 0 to 16 nats, in steps of 0.063: p is off by 0.031 at most."""

ERROR: dict[Number, float] = {"u8": 0.064, "f16": 2.0**-9, "f32": 2.0**-20}
"""How far a decoded probability is from that of the same classes without rounding, at most: the
rounding of one value, and as much again since rows are brought to a sum of one."""


class Coding(NamedTuple):
    """How values are stored.

    Attributes
    ----------
    kind : *prob* and *logprob*, at the teacher's temperature; or *logit*, less the highest.
    number : type of the values; *u8* for *logprob* only.
    n_classes : K.
    temperature : τ > 0 of the probabilities, softmax(z / τ); with logits, where the mass of classes
        that are not stored is exact.
    """

    kind: Kind
    number: Number
    n_classes: int
    temperature: float = 1.0


class SoftViews(NamedTuple):
    """Soft labels of V views.

    Attributes
    ----------
    ids : the most probable classes, most probable first; uint16 up to 65 536 classes, else uint32,
        shape (V, k).
    values : theirs, shape (V, k).
    given : the given class, of the type of ids, shape (V,).
    given_value : its own, shape (V,); once more if it is among the k.
    tail : of all classes that are not stored, probability; or, with logits, the τ log-mean-exp of
        z / τ at the stored temperature; float16 or float32, shape (V,).
    tail_mean : with logits their mean, shape (V,); else zeros.
    """

    ids: np.ndarray
    values: np.ndarray
    given: np.ndarray
    given_value: np.ndarray
    tail: np.ndarray
    tail_mean: np.ndarray


def check_coding(coding: Coding) -> Coding:
    """Refuse a coding that cannot be.

    Raises
    ------
    ValueError
        If a name is unknown, *u8* is asked of anything but *logprob*, there is no class, or the
        temperature is not positive.

    Examples
    --------
    >>> check_coding(Coding("logit", "f16", 10)).temperature
    1.0
    """
    is_known = coding.kind in ("prob", "logprob", "logit") and coding.number in TYPES
    if not is_known or (coding.number == "u8" and coding.kind != "logprob"):
        raise ValueError(
            "soft labels: kind prob, logprob or logit in f16 or f32, or logprob in u8, were "
            f"expected, got {coding.kind} in {coding.number}"
        )
    if coding.n_classes < 1 or not 0 < coding.temperature < np.inf:
        raise ValueError(
            "soft labels: at least one class and a positive temperature were expected, got "
            f"{coding.n_classes} and {coding.temperature}"
        )
    return coding


def encode(logits: np.ndarray, given: np.ndarray, *, coding: Coding, k: int) -> SoftViews:
    """Keep the k most probable classes of every view, the given one, and what the others weigh.

    Parameters
    ----------
    logits
        Of the teacher, or logarithms of its probabilities, shape (V, K). −inf, a probability of 0,
        only where no logits are stored.
    given
        Class ids, shape (V,).
    coding
        How.
    k
        How many classes; all if there are no more. Ties go to the smaller id.

    Raises
    ------
    ValueError
        If shapes do not fit, k < 1, a value is NaN or +inf, all of a row are −inf, or a class is
        not in 0 … K − 1.

    Examples
    --------
    >>> z = np.log([[0.5, 0.25, 0.125, 0.125]])
    >>> views = encode(z, np.array([3]), coding=Coding("prob", "f16", 4), k=2)
    >>> views.ids.tolist(), views.values.tolist(), views.given_value.tolist(), views.tail.tolist()
    ([[0, 1]], [[0.5, 0.25]], [0.125], [0.125])
    """
    check_coding(coding)
    z = _checked(logits, given, coding, k) / coding.temperature
    log_p = z - logsumexp(z, axis=1, keepdims=True)
    kept = top_classes(np.exp(log_p), k=min(k, coding.n_classes))
    is_stored = np.zeros(z.shape, bool)
    np.put_along_axis(is_stored, np.column_stack([kept, given]), values=True, axis=1)
    n_others = coding.n_classes - is_stored.sum(axis=1)
    tail_mean = np.zeros(len(z))
    if coding.kind == "logit":
        stored_of = coding.temperature * (z - z.max(axis=1, keepdims=True))
        others = np.where(is_stored, 0.0, stored_of)
        tail_mean = others.sum(axis=1) / np.maximum(n_others, 1)
        tail = _level(np.where(is_stored, -np.inf, stored_of), n_others, coding.temperature)
    else:
        stored_of = log_p
        tail = np.where(is_stored, 0.0, np.exp(log_p)).sum(axis=1)
    number = TYPES["f32" if coding.number == "f32" else "f16"]
    ids = kept.astype(id_type(coding.n_classes))
    return SoftViews(
        ids,
        _written(np.take_along_axis(stored_of, kept, axis=1), coding),
        np.asarray(given).astype(ids.dtype),
        _written(stored_of[np.arange(len(z)), given], coding),
        tail.astype(number),
        tail_mean.astype(number),
    )


def _checked(logits: np.ndarray, given: np.ndarray, coding: Coding, k: int) -> np.ndarray:
    z = np.asarray(logits, np.float64)
    if z.ndim != 2 or z.shape[1] != coding.n_classes or np.shape(given) != (len(z),) or k < 1:
        raise ValueError(
            f"soft labels: logits of shape (V, {coding.n_classes}), as many given classes, and k ≥ "
            f"1 were expected, got {z.shape}, {np.shape(given)} and k={k}"
        )
    least = -np.inf if coding.kind != "logit" else np.finfo(np.float64).min
    # Written so that NaN fails too.
    bad = ~((z >= least) & (z < np.inf)).all(axis=1) | (z == -np.inf).all(axis=1)
    if bad.any():
        raise ValueError(
            "soft labels: finite logits were expected (−inf only for a probability of 0), got "
            f"something else in row {int(np.argmax(bad))}"
        )
    if len(z) and not (np.min(given) >= 0 and np.max(given) < coding.n_classes):
        raise ValueError(
            f"soft labels: given classes in 0 … {coding.n_classes - 1} were expected, got "
            f"{np.min(given)} … {np.max(given)}"
        )
    return z


def _level(others: np.ndarray, n_others: np.ndarray, temperature: float) -> np.ndarray:
    """Return τ log-mean-exp of z / τ over what is not −inf; 0 of nothing."""
    is_any = n_others > 0
    level = np.zeros(len(others))
    total = logsumexp(others[is_any] / temperature, axis=1)
    level[is_any] = temperature * (total - np.log(n_others[is_any]))
    return level


def _written(values: np.ndarray, coding: Coding) -> np.ndarray:
    """Return log-probabilities or logits as they are stored."""
    if coding.number == "u8":
        return np.minimum(np.rint(-values * (STEPS / NATS)), STEPS).astype(np.uint8)
    number = TYPES[coding.number]
    if coding.kind == "prob":
        return np.asarray(np.exp(values).astype(number))
    # What is beyond the type is improbable beyond measure.
    return np.asarray(np.maximum(values, np.finfo(number).min).astype(number))


def read_values(values: np.ndarray, coding: Coding) -> np.ndarray:
    """Return stored values as probabilities, or as logits if they are such; float64.

    Examples
    --------
    >>> coding = Coding("logprob", "u8", 10)
    >>> read_values(np.array([0, 11], np.uint8), coding).round(4).tolist()
    [1.0, 0.5015]
    """
    if coding.number == "u8":
        return np.asarray(np.exp(values.astype(np.float64) * (-NATS / STEPS)))
    exact = values.astype(np.float64)
    return np.asarray(np.exp(exact) if coding.kind == "logprob" else exact)


def decode(
    views: SoftViews, *, coding: Coding, temperature: float | None = None, rest: Rest = "even"
) -> np.ndarray:
    """Return dense soft labels.

    Parameters
    ----------
    views
        From `encode`.
    coding
        With which they were encoded.
    temperature
        τ; None: the stored one. Another only of logits: a mass cannot be tempered.
    rest
        *even*: classes that are not stored share what they have ("marginal smoothing"); *none*:
        they have nothing ("marginal re-norm").

    Returns
    -------
    float64, shape (V, K); rows sum to one.

    Raises
    ------
    ValueError
        If another temperature is asked of probabilities.

    Notes
    -----
    Of B logits that are not stored, their mean m and L = τ₀ log-mean-exp(z / τ₀) are known. At τ
    each counts as m + (L − m) τ₀ / τ, and as the least of the k at most: right at τ₀, at high
    temperatures, and for any τ if they are normally distributed.

    References
    ----------
    Shen, Xing: A fast knowledge distillation framework for visual recognition. ECCV 2022, section 3
    (marginal smoothing and re-norm).

    Examples
    --------
    >>> z, coding = np.array([[2.0, 1.0, 0.0, -1.0]]), Coding("logit", "f32", 4)
    >>> views = encode(z, np.array([0]), coding=coding, k=2)
    >>> decode(views, coding=coding).round(3).tolist()
    [[0.644, 0.237, 0.06, 0.06]]
    >>> decode(views, coding=coding, temperature=4.0, rest="none").round(3).tolist()
    [[0.562, 0.438, 0.0, 0.0]]
    """
    check_coding(coding)
    tau = coding.temperature if temperature is None else temperature
    if coding.kind != "logit" and tau != coding.temperature:
        raise ValueError(
            f"soft labels: these are probabilities at a temperature of {coding.temperature:g}, and "
            f"{tau:g} was asked for. Store logits to temper them anew"
        )
    row = np.arange(len(views.ids))
    ids, given = views.ids.astype(np.int64), views.given.astype(np.int64)
    n_others = coding.n_classes - ids.shape[1] - ~(ids == given[:, None]).any(axis=1)
    values, given_value = (read_values(x, coding) for x in (views.values, views.given_value))
    tail, mean = views.tail.astype(np.float64), views.tail_mean.astype(np.float64)
    if coding.kind == "logit":
        level = mean + (tail - mean) * (coding.temperature / tau)
        other = np.minimum(level, values.min(axis=1, initial=0.0))
    else:
        other = tail / np.maximum(n_others, 1)
    if rest == "none":
        other = np.full(len(row), -np.inf if coding.kind == "logit" else 0.0)
    dense = np.repeat(other[:, None], coding.n_classes, axis=1)
    dense[row, given] = given_value
    np.put_along_axis(dense, ids, values, axis=1)
    if coding.kind == "logit":
        return np.asarray(softmax(dense / tau, axis=1))
    total = dense.sum(axis=1, keepdims=True)
    # All that was stored may have been rounded to nothing.
    dense[total[:, 0] == 0], total[total == 0] = 1.0, coding.n_classes
    return np.asarray(dense / total)


# -- what is lost ----------------------------------------------------------------------------------


def smoothing_loss(probs: np.ndarray, is_stored: np.ndarray) -> np.ndarray:
    """Return KL(p ‖ q) where the rest is shared evenly: r (log B − H(rest)), in nats.

    Parameters
    ----------
    probs
        p, shape (V, K); rows sum to one.
    is_stored
        Bool, shape (V, K).

    Examples
    --------
    >>> p = np.array([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]])
    >>> smoothing_loss(p, np.array([[True, False, False]] * 2)).round(4).tolist()
    [0.0, 0.0101]
    """
    rest = np.where(is_stored, 0.0, probs)
    r, n_others = rest.sum(axis=1), (~is_stored).sum(axis=1)
    within = np.where(rest > 0, rest, 1.0)
    # r H(rest / r) = r log r − Σ p log p
    log_r = np.log(np.where(r > 0, r, 1.0))
    entropy = r * log_r - (rest * np.log(within)).sum(axis=1)
    return np.asarray(np.maximum(r * np.log(np.maximum(n_others, 1)) - entropy, 0.0))


def renormalising_loss(probs: np.ndarray, is_stored: np.ndarray) -> np.ndarray:
    """Return KL(q ‖ p) where the rest has nothing: −log(1 − r), in nats; see `smoothing_loss`.

    The other direction, KL(p ‖ q), is infinite.

    Examples
    --------
    >>> renormalising_loss(np.array([[0.5, 0.5]]), np.array([[True, False]])).round(4).tolist()
    [0.6931]
    """
    kept = np.where(is_stored, probs, 0.0).sum(axis=1)
    return np.asarray(-np.log(np.where(kept > 0, kept, np.nan)))


def check_written(logits: np.ndarray, views: SoftViews, *, coding: Coding) -> np.ndarray:
    """Refuse encoded views that are not what they should be; say what each has lost.

    Decoded, they must be the teacher's probabilities of the stored classes, and the evenly shared
    mass of the others, up to what the type of numbers rounds; and the divergence of that from the
    teacher must be `smoothing_loss`.

    Returns
    -------
    The divergence, float64, shape (V,).

    Raises
    ------
    ArithmeticError
        If they are not: whatever wrote them is wrong.

    Examples
    --------
    >>> z, coding = np.log([[0.5, 0.3, 0.2]]), Coding("logprob", "u8", 3)
    >>> views = encode(z, np.array([0]), coding=coding, k=1)
    >>> check_written(z, views, coding=coding).round(4).tolist()
    [0.0101]
    """
    probs = softmax(np.asarray(logits, np.float64) / coding.temperature, axis=1)
    row, is_stored = np.arange(len(probs)), np.zeros(probs.shape, bool)
    np.put_along_axis(is_stored, views.ids.astype(np.int64), values=True, axis=1)
    is_stored[row, views.given] = True
    r = np.where(is_stored, 0.0, probs).sum(axis=1, keepdims=True)
    even = np.where(is_stored, probs, r / np.maximum((~is_stored).sum(axis=1, keepdims=True), 1))
    off = np.abs(decode(views, coding=coding) - even).max(axis=1, initial=0.0)
    said = smoothing_loss(probs, is_stored)
    safe = np.where(probs > 0, probs, 1.0)
    found = (probs * (np.log(safe) - np.log(np.where(probs > 0, even, 1.0)))).sum(axis=1)
    bad = (off > ERROR[coding.number]) | ~(np.abs(said - found) <= 1e-9 * (1 + found))
    if bad.any():
        view = int(np.argmax(bad))
        raise ArithmeticError(
            f"soft labels: view {view} is {off[view]:.3g} away from what was to be stored, at most "
            f"{ERROR[coding.number]:.3g} was expected; it loses {found[view]:.9g} nats, by the "
            f"closed form {said[view]:.9g}"
        )
    return said


# -- with less of it -------------------------------------------------------------------------------


def keep_classes(views: SoftViews, *, coding: Coding, k: int) -> SoftViews:
    """Return the same with only the k first classes of every view, and the given one.

    What is left out counts as not stored; nothing is read from the teacher again.

    Examples
    --------
    >>> coding = Coding("prob", "f32", 4)
    >>> views = encode(np.log([[0.5, 0.25, 0.125, 0.125]]), np.array([0]), coding=coding, k=3)
    >>> keep_classes(views, coding=coding, k=1).tail.tolist()
    [0.5]
    """
    if k < 1:
        raise ValueError(f"keep_classes: k ≥ 1 was expected, got {k}")
    k = min(k, views.ids.shape[1])
    out = read_values(views.values[:, k:], coding)
    is_out = views.ids[:, k:] != views.given[:, None]
    tail, mean = views.tail.astype(np.float64), views.tail_mean.astype(np.float64)
    if coding.kind == "logit":
        has_given = (views.ids == views.given[:, None]).any(axis=1)
        n = coding.n_classes - views.ids.shape[1] - ~has_given
        n_all, tau = n + is_out.sum(axis=1), coding.temperature
        mean = (n * mean + np.where(is_out, out, 0).sum(axis=1)) / np.maximum(n_all, 1)
        with np.errstate(divide="ignore"):
            parts = np.column_stack([tail / tau + np.log(n), np.where(is_out, out, -np.inf) / tau])
            tail = tau * (logsumexp(parts, axis=1) - np.log(np.maximum(n_all, 1)))
        tail = np.where(n_all > 0, tail, 0.0)
    else:
        tail = tail + np.where(is_out, out, 0.0).sum(axis=1)
    number = views.tail.dtype
    return views._replace(
        ids=views.ids[:, :k],
        values=views.values[:, :k],
        tail=tail.astype(number),
        tail_mean=mean.astype(number),
    )


def take_views(views: SoftViews, rows: np.ndarray | slice) -> SoftViews:
    """Return some views."""
    return SoftViews(*(column[rows] for column in views))
