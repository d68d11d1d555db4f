"""Soft labels of the items of a bag that add up to its class counts, by entropic transport.

Every item has one unit to give to classes, every class takes as many as its count. Of all such
plans the one is chosen that follows the logits and is otherwise as undecided as possible:

    max Σ_ik T_ik z_ik / ε − Σ_ik T_ik log T_ik,  Σ_k T_ik = 1,  Σ_{i ∈ b} T_ik = c_bk,

whose solution is T_ik ∝ exp(z_ik / ε + θ_bk). At ε = 1 it is also the posterior of independent
items given that the counts are *expected*, which differs from the posterior given the counts
(`labelops.proportions.classes`) by what one item's label says about the others': about 1 / V, with
V the variance of the counts.
"""

# N items, B bags, K classes, n items of one bag

from typing import NamedTuple

import numpy as np

from labelops.ragged import offsets

TOLERANCE = 5e-13
"""Counts are met when no class of a bag is off by more than this, per item of the bag."""

MAX_STEPS = 500

NEAR = 1e-10
"""Of the dual, per item: what double precision can tell."""


class Plan(NamedTuple):
    """Soft labels that add up to counts.

    Attributes
    ----------
    beliefs : T, float64, shape (N, K); rows sum to one, exactly up to rounding.
    shift : θ, shape (B, K); −∞ for a class without a count, of mean 0 over the others.
    count_error : most by which a class of each bag is off its count, shape (B,).
    converged : whether that is within tolerance, shape (B,).
    """

    beliefs: np.ndarray
    shift: np.ndarray
    count_error: np.ndarray
    converged: np.ndarray


def transport(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    *,
    regulariser: float = 1.0,
    max_steps: int = MAX_STEPS,
) -> Plan:
    """Return the soft labels of all items by entropic transport inside their bags.

    Parameters
    ----------
    logits
        z, finite, ordered by bag, shape (N, K).
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,); no bag is empty.
    counts
        c ≥ 0, need not be integers, shape (B, K); rows sum to the size of the bag.
    regulariser
        ε > 0. 1 for calibrated logits; smaller ones make labels harder, in the limit the best hard
        assignment.
    max_steps
        When to give up; the plan is then that of the last step, and not converged.

    Raises
    ------
    ValueError
        If arrays do not fit together, counts are negative or do not add up to their bag, or logits
        are not finite.

    Notes
    -----
    The dual Σ_i log Σ_k exp(z_ik / ε + θ_k) − Σ_k c_k θ_k is convex in θ; a step is Newton's where
    that lowers the dual enough, else Sinkhorn's, which always lowers it. Some five to ten steps of
    O(N K²), in which only K × K matrices are solved.

    References
    ----------
    Cuturi: Sinkhorn distances: lightspeed computation of optimal transport. NIPS 2013.
    Liu, Wang, Shen, Qi, Tian: Two-stage training for learning from label proportions. IJCAI 2021.

    Examples
    --------
    >>> plan = transport(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([0, 2]), np.array([[1, 1]]))
    >>> plan.beliefs.round(4).tolist()
    [[0.7311, 0.2689], [0.2689, 0.7311]]
    """
    z, begin, c = checked_classes("transport", logits, start, counts)
    if not regulariser > 0:
        raise ValueError(f"transport: regulariser must be above 0, got {regulariser}")
    z = z / regulariser
    # Logs of 0 belong to classes without a count, and steps that are no number are not taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = _centred(np.log(c) - np.log(np.diff(begin))[:, None])
        beliefs, theta = _solve(z, begin, c, theta, max_steps)
    error = np.abs(_sums(beliefs, begin) - c).max(axis=1, initial=0.0)
    return Plan(beliefs, theta, error, error <= TOLERANCE * np.diff(begin))


