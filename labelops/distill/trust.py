"""How far to trust a teacher and how far a label, item by item, so that held-out items are right.

A student learns α_i KD_i + (1 − α_i) CE_i of item i. Nobody says α: it is what, after the next step
of the student, makes the loss on held-out items with clean labels least. To first order that is

    ∂L_out / ∂α_i = −(η / N) ⟨∇_θ′ L_out, ∇_θ (KD_i − CE_i)⟩,

so trust rises where learning from the teacher helps held-out items more than learning from the
label does. Here are the definitions, for a linear student; `labelops.nn.trust` has any student, and
the network that says α of nine numbers of an item, so that it also says it of items it never saw.
"""

# N items, K classes, D features

from typing import NamedTuple

import numpy as np

from labelops.distill.losses import check_given, check_positive, cross_entropy, distillation
from labelops.simplex import bad_rows, what_is_wrong

N_FEATURES = 9

UNIT = 1 << 32


class ClassSums(NamedTuple):
    """What a teacher says of the items of each class, summed exactly, in any order.

    Attributes
    ----------
    n : items, int64, shape (K,).
    total : sum of probabilities in units of 2⁻³², int64, shape (K, K); a row for each class.
    """

    n: np.ndarray
    total: np.ndarray


class Taught(NamedTuple):
    """Items that are trained on.

    Attributes
    ----------
    x : features, one of them 1 if the student has a bias; shape (N, D).
    teacher : logits or log-probabilities, shape (N, K).
    given : class ids, shape (N,).
    """

    x: np.ndarray
    teacher: np.ndarray
    given: np.ndarray


class Known(NamedTuple):
    """Held-out items whose labels are right.

    Attributes
    ----------
    x : features, shape (N, D).
    given : class ids, shape (N,).
    """

    x: np.ndarray
    given: np.ndarray


class Hypergradient(NamedTuple):
    """What held-out items cost after a step, and what trust has to do with it.

    Attributes
    ----------
    loss : their mean cross-entropy.
    slope : derivative by the trust of every item trained on, shape (N,).
    """

    loss: float
    slope: np.ndarray


def _checked(probs: np.ndarray, shape: tuple[int, ...], who: str, what: str) -> np.ndarray:
    p = np.asarray(probs, np.float64)
    if p.ndim != 2 or p.shape != shape:
        wanted = shape if len(shape) == 2 else "(N, K)"
        raise ValueError(f"{who}: {what} of shape {wanted} was expected, got {p.shape}")
    bad = bad_rows(p)
    if len(bad):
        raise ValueError(f"{who}: row {bad[0]} of {what}: {what_is_wrong(p[bad[0]])}")
    return p


def sum_by_class(teacher: np.ndarray, given: np.ndarray) -> ClassSums:
    """Sum what a teacher says, by given class; add the sums of all shards.

    Parameters
    ----------
    teacher
        Probabilities, shape (N, K).
    given
        Class ids, shape (N,).

    Raises
    ------
    ValueError
        If shapes do not fit, rows are no probabilities, or class ids are not in 0 … K − 1.

    Examples
    --------
    >>> sums = sum_by_class(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([1, 1]))
    >>> sums.n.tolist(), (sums.total / UNIT).tolist()
    ([0, 2], [[0.0, 0.0], [1.5, 0.5]])
    """
    p = _checked(teacher, np.shape(teacher), "sum_by_class", "a teacher")
    y = check_given(given, p.shape, "sum_by_class")
    total = np.zeros((p.shape[1], p.shape[1]), np.int64)
    np.add.at(total, y, np.rint(p * UNIT).astype(np.int64))
    return ClassSums(np.bincount(y, minlength=p.shape[1]).astype(np.int64), total)


def class_means(sums: ClassSums) -> np.ndarray:
    """Return what a teacher says of each class on average: T̄, float64, shape (K, K).

    Of a class without items, the same of all classes.

    Examples
    --------
    >>> means = class_means(sum_by_class(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([1, 1])))
    >>> means.tolist()
    [[0.5, 0.5], [0.75, 0.25]]
    """
    total = sums.total.sum(axis=1, keepdims=True)
    there = total > 0
    return np.where(there, sums.total / np.where(there, total, 1), 1 / len(total))


