"""What a student pays for differing from its teacher, and the derivative by its logits.

One signature: the student's logits, shape (N, K), what it is to learn, and settings; the cost of
every item and its derivative by that item's logits. Teachers have no derivative. A target is
probabilities that sum to one, shape (N, K), or a `SparseTarget`, which costs no K numbers an item;
a teacher is logits or logarithms of probabilities, where −∞ is a probability of 0.
`labelops.nn.distill_losses` has the same for tensors.
"""

# N items, K classes, T teachers, L layers

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax, xlogy

from labelops.distill.targets import SparseTarget, dense, entropy
from labelops.simplex import SUM_TOLERANCE, bad_rows, what_is_wrong

NKD_WEIGHT = 1.5
"""γ of NKD for ImageNet, at a temperature of 1; for CIFAR-100 γ = 3.5 at 3."""

USKD = (1.0, 0.1, 0.005)
"""α, β and μ of USKD for ImageNet; for CIFAR-100 all 0.1."""

SMOOTHING = 0.1
"""Of the label that USKD's second head learns."""

MIX_KD = (0.1, 0.9)
"""γ and α of MIX-KD."""

LEAST_SPREAD = 1e-3
"""Logits that are all alike, as of a network that begins with zeros, would be divided by zero."""

RankBy = Literal["prob", "logprob"]
Layers = Sequence[tuple[np.ndarray, np.ndarray]]


class Cost(NamedTuple):
    """What every item costs.

    Attributes
    ----------
    value : float64, shape (N,).
    slope : derivative by the logits of the item, float64, shape (N, K).
    """

    value: np.ndarray
    slope: np.ndarray


# -- what is passed in -----------------------------------------------------------------------------


