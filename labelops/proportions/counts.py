"""What is known of the number of positives in a bag, and whether a table of bags can be believed.

All that can be said of a count takes one form, log f(s) = −λ (s − c)² for low ≤ s ≤ high and −∞
else: an exact count has low = high, a doubtful one λ > 0, bounds λ = 0.
"""

# B bags, K classes

from typing import NamedTuple

import numpy as np

from labelops.confident.joint import round_rows

NO_LIMIT = 1 << 40
"""Upper bound of a count that only the size of its bag bounds."""

ROUNDING = 0.01
"""A count further from an integer was not counted but estimated; it is better taken as doubtful."""


class Counts(NamedTuple):
    """What is known of the number of positives in each bag.

    Attributes
    ----------
    low, high : bounds of the count, both included, int64, shape (B,).
    centre : c, the most likely count, need not be an integer, float64, shape (B,).
    strength : λ ≥ 0; 0 for all counts within the bounds alike, float64, shape (B,).
    """

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    strength: np.ndarray


class Rounded(NamedTuple):
    """Integer counts, and how far each was from what was said.

    Attributes
    ----------
    counts : int64, shape (B, K).
    residual : |said − counts|, float64, shape (B, K); beyond `ROUNDING` soft counts fit better.
    """

    counts: np.ndarray
    residual: np.ndarray


def hard_counts(positives: np.ndarray) -> Counts:
    """Return counts that are exactly known, integers ≥ 0, shape (B,).

    Raises
    ------
    TypeError
        If they are not integers.

    Examples
    --------
    >>> hard_counts(np.array([2, 0])).high.tolist()
    [2, 0]
    """
    k = _integers("hard_counts", "positives", positives)
    return Counts(k, k.copy(), k.astype(np.float64), np.zeros(len(k)))


def soft_counts(positives: np.ndarray, *, strength: float | np.ndarray) -> Counts:
    """Return counts that may be off: log f(s) = −λ (s − k)², so s has std about 1 / √(2 λ).

    Parameters
    ----------
    positives
        k, need not be integers, shape (B,).
    strength
        λ > 0, one for all or one a bag. For a share estimated with standard error e in a bag of n,
        λ = 1 / (2 n² e²).

    Raises
    ------
    ValueError
        If a count is not finite, or a strength not a finite number above 0.

    Examples
    --------
    >>> soft_counts(np.array([1.5]), strength=2.0).strength.tolist()
    [2.0]
    """
    k = np.asarray(positives, np.float64)
    if not np.isfinite(k).all():
        raise ValueError(
            "soft_counts: positives must be finite; use free_counts where none is known"
        )
    weight = np.broadcast_to(np.asarray(strength, np.float64), k.shape)
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise ValueError(
            "soft_counts: strength must be finite and above 0; use interval_counts for counts that "
            "are only bounded, hard_counts for exact ones"
        )
    # Beyond these it is as good as unknown or exact, and 1 / λ or λ n² would overflow.
    weight = np.clip(weight, 1e-100, 1e100)
    return Counts(np.zeros(len(k), np.int64), np.full(len(k), NO_LIMIT), k, weight)


def interval_counts(low: np.ndarray, high: np.ndarray) -> Counts:
    """Return counts of which only bounds are known; all within are equally likely a priori.

    Both are included, integers, shape (B,); `NO_LIMIT` for none.

    Examples
    --------
    >>> interval_counts(np.array([1]), np.array([3])).strength.tolist()
    [0.0]
    """
    a = _integers("interval_counts", "low", low)
    b = _integers("interval_counts", "high", high)
    return Counts(a, b, (a + np.minimum(b, NO_LIMIT)) / 2, np.zeros(len(a)))


def free_counts(n_bags: int) -> Counts:
    """Return counts of which nothing is known; an item in no bag gets a bag of its own with it."""
    return interval_counts(np.zeros(n_bags, np.int64), np.full(n_bags, NO_LIMIT))


def join_counts(parts: list[Counts]) -> Counts:
    """Return the counts of all bags of several lists, one after the other."""
    return Counts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _integers(who: str, name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{who}: {name} must be integers, got {array.dtype}; round_class_counts rounds them "
            "and says how far they were off, soft_counts takes them as they are"
        )
    return array.astype(np.int64)


