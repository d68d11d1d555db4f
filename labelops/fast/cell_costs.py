"""What a batch of cells costs and how that changes with every logit, in one pass over the cells.

Definitions are in `labelops.partial.cell_losses`, and settings are the constants there. As tensors,
a loss is dozens of passes over a batch, each with a call of its own; here it is one, in single
precision. Sums go class by class in the order of the items, on the calling thread.
"""

# F folds, n items, K classes

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from labelops.fast.jit import compiled
from labelops.fast.logistic import ONE, TINY, ZERO, exp, halves, log, sides
from labelops.multilabel.labels import UNKNOWN, YES
from labelops.partial import cell_losses as of


class Cells(NamedTuple):
    """A batch.

    Attributes
    ----------
    z : logits, float32, shape (F, n, K).
    states : 1 (yes), 0 (no), −1 (unknown); int8, shape (n, K).
    weight : of what an item costs a fold's network, 0 where it is not trained on it; float32,
        shape (F, n).
    """

    z: np.ndarray
    states: np.ndarray
    weight: np.ndarray


class Cost(NamedTuple):
    """Sum of all weighted costs, and its derivative by every logit, float32, shape (F, n, K)."""

    total: float
    slope: np.ndarray


@compiled()
def _sum(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for value in values:
        total += value
    return total


@compiled()
def _cross_entropy(cells, recalled, target, factor, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    sums = np.zeros(z.shape[2], np.float32)
    t_yes, t_other, t_recalled = np.float32(target[0]), np.float32(target[1]), np.float32(target[2])
    a_unknown, a_recalled = np.float32(factor[0]), np.float32(factor[1])
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                x, state, found = z[f, i, k], states[i, k], recalled[f, i, k] != 0
                p, _q, _cost_yes, cost_no = sides(x)
                t = t_yes if state == YES else t_other
                t = t_recalled if found else t
                a = a_unknown if state == UNKNOWN else ONE
                a = w * (a_recalled if found else a)
                sums[k] += a * (cost_no - t * x)
                slope[f, i, k] = a * (p - t)
    return _sum(sums)


@compiled()
def _asymmetric(cells, is_focused, focus, scale, margin, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    sums = np.zeros(z.shape[2], np.float32)
    margin = np.float32(margin)
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                is_yes, x = states[i, k] == YES, z[f, i, k]
                e, p, q = halves(x)
                shifted = max(p - margin, ZERO)
                rest = ONE - shifted
                power = exp(focus[f, k] * log(max(shifted, TINY)))
                power = power if shifted > ZERO else ZERO
                power_yes = q if is_focused else ONE
                a = w * scale[f, k] * (power_yes if is_yes else power)
                inner = ONE + e
                cost = log(inner if is_yes else rest)
                cost_yes = max(-x, ZERO) + cost
                sums[k] += a * (cost_yes if is_yes else -cost)
                slope[f, i, k] = a * q * (-ONE if is_yes else p / rest)
    return _sum(sums)


@compiled()
def _comic(cells, recalled, focus, scale, margin, taken, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    sums = np.zeros(z.shape[2], np.float32)
    margin, raised = np.float32(margin), np.float32(np.exp(taken))
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                is_given, x = states[i, k] == YES, z[f, i, k]
                is_yes = is_given | (recalled[f, i, k] != 0)
                e, p, q = halves(x)
                shifted = max(p - margin, ZERO)
                rest = ONE - shifted
                inside = log(max(shifted, TINY))
                power, power_more = exp(focus[0, f, k] * inside), exp(focus[1, f, k] * inside)
                power = power if shifted > ZERO else ZERO
                power_more = power_more if shifted > ZERO else ZERO
                below = max(-x, ZERO)
                inner = ONE + e
                # 1 / p of the lowered logit, times e^x if x < 0.
                high = ONE + raised * e if x >= ZERO else e + raised
                q_high = (raised * e if x >= ZERO else raised) / high
                cost = log(inner if is_given else rest)
                inner_more = inner if is_yes else rest
                cost_more = log(high if is_given else inner_more)
                a = w * scale[0, f, k] * (ONE if is_given else power)
                a_more = w * scale[1, f, k] * (ONE if is_yes else power_more)
                sums[k] += a * (below + cost if is_given else -cost)
                sums[k] += a_more * (below + cost_more if is_yes else -cost_more)
                change = q * p / rest
                change_more = -q if is_yes else change
                change_more = -q_high if is_given else change_more
                slope[f, i, k] = a * (-q if is_given else change) + a_more * change_more
    return _sum(sums)


@compiled()
def _focal(cells, recalled, is_hill, height, margin, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    height, margin = np.float32(height), np.float32(margin)
    sums = np.zeros(z.shape[2], np.float32)
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                is_given = states[i, k] == YES
                # −p² log (1 − p) is (1 − p′)² (−log p′) of the negative logit.
                is_yes = is_given | is_hill | (recalled[f, i, k] != 0)
                x = z[f, i, k] - (margin if is_given else ZERO)
                p, q, cost, _cost_no = sides(x if is_yes else -x)
                square = q * q
                value = square * cost
                change = -square * (np.float32(of.FOCUS) * p * cost + q)
                change = change if is_yes else -change
                hill = (height - p) * p * p
                of_hill = p * p * q * (height + height - p - p - p)
                is_weak = is_hill & (not is_given)
                sums[k] += w * (hill if is_weak else value)
                slope[f, i, k] = w * (of_hill if is_weak else change)
    return _sum(sums)


@compiled()
def _entropy(cells, pseudo, entropy, taught, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    entropy, taught = np.float32(entropy), np.float32(taught)
    sums = np.zeros(z.shape[2], np.float32)
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                x, state, t = z[f, i, k], states[i, k], pseudo[f, i, k]
                p, q, cost_yes, cost_no = sides(x)
                has = t == t
                t = t if has else ZERO
                value = taught * (cost_no - t * x) if has else entropy * (x * p - cost_no)
                change = taught * (p - t) if has else entropy * x * p * q
                known = cost_yes if state == YES else cost_no
                sums[k] += w * (value if state == UNKNOWN else known)
                known = -q if state == YES else p
                slope[f, i, k] = w * (change if state == UNKNOWN else known)
    return _sum(sums)


@compiled()
def _frequency(cells, share, said, present, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    sums = np.zeros(z.shape[2], np.float32)
    for f in range(len(z)):
        c, less = share[f], -np.log(share[f])
        for i in range(len(states)):
            w = weight[f, i]
            inside = ONE if w > ZERO else ZERO
            for k in range(z.shape[2]):
                state = states[i, k]
                p, q, cost_yes, cost_no = sides(z[f, i, k])
                left = ONE - c * p
                unsaid, change, still = -log(left), c * p * q / left, (ONE - c) * p / left
                known = cost_yes + less if state == YES else cost_no
                sums[k] += w * (unsaid if state == UNKNOWN else known)
                known = -q if state == YES else p
                slope[f, i, k] = w * (change if state == UNKNOWN else known)
                given = ONE if state == YES else ZERO
                said[f, k] += inside * given
                present[f, k] += inside * (still if state == UNKNOWN else given)
    return _sum(sums)


@compiled()
def _positive_unlabelled(cells, temperature, least, balance, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    temperature, least = np.float32(temperature), np.float32(least)
    balance = np.float32(balance)
    sums = np.zeros(z.shape[2], np.float32)
    n_classes = z.shape[2]
    for f in range(len(z)):
        mean, tau = np.zeros(n_classes, np.float32), np.zeros(n_classes, np.float32)
        found, given = np.zeros(n_classes, np.float32), np.zeros(n_classes, np.float32)
        n = ZERO
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            n += inside
            for k in range(n_classes):
                mean[k] += inside * z[f, i, k]
        n = max(n, ONE)
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            for k in range(n_classes):
                off = z[f, i, k] - mean[k] / n
                tau[k] += inside * off * off
        for k in range(n_classes):
            tau[k] = min(max(temperature * np.sqrt(tau[k] / n), least), ONE)
        for i in range(len(states)):
            inside = ONE if weight[f, i] > ZERO else ZERO
            for k in range(n_classes):
                p, _q, _cost_yes, _cost_no = sides(z[f, i, k] / tau[k])
                found[k] += inside * p
                given[k] += inside * (ONE if states[i, k] == YES else ZERO)
        common, pull = mean, np.empty(n_classes, np.float32)
        for k in range(n_classes):
            share = found[k] / n + np.float32(1e-10)
            balanced = share**balance
            common[k], pull[k] = balanced * np.log(share), balanced / share
            given[k] = n / max(given[k], ONE)
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(n_classes):
                p, q, cost_yes, _cost_no = sides(z[f, i, k] / tau[k])
                own = given[k] if states[i, k] == YES else ZERO
                sums[k] += w * (common[k] + own * cost_yes)
                slope[f, i, k] = w / tau[k] * q * (pull[k] * p - own)
    return _sum(sums)


@compiled()
def _mixed(cells, order, share, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    share = np.float32(share)
    slope[:] = ZERO
    sums = np.zeros(z.shape[2], np.float32)
    half, rest = len(order), ONE - share
    for f in range(len(z)):
        for i in range(half):
            a, b = order[i], len(states) - half + i
            w = ONE / np.float32(half) if weight[f, a] > ZERO and weight[f, b] > ZERO else ZERO
            for k in range(z.shape[2]):
                p_a, q_a, _yes, _no = sides(z[f, a, k])
                p_b, q_b, _yes, _no = sides(z[f, b, k])
                is_a, is_b = states[a, k] == YES, states[b, k] == YES
                target = share * (ONE if is_a else p_a) + rest * (ONE if is_b else p_b)
                target = max(target, TINY)
                _p, q, cost, _no = sides(share * z[f, a, k] + rest * z[f, b, k])
                off = log(target) + cost
                sums[k] += w * off * off
                twice = w * (off + off)
                # Of a given yes the target is 1, whatever is said of it.
                moved = (ZERO if is_a else p_a * q_a) / target
                slope[f, a, k] += twice * share * (moved - q)
                moved = (ZERO if is_b else p_b * q_b) / target
                slope[f, b, k] += twice * rest * (moved - q)
    return _sum(sums)


@compiled()
def _expected(cells, pull, slope):  # type: ignore[no-untyped-def]
    z, states, weight = cells
    sums = np.zeros(z.shape[2], np.float32)
    for f in range(len(z)):
        for i in range(len(states)):
            w = weight[f, i]
            for k in range(z.shape[2]):
                state = states[i, k]
                p, q, cost_yes, cost_no = sides(z[f, i, k])
                value = cost_yes if state == YES else cost_no
                change = -q if state == YES else p
                is_known = state != UNKNOWN
                sums[k] += w * (value if is_known else ZERO)
                slope[f, i, k] = w * ((change if is_known else ZERO) + pull[f] * p * q)
    return _sum(sums)


@compiled()
def _agree(z, other, weight, slope, of_other):  # type: ignore[no-untyped-def]
    sums = np.zeros(z.shape[2], np.float32)
    for f in range(len(z)):
        for i in range(z.shape[1]):
            w = weight[f, i]
            for k in range(z.shape[2]):
                x, y = z[f, i, k], other[f, i, k]
                p, _q, _yes, cost = sides(x)
                p_other, _q, _yes, cost_other = sides(y)
                sums[k] += w * (cost - p_other * x + cost_other - p * y)
                slope[f, i, k] += w * (p - p_other)
                of_other[f, i, k] += w * (p_other - p)
    return _sum(sums)


@compiled()
def _tail(n_yes, factor, power, weight, scale):  # type: ignore[no-untyped-def]
    for f in range(len(n_yes)):
        most = ONE
        for k in range(n_yes.shape[1]):
            most = max(most, n_yes[f, k])
        for k in range(n_yes.shape[1]):
            weight[f, k] = (1 - np.log(max(n_yes[f, k], ONE) / most)) ** power
            scale[f, k] = weight[f, k] * factor[f]


def _costs(kernel: Callable[..., float], cells: Cells, *settings: Any) -> Cost:
    slope = np.empty_like(cells.z)
    return Cost(kernel(tuple(cells), *settings, slope), slope)


@lru_cache(maxsize=4)
def _nothing(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.int8)


def _or_none(recalled: np.ndarray | None, cells: Cells) -> np.ndarray:
    return _nothing(cells.z.shape) if recalled is None else recalled


def cross_entropy(
    cells: Cells,
    *,
    yes: float = 1.0,
    other: float = 0.0,
    unknown: float = 1.0,
    recalled: np.ndarray | None = None,
    taught: float = 1.0,
    kept: float = 1.0,
) -> Cost:
    """Return cross-entropy with targets and weights by state.

    Parameters
    ----------
    cells
        The batch.
    yes, other
        Targets of a yes, and of a no or an unknown cell.
    unknown
        Weight of unknown cells.
    recalled
        1 where an unknown cell is recalled, int8, shape (F, n, K).
    taught, kept
        Target and weight of those.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> cost = cross_entropy(Cells(z, np.array([[1, -1]], np.int8), once), unknown=0.5)
    >>> round(cost.total, 3), cost.slope.tolist()
    (1.04, [[[-0.5, 0.25]]])
    """
    settings = _or_none(recalled, cells), (yes, other, taught), (unknown, kept)
    return _costs(_cross_entropy, cells, *settings)


def asymmetric(
    cells: Cells,
    focus_no: np.ndarray,
    *,
    scale: np.ndarray | None = None,
    focuses_yes: bool = True,
    margin: float = of.ASYMMETRIC[2],
) -> Cost:
    """Return the asymmetric loss; powers, which focus, have no derivative.

    Parameters
    ----------
    cells
        The batch.
    focus_no, scale
        Exponent of a no, and a factor of all, of each class; float32, shape (F, K).
    focuses_yes
        Whether the exponent of a yes is 1; otherwise 0.
    margin
        Of a no.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> cells = Cells(z, np.array([[1, -1]], np.int8), once)
    >>> round(asymmetric(cells, np.full((1, 2), 4, np.float32)).total, 3)
    0.371
    """
    scale = np.ones_like(focus_no) if scale is None else scale
    return _costs(_asymmetric, cells, focuses_yes, focus_no, scale, margin)


def multi_focal(cells: Cells, n_yes: np.ndarray) -> Cost:
    """Return COMIC's multi-focal loss.

    Parameters
    ----------
    cells
        The batch.
    n_yes
        Given positives of each class, float32, shape (F, K).

    Examples
    --------
    >>> z, once = np.array([[[2, -1]]], np.float32), np.ones((1, 1), np.float32)
    >>> cells = Cells(z, np.array([[1, -1]], np.int8), once)
    >>> round(multi_focal(cells, np.array([[1240, 100]], np.float32)).total, 4)
    0.1273
    """
    weight, scale = np.empty((2, *n_yes.shape), np.float32)
    _tail(n_yes, np.ones(len(n_yes), np.float32), of.TAIL_POWER, weight, scale)
    _, focus_no, margin = of.MULTI_FOCAL
    weight += np.float32(focus_no)
    return asymmetric(cells, weight, scale=scale, focuses_yes=False, margin=margin)


def comic(
    cells: Cells,
    recalled: np.ndarray,
    *,
    n_given: np.ndarray,
    n_yes: np.ndarray,
    per_yes: np.ndarray,
) -> Cost:
    """Return COMIC's multi-focal loss and a fifth of that of its corrector.

    Parameters
    ----------
    cells
        The batch.
    recalled
        1 where an unknown cell is recalled, int8, shape (F, n, K).
    n_given, n_yes
        Positives of each class, without and with those recalled in the epoch; float32, (F, K).
    per_yes
        Items of the batch over its number of yes; float32, shape (F,).

    Examples
    --------
    >>> z, once = np.array([[[1, 9]]], np.float32), np.ones((1, 1), np.float32)
    >>> n, found = np.array([[2, 1]], np.float32), np.array([[[0, 1]]], np.int8)
    >>> cells, both = Cells(z, np.array([[1, -1]], np.int8), once), n + found[0]
    >>> per_yes = np.array([0.5], np.float32)
    >>> round(comic(cells, found, n_given=n, n_yes=both, per_yes=per_yes).total, 3)
    3.259
    """
    weight, scale = np.empty((2, 2, *n_yes.shape), np.float32)
    _tail(n_given, np.ones_like(per_yes), of.TAIL_POWER, weight[0], scale[0])
    share = np.float32(of.CORRECTOR) * per_yes
    _tail(n_yes, share, of.RECALL_TAIL_POWER, weight[1], scale[1])
    _, focus_no, margin = of.MULTI_FOCAL
    weight += np.float32(focus_no)
    return _costs(_comic, cells, recalled, weight, scale, margin, of.MARGIN)


def hill(cells: Cells) -> Cost:
    """Return the Hill loss.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> hill(Cells(z, np.array([[-1]], np.int8), once)).total
    0.25
    """
    return _costs(_focal, cells, _or_none(None, cells), True, of.HILL, of.MARGIN)


def splc(cells: Cells, recalled: np.ndarray | None = None) -> Cost:
    """Return the focal margin loss; recalled cells (int8, shape (F, n, K)) are a yes.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> round(splc(Cells(z, np.array([[-1]], np.int8), once)).total, 4)
    0.1733
    """
    return _costs(_focal, cells, _or_none(recalled, cells), False, of.HILL, of.MARGIN)


def entropy_maximising(cells: Cells, pseudo: np.ndarray | None = None) -> Cost:
    """Return the EM loss; pseudo-labels (float32, shape (F, n, K)) are NaN where there are none.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> round(entropy_maximising(Cells(z, np.array([[-1]], np.int8), once)).total, 4)
    -0.0693
    """
    if pseudo is None:
        pseudo = np.full(cells.z.shape, np.nan, np.float32)
    return _costs(_entropy, cells, pseudo, of.ENTROPY, of.PSEUDO)


def frequency(cells: Cells, share: np.ndarray) -> tuple[Cost, np.ndarray, np.ndarray]:
    """Return minus the log-likelihood of what was said; and how much was, and how much is present.

    Parameters
    ----------
    cells
        The batch.
    share
        Of what is present, what is said; float32, shape (F,).

    Returns
    -------
    The cost, and sums over the items that a network is trained on, float32, shape (F, K) each.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> cells = Cells(z, np.array([[1, -1]], np.int8), once)
    >>> cost, said, present = frequency(cells, np.array([0.5], np.float32))
    >>> round(cost.total, 3), said.tolist(), present.round(3).tolist()
    (1.674, [[1.0, 0.0]], [[1.0, 0.3330000042915344]])
    """
    said, present = np.zeros((2, len(cells.z), cells.z.shape[2]), np.float32)
    return _costs(_frequency, cells, share, said, present), said, present


def positive_unlabelled(cells: Cells, *, balance: float = of.BALANCE) -> Cost:
    """Return the loss of PU-MLC, over the items that a network is trained on.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> round(positive_unlabelled(Cells(z, np.array([[-1]], np.int8), once)).total, 4)
    -0.4734
    """
    settings = of.TEMPERATURE, of.LEAST_TEMPERATURE, balance
    return _costs(_positive_unlabelled, cells, *settings)


def mixed(cells: Cells, order: np.ndarray, *, share: float) -> Cost:
    """Return the mean over pairs of items of how far opinions are from mixtures.

    Derived through targets and opinions; weights only say which pairs count, those of two items
    that a network is trained on.

    Examples
    --------
    >>> z, once = np.zeros((1, 2, 1), np.float32), np.ones((1, 2), np.float32)
    >>> cells = Cells(z, np.array([[-1], [-1]], np.int8), once)
    >>> round(mixed(cells, np.array([0]), share=0.5).total, 6)
    0.0
    """
    return _costs(_mixed, cells, order, share)


def expected_positives(cells: Cells, excess: np.ndarray) -> Cost:
    """Return the loss of expected positives.

    Parameters
    ----------
    cells
        The batch.
    excess
        How many more classes an item has on average than are expected; float32, shape (F,).

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> cells = Cells(z, np.array([[1, -1]], np.int8), once)
    >>> round(expected_positives(cells, np.array([0.0], np.float32)).total, 3)
    0.693
    """
    k = cells.z.shape[2]
    cost = _costs(_expected, cells, (excess * np.float32(2 / k)).astype(np.float32))
    of_batch = float((cells.weight.sum(axis=1) * excess**2).sum() / k)
    return cost._replace(total=cost.total + of_batch)


def role(cells: Cells, estimates: np.ndarray, excess: np.ndarray) -> tuple[Cost, np.ndarray]:
    """Return the loss of a classifier and of estimates that teach each other.

    Parameters
    ----------
    cells
        The batch.
    estimates
        Their logits, float32, shape (F, n, K).
    excess
        As of `expected_positives`, of the classifier and of the estimates, shape (2, F).

    Returns
    -------
    The cost, derived by the classifier's logits; and the derivative by those of the estimates.

    Examples
    --------
    >>> z, once = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> cells = Cells(z, np.array([[1]], np.int8), once)
    >>> cost, slope = role(cells, z, np.zeros((2, 1), np.float32))
    >>> round(cost.total, 3), slope.tolist()
    (1.386, [[[-0.25]]])
    """
    halved = cells._replace(weight=cells.weight / 2)
    both = [
        expected_positives(halved._replace(z=z), own)
        for z, own in zip((cells.z, estimates), excess, strict=True)
    ]
    slopes = both[0].slope, both[1].slope
    agreed = _agree(cells.z, estimates, halved.weight, *slopes)
    return Cost(both[0].total + both[1].total + agreed, slopes[0]), slopes[1]