def check_logits(logits: np.ndarray, who: str) -> np.ndarray:
    """Return finite logits as float64.

    Raises
    ------
    ValueError
        If they are no matrix with at least one class, or not finite.

    Examples
    --------
    >>> check_logits(np.zeros((2, 3), np.float32), "loss").dtype
    dtype('float64')
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 2 or not z.shape[1]:
        raise ValueError(f"{who}: logits of shape (N, K), K ≥ 1, were expected, got {z.shape}")
    if not np.isfinite(z).all():
        row, column = np.argwhere(~np.isfinite(z))[0]
        raise ValueError(
            f"{who}: finite logits were expected; row {row}, class {column} has {z[row, column]}"
        )
    return z


def check_teacher(teacher: np.ndarray, shape: tuple[int, ...], who: str) -> np.ndarray:
    """Return a teacher's logits or log-probabilities as float64; −∞ is allowed, but not alone.

    Raises
    ------
    ValueError
        If the shape is another, a value is NaN or +∞, or a row has nothing but −∞.
    """
    t = np.asarray(teacher, np.float64)
    if t.shape != shape:
        raise ValueError(f"{who}: a teacher of shape {shape} was expected, got {t.shape}")
    # Written so that NaN is bad.
    bad = ~(t < np.inf).all(axis=-1) | (t == -np.inf).all(axis=-1)
    if bad.any():
        raise ValueError(
            f"{who}: logits or log-probabilities below +∞, one of them finite, were expected of a "
            f"teacher; row {int(np.argmax(bad.ravel()))} has others"
        )
    return t


def check_given(given: np.ndarray, shape: tuple[int, ...], who: str) -> np.ndarray:
    """Return class ids as int64.

    Raises
    ------
    ValueError
        If there is not one an item, they are no integers, or not in 0 … K − 1.
    """
    y = np.asarray(given)
    if y.shape != shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(
            f"{who}: class ids, integers of shape {shape[:1]}, were expected, got {y.dtype} of "
            f"shape {y.shape}"
        )
    if len(y) and not 0 <= y.min() <= y.max() < shape[1]:
        raise ValueError(
            f"{who}: class ids in 0 … {shape[1] - 1} were expected, got {y.min()} … {y.max()}"
        )
    return y.astype(np.int64)


def check_target(
    target: np.ndarray | SparseTarget, shape: tuple[int, ...], who: str
) -> np.ndarray | SparseTarget:
    """Refuse what is no soft label: a target that does not sum to one has another minimum.

    Raises
    ------
    ValueError
        If the shape is another, or a row is no probabilities or does not sum to one; if listed
        classes are no integers in 0 … K − 1.
    """
    if isinstance(target, SparseTarget):
        if (len(target.ids), target.n_classes) != shape or target.ids.dtype.kind not in "iu":
            raise ValueError(
                f"{who}: a target of (items, classes) {shape} with integer ids was expected, got "
                f"({len(target.ids)}, {target.n_classes}) with {target.ids.dtype}"
            )
        if target.ids.size and not 0 <= target.ids.min() <= target.ids.max() < shape[1]:
            raise ValueError(
                f"{who}: listed classes in 0 … {shape[1] - 1} were expected, got "
                f"{target.ids.min()} … {target.ids.max()}"
            )
        total = target.excess.sum(axis=1) + shape[1] * target.even
        # Written so that NaN is bad.
        bad = ~(np.abs(total - 1) <= SUM_TOLERANCE)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(f"{who}: row {row} of the target sums to {total[row]:.4f}, not to 1")
        return target
    q = np.asarray(target, np.float64)
    if q.shape != shape:
        raise ValueError(f"{who}: a target of shape {shape} was expected, got {q.shape}")
    bad = bad_rows(q)
    if len(bad):
        raise ValueError(f"{who}: row {bad[0]} of the target: {what_is_wrong(q[bad[0]])}")
    return q


def check_positive(who: str, **settings: float) -> None:
    """Refuse settings that are not positive numbers.

    Raises
    ------
    ValueError
        If one is not.

    Examples
    --------
    >>> check_positive("nkd", temperature=2.0)
    """
    for name, value in settings.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{who}: a positive {name} was expected, got {value}")


def mean_cost(cost: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return Σ w ℓ / Σ w; without weights the mean, and 0 of no item.

    Parameters
    ----------
    cost
        Of the items, shape (N,).
    weights
        w ≥ 0, shape (N,).

    Raises
    ------
    ValueError
        If weights are not finite and ≥ 0, or all of them are 0.

    Examples
    --------
    >>> mean_cost(np.array([1.0, 4.0]), np.array([1.0, 0.5]))
    2.0
    """
    w = np.ones(len(cost)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != np.shape(cost) or not ((w >= 0) & (w < np.inf)).all():
        raise ValueError(
            f"mean_cost: weights ≥ 0 of shape {np.shape(cost)} were expected, got others"
        )
    if len(w) and not w.any():
        raise ValueError("mean_cost: a weight above 0 was expected, got none: nothing is learned")
    return float((w * cost).sum() / max(w.sum(), np.finfo(float).tiny))


# -- cross-entropy and divergence ------------------------------------------------------------------


def cross_entropy(
    logits: np.ndarray, target: np.ndarray | SparseTarget, *, temperature: float = 1.0
) -> Cost:
    """Return −Σ_c q_c log s_c, s = softmax(z / τ).

    Of a sparse target −Σ_j e_j log s_{i_j} − u Σ_c log s_c, the same without K numbers of q. With
    views of pictures and their soft labels it is the loss of FKD.

    Parameters
    ----------
    logits
        z, shape (N, K).
    target
        q.
    temperature
        τ of the student.

    Raises
    ------
    ValueError
        Here and below: if shapes do not fit, logits are not finite, or a target is no
        probabilities.

    References
    ----------
    Shen, Xing: A fast knowledge distillation framework for visual recognition. ECCV 2022.

    Examples
    --------
    >>> cost = cross_entropy(np.array([[2.0, 1.0, 0.0]]), np.array([[0.5, 0.5, 0.0]]))
    >>> cost.value.round(4).tolist(), cost.slope.round(4).tolist()
    ([0.9076], [[0.1652, -0.2553, 0.09]])
    """
    z = check_logits(logits, "cross_entropy")
    check_positive("cross_entropy", temperature=temperature)
    q = check_target(target, z.shape, "cross_entropy")
    log_s = log_softmax(z / temperature, axis=1)
    s = np.exp(log_s)
    if isinstance(q, np.ndarray):
        value = -(q * log_s).sum(axis=1)
        return Cost(value, (q.sum(axis=1, keepdims=True) * s - q) / temperature)
    at = np.arange(len(z))[:, None], q.ids
    value = -(q.excess * log_s[at]).sum(axis=1) - q.even * log_s.sum(axis=1)
    slope = s - q.even[:, None]
    np.subtract.at(slope, at, q.excess)
    return Cost(value, slope / temperature)


def divergence(
    logits: np.ndarray, target: np.ndarray | SparseTarget, *, temperature: float = 1.0
) -> Cost:
    """Return τ² KL(q ‖ softmax(z / τ)), where q is a teacher at temperature τ.

    τ² keeps the derivative of one size whatever τ is.

    Parameters
    ----------
    logits, target, temperature
        As of `cross_entropy`, from which it differs by the entropy of q, and by τ².

    References
    ----------
    Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. arXiv 1503.02531,
    section 2.

    Examples
    --------
    >>> z = np.array([[2.0, 1.0, 0.0]])
    >>> divergence(z, np.array([[0.5, 0.5, 0.0]])).value.round(4).tolist()
    [0.2145]
    """
    cost = cross_entropy(logits, target, temperature=temperature)
    if isinstance(target, SparseTarget):
        information = entropy(target)
    else:
        q = np.asarray(target, np.float64)
        information = -xlogy(q, q).sum(axis=1)
    square = temperature**2
    return Cost(square * (cost.value - information), square * cost.slope)


def distillation(logits: np.ndarray, teacher: np.ndarray, *, temperature: float = 1.0) -> Cost:
    """Return τ² KL(softmax(z_T / τ) ‖ softmax(z / τ)).

    Parameters
    ----------
    logits
        z, shape (N, K).
    teacher
        z_T, shape (N, K).
    temperature
        τ of both.

    References
    ----------
    Hinton, Vinyals, Dean, arXiv 1503.02531, section 2.

    Examples
    --------
    >>> z, teacher = np.array([[2.0, 1, 0, -1]]), np.array([[3.0, 0, 1, -2]])
    >>> distillation(z, teacher).value.round(6).tolist()
    [0.169823]
    """
    z = check_logits(logits, "distillation")
    check_positive("distillation", temperature=temperature)
    t = check_teacher(teacher, z.shape, "distillation")
    return divergence(z, softmax(t / temperature, axis=1), temperature=temperature)


def average_softmax(teachers: np.ndarray) -> np.ndarray:
    """Return what several teachers say together: the mean of their probabilities, not of logits.

    Its cross-entropy is the mean of those with each teacher. Teachers have the same classes in the
    same order, and have seen the same views; what they stored is averaged by
    `labelops.distill.targets.combine`.

    Parameters
    ----------
    teachers
        Logits, shape (T, N, K).

    Returns
    -------
    float64, shape (N, K); rows sum to one.

    References
    ----------
    Shen, Savvides: MEAL V2: boosting vanilla ResNet-50 to 80%+ top-1 accuracy on ImageNet without
    tricks. arXiv 2009.08453, section 3.2.

    Examples
    --------
    >>> average_softmax(np.array([[[0.0, 0.0]], [[0.0, -np.inf]]])).tolist()
    [[0.75, 0.25]]
    """
    shape = np.shape(teachers)
    if len(shape) != 3 or not shape[0] or not shape[2]:
        raise ValueError(
            f"average_softmax: at least one teacher, shape (T, N, K), was expected, got {shape}"
        )
    z = check_teacher(teachers, shape, "average_softmax")
    return np.asarray(softmax(z, axis=2).mean(axis=0))


# -- the target class and all others, each by itself -----------------------------------------------


def _among(z: np.ndarray, is_in: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return softmax among some classes and its logarithm; 0 for the others, and where none is in.

    `z` may be −∞, `is_in` is a mask, shape (N, K) both.
    """
    inside = np.where(is_in, z, -np.inf)
    top = inside.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(inside - top).sum(axis=1, keepdims=True)
    log_total = top + np.log(np.where(total > 0, total, 1.0))
    log_p = np.where(is_in, z - log_total, 0.0)
    return np.where(is_in, np.exp(log_p), 0.0), log_p


def nkd(
    logits: np.ndarray,
    teacher: np.ndarray,
    given: np.ndarray,
    *,
    weight: float = NKD_WEIGHT,
    temperature: float = 1.0,
) -> Cost:
    """Return the normalised loss (NKD): the given class, and the others among themselves.

    −t_y log s_y − γ λ² Σ_{i ≠ y} t̂_i log ŝ_i; t, s = softmax of teacher and student, t̂, ŝ the
    softmax at λ of the K − 1 logits other than y's. It is added to the cross-entropy with y.

    Parameters
    ----------
    logits
        z, shape (N, K).
    teacher
        Logits, or logarithms of stored probabilities: both give the same, at any λ; shape (N, K).
    given
        y, shape (N,); of mixed labels the class with the largest share.
    weight
        γ.
    temperature
        λ, of the others only.

    Notes
    -----
    Plain distillation at τ = 1 weighs the second part by 1 − t_y and has −(1 − t_y) log(1 − s_y)
    besides. A student equal to its teacher is no minimum: the first part still drives s_y to 1.
    Where a teacher gives the others nothing, or there are none, there is no second part.

    References
    ----------
    Yang et al.: From knowledge distillation to self-knowledge distillation: a unified approach with
    normalized loss and customized soft labels. ICCV 2023, equation 7.

    Examples
    --------
    >>> z, teacher = np.array([[2.0, 1, 0, -1]]), np.array([[3.0, 0, 1, -2]])
    >>> nkd(z, teacher, np.array([0])).value.round(6).tolist()
    [2.144173]
    """
    z = check_logits(logits, "nkd")
    t = check_teacher(teacher, z.shape, "nkd")
    y = check_given(given, z.shape, "nkd")
    check_positive("nkd", temperature=temperature)
    is_given = np.arange(z.shape[1]) == y[:, None]
    log_s = log_softmax(z, axis=1)
    t_y = np.where(is_given, softmax(t, axis=1), 0.0)
    t_others, _ = _among(t / temperature, ~is_given)
    s_others, log_others = _among(z / temperature, ~is_given)
    own = -(t_y * log_s).sum(axis=1)
    others = -(t_others * log_others).sum(axis=1)
    has_others = t_others.sum(axis=1, keepdims=True)
    slope = t_y.sum(axis=1, keepdims=True) * np.exp(log_s) - t_y
    slope += weight * temperature * (has_others * s_others - t_others)
    return Cost(own + weight * temperature**2 * others, slope)


class SelfCost(NamedTuple):
    """What a student without a teacher pays, and its second head; see `uskd`."""

    student: Cost
    weak: Cost


def uskd(
    logits: np.ndarray,
    weak: np.ndarray,
    labels: np.ndarray,
    *,
    weights: tuple[float, float, float] = USKD,
    rank_by: RankBy = "prob",
) -> SelfCost:
    """Return the loss of a student that makes its own soft labels (USKD).

    Student: −α Σ_y P_y log s_y − β Σ_{i ≠ y} Z_i log ŝ_i, with P_y = s_y² + V_y − mean s_y² over
    the batch, and Z by Zipf's law: 1/ρ of the class of rank ρ, over their sum without y. Classes
    are ranked by ŵ_i + ŝ_i, what either head gives them over what it gives all classes but y; y is
    ranked, too. Second head: μ CE(0.9 V + 0.1 / K, w). P and Z have no derivative.

    Parameters
    ----------
    logits
        z, shape (N, K).
    weak
        Logits w of a linear head on features of the last stage but one, shape (N, K).
    labels
        Classes, shape (N,), or mixed labels V of at most two classes, shape (N, K).
    weights
        α, β, μ.
    rank_by
        *prob* ranks by probabilities as the paper says, *logprob* by the student's log s_i /
        (1 − Σ_y log s_y) instead of ŝ_i as the released code does.

    Raises
    ------
    ValueError
        Also if a mixed label has more than two classes.

    Notes
    -----
    Of mixed labels y are both classes, and of the second one the mean is over the items that have
    one. Of ties in a rank the smaller class id is first.

    References
    ----------
    Yang et al., ICCV 2023, section 3.3; details from its code.

    Examples
    --------
    >>> z = np.array([[2.0, 1, 0, -1], [0.5, 0, 1.5, 1]])
    >>> weak = np.array([[1.0, 0, 2, 0.5], [0, 1, 0.5, -1]])
    >>> for by in ("prob", "logprob"):
    ...     student, head = uskd(z, weak, np.array([0, 2]), rank_by=by)
    ...     round(float(student.value.mean() + head.value.mean()), 6)
    0.732252
    0.724559
    """
    z = check_logits(logits, "uskd")
    w = check_logits(weak, "uskd")
    if w.shape != z.shape:
        raise ValueError(f"uskd: a second head of shape {z.shape} was expected, got {w.shape}")
    label = _mixed_label(labels, z.shape)
    on_target, on_others, on_weak = weights
    is_target = label > 0
    log_s = log_softmax(z, axis=1)
    s = np.exp(log_s)
    soft = own_target(s, label)
    zipf = zipf_target(z, w, is_target, rank_by=rank_by)
    s_others, log_others = _among(z, ~is_target)
    value = -on_target * (soft * log_s).sum(axis=1) - on_others * (zipf * log_others).sum(axis=1)
    slope = on_target * (soft.sum(axis=1, keepdims=True) * s - soft)
    slope += on_others * (zipf.sum(axis=1, keepdims=True) * s_others - zipf)
    smooth = (1 - SMOOTHING) * label + SMOOTHING / z.shape[1]
    head = cross_entropy(w, smooth)
    return SelfCost(Cost(value, slope), Cost(on_weak * head.value, on_weak * head.slope))


def _mixed_label(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if np.ndim(labels) < 2:
        given = check_given(labels, shape, "uskd")
        return np.asarray(np.arange(shape[1]) == given[:, None]).astype(np.float64)
    label = dense_target(labels, shape, "uskd")
    most = int((label > 0).sum(axis=1).max(initial=0))
    if most > 2:
        raise ValueError(f"uskd: labels of at most two classes were expected, got one of {most}")
    return label


def dense_target(target: np.ndarray | SparseTarget, shape: tuple[int, ...], who: str) -> np.ndarray:
    """Return a checked target with all its K numbers."""
    q = check_target(target, shape, who)
    return dense(q) if isinstance(q, SparseTarget) else q


def own_target(s: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return P of `uskd`: what is learned of the classes of a label; elsewhere 0.

    Parameters
    ----------
    s
        What the student says, shape (N, K).
    label
        V, shape (N, K); of at most two classes.

    Returns
    -------
    float64, shape (N, K); over a batch of single classes its sum is 1 on average.

    Examples
    --------
    >>> own_target(np.array([[0.6, 0.4], [0.2, 0.8]]), np.eye(2)).round(2).tolist()
    [[0.86, 0.0], [0.0, 1.14]]
    """
    order = np.argsort(-label, axis=1, kind="stable")[:, :2]
    value, square = (np.take_along_axis(x, order, axis=1) for x in (label, s * s))
    is_there = value > 0
    mean = (square * is_there).sum(axis=0) / np.maximum(is_there.sum(axis=0), 1)
    whole = np.zeros(label.shape)
    np.put_along_axis(whole, order, np.where(is_there, square + value - mean, 0.0), axis=1)
    return whole


def zipf_target(
    z: np.ndarray, w: np.ndarray, is_target: np.ndarray, *, rank_by: RankBy
) -> np.ndarray:
    """Return Z of `uskd`: what is learned of the other classes, by rank alone.

    Parameters
    ----------
    z, w
        Logits of the student and its second head, shape (N, K).
    is_target
        Classes of the label, bool, shape (N, K).
    rank_by
        As of `uskd`.

    Returns
    -------
    float64, shape (N, K); rows sum to one, or to 0 if there is no other class.

    Examples
    --------
    >>> z, is_target = np.array([[3.0, 1, 2]]), np.array([[True, False, False]])
    >>> zipf_target(z, z, is_target, rank_by="prob").round(2).tolist()
    [[0.0, 0.4, 0.6]]
    """
    if rank_by not in ("prob", "logprob"):
        raise ValueError(f"uskd: rank_by prob or logprob was expected, got {rank_by!r}")
    score = _odds(w, is_target)
    if rank_by == "prob":
        score = score + _odds(z, is_target)
    else:
        log_s = log_softmax(z, axis=1)
        score = score + log_s / (1 - (log_s * is_target).sum(axis=1, keepdims=True))
    order = np.argsort(-score, axis=1, kind="stable")
    weight = np.empty(z.shape)
    np.put_along_axis(weight, order, 1 / np.arange(1, z.shape[1] + 1)[None, :], axis=1)
    weight = np.where(is_target, 0.0, weight)
    total = weight.sum(axis=1, keepdims=True)
    return np.asarray(weight / np.where(total > 0, total, 1.0))


def _odds(z: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Return p_i / (1 − Σ_y p_y); of a target as large as can be, if need be."""
    others = logsumexp(np.where(is_target, -np.inf, z), axis=1, keepdims=True)
    return np.asarray(np.exp(np.minimum(z - others, 700.0)))


# -- MIX-KD ----------------------------------------------------------------------------------------


def mix_kd(
    logits: np.ndarray,
    teacher: np.ndarray,
    target: np.ndarray | SparseTarget,
    *,
    weights: tuple[float, float] = MIX_KD,
) -> Cost:
    """Return cross-entropy and divergence of logits divided by their own spread (MIX-KD).

    γ CE(q, z / σ(z)) + α KL(softmax(z_T / σ(z_T)) ‖ softmax(z / σ(z))), σ the standard deviation
    over the classes of an item, with K − 1. Neither a shift nor a scale > 0 of logits matters.

    Parameters
    ----------
    logits, teacher
        z and z_T, of items that may be mixed, shape (N, K); both finite.
    target
        q, mixed alike.
    weights
        γ and α.

    References
    ----------
    Choi, Jeon, Shukla, Turaga: Understanding the role of mixup in knowledge distillation: an
    empirical study. WACV 2023; settings from its code.

    Examples
    --------
    >>> z, teacher = np.array([[2.0, 1, 0, -1]]), np.array([[3.0, 0, 1, -2]])
    >>> one, other = (mix_kd(a * z + 3, teacher, np.eye(4)[:1]) for a in (1, 10))
    >>> one.value.round(6).tolist() == other.value.round(6).tolist()
    True
    """
    z, t = (check_logits(x, "mix_kd") for x in (logits, teacher))
    on_target, on_teacher = weights
    spread, of_teacher = (_spread(x) for x in (z, t))
    known = cross_entropy(z / spread, target)
    taught = distillation(z / spread, t / of_teacher)
    inner = on_target * known.slope + on_teacher * taught.slope
    # y = z / σ: dy_j / dz_k = [j = k] / σ − z_j (z_k − mean z) / ((K − 1) σ³).
    centred = z - z.mean(axis=1, keepdims=True)
    turned = (inner * z).sum(axis=1, keepdims=True) * centred / max(z.shape[1] - 1, 1)
    slope = inner / spread - np.where(spread > LEAST_SPREAD, turned / spread**3, 0.0)
    return Cost(on_target * known.value + on_teacher * taught.value, slope)


def _spread(z: np.ndarray) -> np.ndarray:
    if z.shape[1] < 2:
        return np.ones((len(z), 1))
    return np.asarray(np.maximum(z.std(axis=1, ddof=1, keepdims=True), LEAST_SPREAD))


# -- MEAL V2's discriminator -----------------------------------------------------------------------


def discriminated(values: np.ndarray, layers: Layers, *, last_relu: bool = False) -> np.ndarray:
    """Return a discriminator's two outputs on vectors of K numbers; float64, shape (N, 2).

    Parameters
    ----------
    values
        Probabilities of student or teacher, shape (N, K); logits where both are at hand.
    layers
        Weights and biases, shapes (out, in) and (out,), with ReLU between.
    last_relu
        ReLU after the last as well, as released: then `discriminator_loss` is ½ log 2 at least.

    Examples
    --------
    >>> discriminated(np.array([[1.0, 2.0]]), [(np.eye(2), np.array([-2.0, 0.0]))]).tolist()
    [[-1.0, 2.0]]
    """
    x = np.asarray(values, np.float64)
    for place, (weight, bias) in enumerate(layers):
        x = x @ np.asarray(weight).T + bias
        if last_relu or place + 1 < len(layers):
            x = np.maximum(x, 0.0)
    return np.asarray(x)


def discriminator_loss(of_student: np.ndarray, of_teacher: np.ndarray) -> np.ndarray:
    """Return how badly student and teacher are told apart; float64, shape (N,).

    The mean over the four outputs of an item of binary cross-entropy, with targets (1, 0) for the
    student and (0, 1) for the teacher.

    Parameters
    ----------
    of_student, of_teacher
        From `discriminated`, shape (N, 2).

    Notes
    -----
    As released, student and discriminator both lower it, which drives the student away from its
    teacher. An adversarial student raises it: `labelops.nn.distill_losses.Discriminator`.

    References
    ----------
    Shen, Savvides, arXiv 2009.08453, section 3.3.

    Examples
    --------
    >>> discriminator_loss(np.zeros((1, 2)), np.zeros((1, 2))).round(4).tolist()
    [0.6931]
    """
    signs = np.array([1.0, -1.0])
    parts = [np.logaddexp(0, -of_student * signs), np.logaddexp(0, of_teacher * signs)]
    return np.asarray(np.concatenate(parts, axis=1).mean(axis=1))