def log_potential(counts: Counts, bag: int, size: int) -> np.ndarray:
    """Return log f(s) of one bag for s = 0 … size, float64.

    Examples
    --------
    >>> log_potential(soft_counts(np.array([1.0]), strength=2.0), 0, 2).tolist()
    [-2.0, 0.0, -2.0]
    """
    s = np.arange(size + 1)
    inside = (counts.low[bag] <= s) & (s <= counts.high[bag])
    return np.where(inside, -counts.strength[bag] * (s - counts.centre[bag]) ** 2, -np.inf)


def round_class_counts(counts: np.ndarray, sizes: np.ndarray) -> Rounded:
    """Round the counts per class of a bag table, after checking that they add up to the bags.

    Parameters
    ----------
    counts
        Numbers ≥ 0, shape (B, K). From shares: share · size.
    sizes
        Items in each bag, integers ≥ 1, shape (B,).

    Returns
    -------
    Rounded, shapes (B, K): every row sums to the size of its bag.

    Raises
    ------
    ValueError
        If a bag has no item, a count is not finite or negative, or the counts of a bag are off its
        size by half an item or more.

    Examples
    --------
    >>> round_class_counts(np.array([[1.2, 1.3, 2.5]]), np.array([5])).counts.tolist()
    [[1, 1, 3]]
    """
    raw, n = np.asarray(counts, np.float64), np.asarray(sizes)
    if n.shape != raw.shape[:1]:
        raise ValueError(f"round_class_counts: {len(raw)} bags have counts, {len(n)} have a size")
    _reject("a bag must have an item; remove it from the table", n < 1, n)
    _reject("counts must be finite numbers", np.any(~np.isfinite(raw), axis=1), raw)
    _reject("counts must not be negative", np.any(raw < 0, axis=1), raw)
    off = np.abs(raw.sum(axis=1) - n) >= 0.5
    _reject("counts of a bag must add up to its size", off, raw.sum(axis=1), n)
    scaled = raw * (n / raw.sum(axis=1))[:, None]
    rounded = round_rows(scaled)
    return Rounded(rounded, np.abs(raw - rounded))


def _reject(
    rule: str, is_wrong: np.ndarray, raw: np.ndarray, sizes: np.ndarray | None = None
) -> None:
    if is_wrong.any():
        b = int(np.flatnonzero(is_wrong)[0])
        of = "" if sizes is None else f" of {int(sizes[b])} items"
        more = f" (and {int(is_wrong.sum()) - 1} more bags)" if is_wrong.sum() > 1 else ""
        raise ValueError(f"bag table: {rule}; bag {b}{of} says {np.asarray(raw[b]).tolist()}{more}")


class Spread(NamedTuple):
    """How much the shares of bags differ, which is all that tells labels apart without logits.

    Attributes
    ----------
    mean : share of positives over all items.
    std : standard deviation of the bags' shares.
    by_chance : what `std` would be if bags were drawn at random from items of that mean share.
    is_constant : whether all bags have the same share.
    """

    mean: float
    std: float
    by_chance: float
    is_constant: bool


def share_spread(positives: np.ndarray, sizes: np.ndarray) -> Spread:
    """Measure how much the shares of positives vary over bags.

    If all shares are equal, a model that says this share for every item explains all bags, and so
    counts cannot teach which items are positive; at a share of one half, not even which class is
    which.

    Examples
    --------
    >>> share_spread(np.array([1, 1]), np.array([4, 4])).is_constant
    True
    >>> round(share_spread(np.array([0, 4]), np.array([4, 4])).std, 3)
    0.5
    """
    if len(sizes) == 0:
        return Spread(np.nan, np.nan, np.nan, True)
    share = positives / sizes
    mean = float(positives.sum() / sizes.sum())
    by_chance = float(np.sqrt(np.mean(mean * (1 - mean) / sizes)))
    is_constant = bool((positives * sizes[0] == positives[0] * sizes).all())
    return Spread(mean, float(share.std()), by_chance, is_constant)
