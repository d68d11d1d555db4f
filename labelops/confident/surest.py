"""How often the surest predictions disagree with the given labels.

A model that errs disagrees with right labels, too, so that disagreements alone do not count wrong
labels. Where the model is surest it errs least: what disagrees there is label noise, if anything
is. Under errors that hit items at random the share of disagreements is the same however far down
one looks; where it is not, the model is in the way, and nothing can be said without people.
"""

from typing import NamedTuple

import numpy as np

from labelops.confident.intervals import jeffreys

# N items, K classes, P cells, S shares

SHARES = (0.05, 0.2, 0.5)
"""The surest of the items that are predicted as each class; the first is what noise is read off."""

LEAST = 20
"""At least so many items of a class are looked at, or all."""

PULL = 10.0
"""As many items at the common rate are added to what is seen of a class."""

RISE, RISE_SHARE = 0.03, 0.25
"""The shares of disagreements may differ by so much, or by so much of the least of them. Chosen on
CIFAR-10N and five tables with planted noise: models that are nearly right where they are sure
differ by less, those that are not by more, with exceptions either way (`benchmarks/harm.py`)."""

MODEL_ERROR = 0.01
"""So many of its surest predictions a model may get wrong; only what is above is noise."""

LEAST_RATE, MAX_RATE = 0.001, 0.5
"""No label is impossible; and more than half wrong is taken for a weak model, not for noise."""

_BIN_BITS, _BINS = 18, 1 << 13


class Cells(NamedTuple):
    """How many items are predicted as a class with some confidence, of those that occur.

    Attributes
    ----------
    key : class · 2¹³ + confidence, the surest first; ascending, int64, shape (P,).
    n, n_other : items, and those of them that were given another class; int64, shape (P,).
    """

    key: np.ndarray
    n: np.ndarray
    n_other: np.ndarray


class Surest(NamedTuple):
    """What the surest predictions say.

    Attributes
    ----------
    n, n_other : items looked at, and those of them that disagree, for each of `SHARES`; int64,
        shape (S,).
    rate : share of labels that are wrong where a class is true, float64, shape (K,), in [0.001, ½].
    is_flat : whether the shares agree, so that the model is out of the way.
    """

    n: np.ndarray
    n_other: np.ndarray
    rate: np.ndarray
    is_flat: bool


class Wrong(NamedTuple):
    """How many labels are wrong, with bounds for chance and for what the model cannot tell."""

    value: float
    low: float
    high: float


def count_cells(predicted: np.ndarray, p_predicted: np.ndarray, agrees: np.ndarray) -> Cells:
    """Count items by predicted class and confidence.

    Confidence is told apart in steps of 2⁻⁵ of 1 − p, so that what counts as surest does not
    depend on how items are cut into shards.

    Parameters
    ----------
    predicted
        Most probable classes, shape (N,).
    p_predicted
        Their probabilities, in [0, 1], shape (N,).
    agrees
        Whether each is the given class, bool, shape (N,).

    Examples
    --------
    >>> agrees = np.array([True, True, False])
    >>> cells = count_cells(np.array([1, 0, 1]), np.array([0.9, 0.7, 0.9]), agrees)
    >>> cells.n.tolist(), cells.n_other.tolist()
    ([1, 2], [0, 1])
    """
    doubt = np.maximum(1.0 - p_predicted.astype(np.float64), 0.0).astype(np.float32)
    confidence = doubt.view(np.uint32) >> _BIN_BITS
    key, place, n = np.unique(
        predicted.astype(np.int64) * _BINS + confidence, return_inverse=True, return_counts=True
    )
    return Cells(key, n, np.bincount(place[~agrees], minlength=len(key)))


def add_cells(a: Cells, b: Cells) -> Cells:
    """Add the counts of two sets of items; exact, in any order.

    Examples
    --------
    >>> one = count_cells(np.array([0]), np.array([0.7]), np.array([False]))
    >>> add_cells(one, one).n_other.tolist()
    [2]
    """
    key, place = np.unique(np.concatenate([a.key, b.key]), return_inverse=True)
    n, n_other = np.zeros((2, len(key)), np.int64)
    np.add.at(n, place, np.concatenate([a.n, b.n]))
    np.add.at(n_other, place, np.concatenate([a.n_other, b.n_other]))
    return Cells(key, n, n_other)