def _solve(
    z: np.ndarray, start: np.ndarray, c: np.ndarray, theta: np.ndarray, steps_left: int
) -> tuple[np.ndarray, np.ndarray]:
    log_c, size = np.log(c), np.diff(start)
    beliefs, log_total = _plan(z, theta, size)
    while True:
        sums = _sums(beliefs, start)
        is_open = np.abs(sums - c).max(axis=1, initial=0.0) > TOLERANCE * size
        if not is_open.any() or not steps_left:
            return beliefs, theta
        if is_open.mean() < 0.5:
            rows, cut = np.repeat(is_open, size), offsets(size[is_open])
            beliefs[rows], theta[is_open] = _solve(
                z[rows], cut, c[is_open], theta[is_open], steps_left
            )
            return beliefs, theta
        steps_left -= 1
        newton = _newton(beliefs, sums, c, start)
        tried = _centred(np.where(c > 0, theta + newton, -np.inf))
        trial, trial_total = _plan(z, tried, size)
        promised = (newton * (c - sums)).sum(axis=1)
        gained = _dual(log_total, theta, c, start) - _dual(trial_total, tried, c, start)
        # So near the end the dual no longer shows what was gained, and Newton's steps are right.
        is_good = (gained >= 0.1 * promised) | (np.abs(promised) < NEAR * size)
        sinkhorn = _centred(theta + log_c - np.log(np.maximum(sums, 1e-300)))
        theta = np.where(is_open[:, None], np.where(is_good[:, None], tried, sinkhorn), theta)
        if is_good.all() and is_open.all():
            beliefs, log_total = trial, trial_total
        else:
            beliefs, log_total = _plan(z, theta, size)


def checked_classes(
    who: str, logits: np.ndarray, start: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, starts and counts of bags in double precision, if they fit together."""
    z, begin = np.asarray(logits, np.float64), np.asarray(start, np.int64)
    c = np.asarray(counts, np.float64)
    sizes = np.diff(begin)
    if z.ndim != 2 or len(begin) == 0 or begin[0] != 0 or begin[-1] != len(z) or (sizes < 1).any():
        raise ValueError(
            f"{who}: bags must have one item or more and cover all {len(z)} items in order; got "
            f"starts {begin[:3].tolist()} … {begin[-1:].tolist()}. Are items ordered by bag?"
        )
    if c.shape != (len(sizes), z.shape[1]):
        raise ValueError(
            f"{who}: counts of {len(sizes)} bags and {z.shape[1]} classes were expected, got an "
            f"array of shape {c.shape}"
        )
    off = (c < 0).any(axis=1) | ~(np.abs(c.sum(axis=1) - sizes) <= 1e-6 * sizes)
    if off.any():
        b = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"{who}: counts of a bag must be 0 or more and add up to its size; bag {b} of "
            f"{sizes[b]} items says {c[b].tolist()}. round_class_counts makes counts of shares"
        )
    if not np.isfinite(z).all():
        i = int(np.flatnonzero(~np.isfinite(z).all(axis=1))[0])
        raise ValueError(f"{who}: logits must be finite; item {i} has {z[i].tolist()}")
    return z, begin, c


def _sums(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.zeros((0, values.shape[1]))
    return np.asarray(np.add.reduceat(values, start[:-1], axis=0))


def _plan(z: np.ndarray, theta: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = z + np.repeat(theta, size, axis=0)
    top = score.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(score - top)
    total = e.sum(axis=1, keepdims=True)
    return e / total, (np.log(total) + top)[:, 0]


def _dual(log_total: np.ndarray, theta: np.ndarray, c: np.ndarray, start: np.ndarray) -> np.ndarray:
    given = (c * np.where(c > 0, theta, 0.0)).sum(axis=1)
    return np.asarray(_sums(log_total[:, None], start)[:, 0] - given)


def _newton(beliefs: np.ndarray, sums: np.ndarray, c: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return Newton's step: [diag(Σ T) − Σ T Tᵀ] δ = c − Σ T, with Σ_k δ_k = 0."""
    n_classes = beliefs.shape[1]
    outer = beliefs[:, :, None] * beliefs[:, None, :]
    second = _sums(outer.reshape(len(beliefs), -1), start).reshape(-1, n_classes, n_classes)
    matrix = -second
    diagonal = np.arange(n_classes)
    # A class without a count is left out: a row of its own. The matrix is blind to adding the same
    # to all θ; a constant beside it takes that direction away. A little more on the diagonal keeps
    # it positive where all items are certain.
    is_out = (c == 0).astype(np.float64)
    scale = np.maximum(sums, 1e-12).mean(axis=1)[:, None]
    matrix[:, diagonal, diagonal] += sums + is_out + 1e-12 * scale
    inside = 1 - is_out
    matrix += scale[:, :, None] * inside[:, :, None] * inside[:, None, :] / n_classes
    step = np.linalg.solve(matrix, ((c - sums) * inside)[:, :, None])[:, :, 0]
    return np.clip(step, -20.0, 20.0)


def _centred(theta: np.ndarray) -> np.ndarray:
    is_in = theta > -np.inf
    mean = np.where(is_in, theta, 0.0).sum(axis=1) / np.maximum(is_in.sum(axis=1), 1)
    return np.asarray(theta - mean[:, None])
