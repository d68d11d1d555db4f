"""How many labels of each class are wrong, how many missing: confident learning, two by two.

What `labelops.confident` computes for one K × K joint, for K joints of 2 × 2 at once, with the same
bits: 10 000 of them take no longer than one large one.
"""

from typing import NamedTuple

import numpy as np

from labelops.confident.filters import BY_CLASSES, BY_LOWEST, BY_PAIRS, Settings
from labelops.confident.intervals import Interval, jeffreys
from labelops.confident.joint import TINY
from labelops.confident.prune import check_settings
from labelops.multilabel.cells import Counts
from labelops.multilabel.labels import NO, YES
from labelops.multilabel.resampling import ratio

# K classes; the last two axes of joint_K22 are the given and the true state


class Estimates(NamedTuple):
    """Estimates of every class.

    Attributes
    ----------
    n_given : items with a known state, by given state; int64, shape (K, 2).
    thresholds : mean probability of the given state; 2 where no item has it. Shape (K, 2).
    joint : confident joint, given state × true state; int64, shape (K, 2, 2).
    calibrated : the same scaled to all items with a known state; int64, shape (K, 2, 2).
    n_wrong : items said to have the class that do not; int64, shape (K,).
    n_missing : items that have the class though it was ruled out; int64, shape (K,).
    wrong_rate : P(absent | said to be present); NaN for a class that nobody was given.
    missing_rate : P(present | ruled out); NaN for a class that everybody was given.
    missed_share : P(ruled out | present); NaN for a class that nobody has.
    false_share : P(said to be present | absent); NaN for a class that everybody has.
    """

    n_given: np.ndarray
    thresholds: np.ndarray
    joint: np.ndarray
    calibrated: np.ndarray
    n_wrong: np.ndarray
    n_missing: np.ndarray
    wrong_rate: np.ndarray
    missing_rate: np.ndarray
    missed_share: np.ndarray
    false_share: np.ndarray


def estimate(counts: np.ndarray, n_given: np.ndarray, thresholds: np.ndarray) -> Estimates:
    """Turn the `Counts.joint` of all items, int64, shape (K, 2, 2), into estimates of all classes.

    `n_given` items have each class and given state, int64, shape (K, 2).

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning. JAIR 70, 2021, equation 3. Thyagarajan et al.:
    Identifying Incorrect Annotations in Multi-Label Classification Data. 2022, section 3.

    Examples
    --------
    >>> estimates = estimate(np.array([[[90, 10], [1, 9]]]), np.array([[200, 20]]), np.ones((1, 2)))
    >>> estimates.calibrated[0].tolist(), estimates.n_missing.tolist(), estimates.n_wrong.tolist()
    ([[180, 20], [2, 18]], [20], [2])
    """
    # At least one right label is granted to either state.
    joint = np.maximum(counts, np.eye(2, dtype=np.int64))
    calibrated = calibrate(joint, n_given)
    n_missing, n_wrong = calibrated[:, NO, YES], calibrated[:, YES, NO]
    return Estimates(
        n_given=n_given,
        thresholds=thresholds,
        joint=joint,
        calibrated=calibrated,
        n_wrong=n_wrong,
        n_missing=n_missing,
        wrong_rate=ratio(n_wrong, n_given[:, YES]),
        missing_rate=ratio(n_missing, n_given[:, NO]),
        missed_share=ratio(n_missing, calibrated[:, :, YES].sum(axis=1)),
        false_share=ratio(n_wrong, calibrated[:, :, NO].sum(axis=1)),
    )


def rate_intervals(counts: np.ndarray) -> Interval:
    """Return Jeffreys' intervals for the missing and the wrong rate of every class.

    What `labelops.confident.intervals.class_intervals` does for one joint, for those of `estimate`.

    Returns
    -------
    Ends of shape (K, 2): of P(present | ruled out), and of P(absent | said to be present).

    Examples
    --------
    >>> ends = rate_intervals(np.array([[[90, 10], [0, 50]]]))
    >>> ends.low.round(3).tolist(), ends.high.round(3).tolist()
    ([[0.053, 0.0]], [[0.17, 0.049]])
    """
    right = np.stack([counts[:, NO, NO], counts[:, YES, YES]], axis=1)
    other = np.stack([counts[:, NO, YES], counts[:, YES, NO]], axis=1)
    return jeffreys(other, right)


