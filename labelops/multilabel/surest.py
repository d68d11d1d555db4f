"""How much of what is surest contradicts the given states, and so how many of them can be wrong.

A cell that is surely present and was not given is missing, one that is surely absent and was given
is wrong. Further down, the model errs as well: what contradicts there bounds noise from above, also
where people err most on what is hard. Where the share hardly changes on the way down, the model is
out of the way, and the share bounds noise from below, too.
"""

from typing import NamedTuple

import numpy as np

from labelops.confident.intervals import jeffreys
from labelops.confident.surest import MAX_RATE, RISE, RISE_SHARE, Wrong

# M cells, S shares

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the surest cells, so many for each label given."""

LASTING = slice(1, 5)
"""Where the share may not change: the very surest are too few to say so, and of as many cells as
labels were given a good model is wrong about many."""

SURE_LABELS = 50.0
"""At least so many."""

MODEL_ERROR = 0.02
"""So many of its surest cells a model may get wrong. Twice as many as with single labels: of
corel5k, a fifth of its labels hidden and none wrong, it contradicts 1.6 % for sure."""

MOST = 0.95
"""No larger share is told apart from all."""


class Ends(NamedTuple):
    """Between what a share of errors is, in [0, 0.95]; the low end is 0 where nothing is sure."""

    low: float
    high: float


def leading(order: np.ndarray, size: np.ndarray, *, share: float, n_given: float) -> np.ndarray:
    """Return the first rows of an order that stand for a share of all labels given, at least 50.

    Examples
    --------
    >>> leading(np.array([2, 0, 1]), np.array([40.0, 9.0, 30.0]), share=0.1, n_given=100.0).tolist()
    [2, 0]
    """
    wanted = max(SURE_LABELS, share * n_given)
    return order[: int(np.searchsorted(np.cumsum(size[order]), wanted)) + 1]


def surest_first(score: np.ndarray, odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cells in the order of how surely they are present, and of how surely they are absent.

    Absent for how frequent the class is: in a rare one nearly everything is.
    """
    absent = score - np.log(np.maximum(odds, 1e-12))
    return np.argsort(-score, kind="stable"), np.argsort(absent, kind="stable")


def noise_ends(
    score: np.ndarray, is_given: np.ndarray, odds: np.ndarray, weight: np.ndarray
) -> tuple[Ends, Ends]:
    """Return between what α, the share of missing labels, and ω, that of wrong ones, are.

    Parameters
    ----------
    score
        Log-odds of being given, as a fit without noise says, shape (M,).
    is_given
        Given states, bool, shape (M,).
    odds
        How often each cell's class was given, to how often not, shape (M,).
    weight
        How many cells each one stands for, shape (M,).

    Returns
    -------
    95 % intervals of chance around all that the surest cells leave open; see the module.

    Examples
    --------
    Of 2 000 cells whose class is there for certain, every tenth was not given.

    >>> score = np.repeat([9.0, -9.0], 2000) + np.arange(4000) * 1e-4
    >>> is_given = (score > 0) & (np.arange(4000) % 10 > 0)
    >>> missing, wrong = noise_ends(score, is_given, np.ones(4000), np.ones(4000))
    >>> [round(end, 2) for end in (*missing, *wrong)]
    [0.03, 0.21, 0.0, 0.05]
    """
    if not is_given.any():
        return Ends(0.0, MOST), Ends(0.0, MOST)
    weight = weight / float(weight[is_given].mean())
    n_given = float(weight[is_given].sum())
    present, absent = surest_first(score, odds)
    seen, by_odds = np.empty((2, 2, len(SHARES))), np.empty(len(SHARES))
    for s, share in enumerate(SHARES):
        rows = leading(present, weight, share=share, n_given=n_given)
        held = weight[rows]
        # Cells that stand for many are fewer than those many.
        size, n = held.sum(), held.sum() ** 2 / np.square(held).sum()
        seen[0, :, s] = n, held[~is_given[rows]].sum() / size
        rows = leading(absent, weight * odds, share=share, n_given=n_given)
        held = (weight * odds)[rows]
        seen[1, :, s] = held.sum(), min(weight[rows][is_given[rows]].sum() / held.sum(), 1.0)
        by_odds[s] = held @ odds[rows] / held.sum()
    missing, (low, high) = _ends(*seen[0]), _ends(*seen[1])
    # What is given to the absent, for each label given to those not given it.
    low, high = (
        _of_labels(rate, by_odds.mean(), alpha)
        for rate, alpha in ((low, missing.high), (high, missing.low))
    )
    # In some classes far more is wrong than in others (corel5k), and which are looked at depends on
    # the model: from below, only what these cells stand for is counted.
    return missing, Ends(low * SHARES[LASTING.stop - 1], high)


def _ends(n: np.ndarray, rate: np.ndarray) -> Ends:
    chance = jeffreys(n * rate, n * (1 - rate))
    lasting = rate[LASTING]
    rise = max(RISE, RISE_SHARE * lasting.min())
    is_flat = np.ptp(lasting) <= rise and lasting.min() <= MAX_RATE
    low = max(float(chance.low[LASTING].min()) - MODEL_ERROR, 0.0) if is_flat else 0.0
    return Ends(min(low, MOST), min(float(chance.high.max()), MOST))


def _of_labels(rate: float, odds: float, alpha: float) -> float:
    """Return ω, where the share β of absent cells is given: β = rate · odds.

    Of n cells y are given, odds = y / (n − y), and (1 − ω) y / (1 − α) are present; so
    ω y = β (n − (1 − ω) y / (1 − α)), which is solved for ω.
    """
    ratio = odds / (1 - alpha)
    if rate * ratio >= 1:
        return MOST
    return float(np.clip(rate * (1 + odds - ratio) / (1 - rate * ratio), 0.0, MOST))


def expected_errors(n_given: int, *, wrong: float, missing: float) -> tuple[float, float]:
    """Return how many given classes are wrong, and how many present ones were not given.

    Of the given classes the share `wrong` is not there; of the present ones the share `missing`,
    below 1, was ruled out.

    Examples
    --------
    >>> expected_errors(90, wrong=0.0, missing=0.1)
    (0.0, 10.0)
    """
    return n_given * wrong, n_given * (1 - wrong) * missing / (1 - missing)


def error_counts(
    n_given: int, *, missing: float, wrong: float, missing_ends: Ends, wrong_ends: Ends
) -> tuple[Wrong, Wrong]:
    """Return how many labels are missing, and how many are wrong, with bounds.

    Parameters
    ----------
    n_given
        Labels given in all.
    missing, wrong
        α and ω as fitted; brought between their ends.
    missing_ends, wrong_ends
        From `noise_ends`.

    Examples
    --------
    >>> ends = Ends(0.1, 0.5), Ends(0.0, 0.2)
    >>> found = error_counts(90, missing=0.2, wrong=0.3, missing_ends=ends[0], wrong_ends=ends[1])
    >>> [[round(x) for x in one] for one in found]
    [[18, 8, 90], [18, 0, 18]]
    """
    missing, wrong = np.clip(missing, *missing_ends), np.clip(wrong, *wrong_ends)
    n_wrong, n_missing = expected_errors(n_given, wrong=wrong, missing=missing)
    _, least = expected_errors(n_given, wrong=wrong_ends.high, missing=missing_ends.low)
    _, most = expected_errors(n_given, wrong=wrong_ends.low, missing=missing_ends.high)
    return (
        Wrong(float(n_missing), least, most),
        Wrong(float(n_wrong), n_given * wrong_ends.low, n_given * wrong_ends.high),
    )