def surest(cells: Cells, *, n_classes: int) -> Surest:
    """Return how often the surest predictions of every class disagree.

    Parameters
    ----------
    cells
        Of all items.
    n_classes
        K.

    Examples
    --------
    >>> p, agrees = np.linspace(0.6, 1.0, 1000), np.arange(1000) % 10 > 0
    >>> said = surest(count_cells(np.zeros(1000, int), p, agrees), n_classes=2)
    >>> said.is_flat, (said.n_other / said.n).round(2).tolist(), said.rate.round(3).tolist()
    (True, [0.1, 0.1, 0.1], [0.091, 0.098])
    """
    n_of_class, seen, other = np.zeros((3, n_classes), np.int64)
    of_class = cells.key // _BINS
    np.add.at(n_of_class, of_class, cells.n)
    before = np.cumsum(cells.n) - cells.n - (np.cumsum(n_of_class) - n_of_class)[of_class]
    n, n_other = np.zeros((2, len(SHARES)), np.int64)
    for s, share in enumerate(SHARES):
        wanted = np.maximum(np.ceil(share * n_of_class), np.minimum(n_of_class, LEAST))
        is_seen = before < wanted[of_class]
        n[s], n_other[s] = cells.n[is_seen].sum(), cells.n_other[is_seen].sum()
        if s == 0:
            np.add.at(seen, of_class[is_seen], cells.n[is_seen])
            np.add.at(other, of_class[is_seen], cells.n_other[is_seen])
    common = (n_other[0] + 0.5) / (n[0] + 1.0)
    rate = np.clip((other + PULL * common) / (seen + PULL) - MODEL_ERROR, LEAST_RATE, MAX_RATE)
    shares = n_other / np.maximum(n, 1)
    rise = shares.max() - shares.min()
    is_flat = rise <= max(RISE, RISE_SHARE * shares.min()) and shares.min() <= MAX_RATE
    return Surest(n, n_other, rate, bool(is_flat))


def n_wrong(said: Surest, *, n_items: int, n_disagreeing: int, doubt: float) -> Wrong:
    """Return how many labels are wrong: what the surest show, up to all that is doubted.

    Parameters
    ----------
    said
        From `surest`.
    n_items
        N.
    n_disagreeing
        Items whose most probable class is not the given one.
    doubt
        Σ (1 − p_given) over all items.

    Returns
    -------
    At least what the surest predictions show, less chance and what the model may get wrong there:
    1 %, or as much as disagreements grow from there to the surest half, if that is more. 0 where
    they do not agree among themselves. At most all disagreements, or all doubts, whichever are
    more, and chance.

    Notes
    -----
    Noise that hits at random is as frequent in the surest half as among the surest; what grows is
    the model's own error. Of that no more is supposed among the surest than is added: it at least
    doubles.

    Examples
    --------
    >>> said = Surest(np.array([100, 400, 1000]), np.array([10, 40, 100]), np.array([0.1]), True)
    >>> [round(x) for x in n_wrong(said, n_items=2000, n_disagreeing=300, doubt=350.0)]
    [200, 85, 384]
    >>> said = said._replace(n_other=np.array([10, 42, 120]))
    >>> [round(x) for x in n_wrong(said, n_items=2000, n_disagreeing=300, doubt=350.0)]
    [200, 65, 384]
    """
    share = float(said.n_other[0] / max(said.n[0], 1))
    lowest = int(np.argmin(said.n_other / np.maximum(said.n, 1)))
    looked_at = [0, lowest]
    ends = jeffreys(said.n_other[looked_at], (said.n - said.n_other)[looked_at])
    growth = float(said.n_other[-1] / max(said.n[-1], 1)) - share
    low = float(ends.low.min()) - max(MODEL_ERROR, growth) if said.is_flat else 0.0
    doubted = np.array([min(max(float(n_disagreeing), doubt), float(n_items))])
    most = float(jeffreys(doubted, n_items - doubted).high[0])
    return Wrong(n_items * share, n_items * max(low, 0.0), n_items * max(most, float(ends.high[0])))