def calibrate(joint: np.ndarray, n_given: np.ndarray) -> np.ndarray:
    """Scale every joint so that its rows sum to the given states' sizes; int64, shape (K, 2, 2).

    Does `labelops.confident.joint.calibrate` for all classes, operation by operation.
    """
    by_row = np.maximum(joint.sum(axis=2, keepdims=True), TINY)
    scaled = joint / by_row * n_given[:, :, None]
    # The order of this sum can move a last bit and with it a half: column by column, as there.
    total = scaled[:, 0, 0] + scaled[:, 1, 0] + scaled[:, 0, 1] + scaled[:, 1, 1]
    n_items = n_given.sum(axis=1)
    return round_pairs(scaled / np.maximum(total, TINY)[:, None, None] * n_items[:, None, None])


def round_pairs(values: np.ndarray) -> np.ndarray:
    """Round pairs to integers so that each keeps its rounded sum; shape (…, 2).

    Does `labelops.confident.joint.round_rows` for rows of two. Of equal remainders the second entry
    is raised and the first one lowered.

    Examples
    --------
    >>> round_pairs(np.array([[0.5, 0.5], [1.5, 1.5], [1.2, 0.9]])).tolist()
    [[0, 1], [1, 2], [1, 1]]
    """
    rounded = values.round()
    missing = values.sum(axis=-1).round() - rounded.sum(axis=-1)
    rest = values - rounded
    second_is_larger = rest[..., 1] >= rest[..., 0]
    # The larger remainder is raised, the smaller lowered: the second entry in both cases or not.
    to_second = np.where(missing > 0, second_is_larger, ~second_is_larger)
    rounded[..., 0] += np.where(to_second, 0, missing)
    rounded[..., 1] += np.where(to_second, missing, 0)
    return rounded.astype(np.int64)


def prune_counts(
    calibrated: np.ndarray, *, min_examples: int = 1, frac_noise: float = 1.0
) -> np.ndarray:
    """Do `labelops.confident.prune.prune_counts` for all classes; int64, shape (K, 2, 2).

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    check_settings(min_examples=min_examples, frac_noise=frac_noise)
    kept = np.empty(calibrated.shape)
    for own, other in ((NO, YES), (YES, NO)):
        # Of a given state, as a column of the transposed matrix there.
        right = np.maximum(calibrated[:, own, own], min_examples)
        wrong = np.maximum(calibrated[:, own, other] - (right - calibrated[:, own, own]), 0.0)
        pruned = wrong * frac_noise
        kept[:, own, other] = pruned
        kept[:, own, own] = right + (wrong - pruned)
    # Rows of the rounding are true states.
    return np.ascontiguousarray(round_pairs(np.trunc(kept).transpose(0, 2, 1)).transpose(0, 2, 1))


def quotas(settings: Settings, estimates: Estimates, counts: Counts) -> np.ndarray:
    """Return how many disagreeing cells a filter takes of each group, if it takes so many of each.

    Returns
    -------
    int64, shape (2 K,) by class and given state; for the lowest scores shape (K,) by class. Never
    more than disagree.

    Notes
    -----
    With two classes the items of a pair are those of the given class, in the same order, so "prune
    by noise rate", "prune by class" and "both" differ in the quota alone.
    """
    if settings.filter_by in BY_LOWEST:
        return np.asarray(counts.sure.sum(axis=1))
    keep = settings.min_examples_per_class
    prune = prune_counts(estimates.calibrated, min_examples=keep, frac_noise=settings.frac_noise)
    wanted = counts.disagreeing.copy()
    for own in (NO, YES):
        n = estimates.n_given[:, own]
        if settings.filter_by in BY_PAIRS:
            np.minimum(wanted[:, own], prune[:, own, 1 - own], out=wanted[:, own])
        if settings.filter_by in BY_CLASSES:
            n_class = np.maximum(n - prune[:, own, own], 0)
            np.minimum(wanted[:, own], n_class, out=wanted[:, own])
        wanted[n <= max(keep, 1), own] = 0
    return np.asarray(wanted.ravel())