def trust_features(
    student: np.ndarray, teacher: np.ndarray, means: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Return nine numbers of every item, from which trust is said.

    With S what the student says, T the teacher, G the given class as 0 and 1, and T̄ what the
    teacher says of items of this class on average: the squared edges |T̄ − S|², |G − S|², |T − S|²,
    |T − G|², |T̄ − G|² of the triangles that these make, each at most 2; and the probabilities t_y,
    s_y, t̄_y of the given class, and the highest of T.

    Parameters
    ----------
    student, teacher
        Probabilities, shape (N, K).
    means
        T̄ from `class_means`, shape (K, K).
    given
        y, shape (N,).

    Returns
    -------
    float64, shape (N, 9).

    Raises
    ------
    ValueError
        If shapes do not fit, rows are no probabilities, or class ids are not in 0 … K − 1.

    References
    ----------
    Hu et al.: Less or more from teacher: exploiting trilateral geometry for knowledge distillation.
    ICLR 2024, section 3.2. There the features are K numbers for each edge and corner.

    Examples
    --------
    >>> one = np.array([[0.5, 0.5]])
    >>> trust_features(one, np.array([[1.0, 0.0]]), np.eye(2), np.array([1])).tolist()
    [[0.5, 0.5, 0.5, 2.0, 0.0, 0.0, 0.5, 1.0, 1.0]]
    """
    who = "trust_features"
    s = _checked(student, np.shape(student), who, "a student")
    t = _checked(teacher, s.shape, who, "a teacher")
    y = check_given(given, s.shape, who)
    mean = _checked(means, (s.shape[1], s.shape[1]), who, "a mean of each class")[y]
    g = (np.arange(s.shape[1]) == y[:, None]).astype(np.float64)
    edges = [mean - s, g - s, t - s, t - g, mean - g]
    rows = np.arange(len(s))
    numbers = [
        *((edge * edge).sum(axis=1) for edge in edges),
        *(x[rows, y] for x in (t, s, mean)),
        t.max(axis=1),
    ]
    return np.stack(numbers, axis=1)


def step(
    weights: np.ndarray,
    items: Taught,
    trust: np.ndarray,
    *,
    rate: float,
    temperature: float = 1.0,
) -> np.ndarray:
    """Return a linear student after a step of gradient descent on mean α_i KD_i + (1 − α_i) CE_i.

    Parameters
    ----------
    weights
        θ; logits are x θ; shape (D, K).
    items
        What is trained on.
    trust
        α in [0, 1], shape (N,).
    rate
        η.
    temperature
        τ of KD, τ² KL.

    Examples
    --------
    >>> items = Taught(np.ones((1, 1)), np.array([[0.0, -np.inf]]), np.array([1]))
    >>> step(np.zeros((1, 2)), items, np.array([1.0]), rate=1.0).tolist()
    [[0.5, -0.5]]
    """
    alpha = np.asarray(trust, np.float64)
    if alpha.shape != (len(items.x),) or not ((alpha >= 0) & (alpha <= 1)).all():
        raise ValueError(
            f"step: trust in [0, 1] of shape ({len(items.x)},) was expected, got others"
        )
    check_positive("step", rate=rate)
    taught, told = _slopes(weights, items, temperature)
    slope = alpha[:, None] * taught + (1 - alpha[:, None]) * told
    return np.asarray(weights - rate / max(len(alpha), 1) * (items.x.T @ slope))


def _slopes(
    weights: np.ndarray, items: Taught, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of KD and CE of every item by its logits."""
    z = items.x @ weights
    given = check_given(items.given, z.shape, "step")
    label = (np.arange(z.shape[1]) == given[:, None]).astype(np.float64)
    taught = distillation(z, items.teacher, temperature=temperature)
    return taught.slope, cross_entropy(z, label).slope


def hypergradient(
    weights: np.ndarray,
    items: Taught,
    held_out: Known,
    trust: np.ndarray,
    *,
    rate: float,
    temperature: float = 1.0,
) -> Hypergradient:
    """Return what a step costs held-out items, and its derivative by the trust in every item.

    Exact for `step`, without its graph: the closed form above. With θ′ after the step and
    G = ∇_θ′ L_out, shape (D, K), it is −(η / N) (∂(KD_i − CE_i) / ∂z_i) · (x_i G).

    Parameters
    ----------
    weights, items, trust, rate, temperature
        As of `step`.
    held_out
        At least one item whose label is right. Wrong labels among them teach α the noise.

    Raises
    ------
    ValueError
        If there is no held-out item, or something does not fit.

    References
    ----------
    Hu et al., ICLR 2024, equations 7 and 8. In the authors' script α is computed without a
    derivative and never learned.

    Examples
    --------
    >>> items = Taught(np.ones((1, 1)), np.array([[0.0, -np.inf]]), np.array([1]))
    >>> right = Known(np.ones((1, 1)), np.array([0]))
    >>> found = hypergradient(np.zeros((1, 2)), items, right, np.array([0.5]), rate=1.0)
    >>> round(found.loss, 4), found.slope.round(3).tolist()
    (0.6931, [-1.0])
    """
    if not len(held_out.x):
        raise ValueError("hypergradient: at least one held-out item was expected, got none")
    after = step(weights, items, trust, rate=rate, temperature=temperature)
    z = held_out.x @ after
    given = check_given(held_out.given, z.shape, "hypergradient")
    cost = cross_entropy(z, (np.arange(z.shape[1]) == given[:, None]).astype(np.float64))
    outer = held_out.x.T @ cost.slope / len(z)
    taught, told = _slopes(weights, items, temperature)
    slope = -rate / max(len(items.x), 1) * ((taught - told) * (items.x @ outer)).sum(axis=1)
    return Hypergradient(float(cost.value.mean()), slope)


def fused_target(teacher: np.ndarray, given: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Return α_i T_i + (1 − α_i) G_i, whose cross-entropy any trainer can minimise.

    At a temperature of 1 it differs from α_i KD_i + (1 − α_i) CE_i by a number that the student
    has no part in; at another temperature it is another loss.

    Parameters
    ----------
    teacher
        Probabilities, shape (N, K).
    given
        Class ids, shape (N,).
    trust
        α in [0, 1], shape (N,).

    Returns
    -------
    float64, shape (N, K); rows sum to one.

    Examples
    --------
    >>> fused_target(np.array([[0.5, 0.5]]), np.array([1]), np.array([0.4])).tolist()
    [[0.2, 0.8]]
    """
    who = "fused_target"
    t = _checked(teacher, np.shape(teacher), who, "a teacher")
    y = check_given(given, t.shape, who)
    alpha = np.asarray(trust, np.float64)
    if alpha.shape != y.shape or not ((alpha >= 0) & (alpha <= 1)).all():
        raise ValueError(f"{who}: trust in [0, 1] of shape {y.shape} was expected, got others")
    label = (np.arange(t.shape[1]) == y[:, None]).astype(np.float64)
    return np.asarray(alpha[:, None] * t + (1 - alpha[:, None]) * label)
