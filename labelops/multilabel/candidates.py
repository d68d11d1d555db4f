"""Cells that may not be as given, down to a stated probability, flagged or not.

What confident learning flags is where it disagrees with a label. A model that is unsure of a rare
class disagrees with nearly nothing, yet ranks what is missing well. So all cells are looked for
whose probability of error reaches a floor. Few do, and only these are worked out: with what is
given of an item, its classes raise the odds of few others, and for those that they do not raise a
threshold of the model's probability decides, class by class.
"""

from typing import NamedTuple, Self

import numpy as np
from scipy import sparse
from scipy.special import expit

from labelops.multilabel.beliefs import Features, Learned, p_label_error
from labelops.multilabel.cells import Cells, concatenate
from labelops.multilabel.cooccurrence import Pairs, evidence, most_lowered, raising
from labelops.multilabel.labels import NO, LabelSets, states
from labelops.multilabel.opinion import LARGEST, log_odds_at, model_log_odds
from labelops.ragged import owners

# n items of a block, K classes, M cells

SLACK = 1e-9
"""So much is allowed for rounding before a cell is worked out."""


class Search(NamedTuple):
    """What cells must reach to be worked out.

    A cell that was ruled out is worked out if slope_c · log p / (1 − p) + u ≥ need_c, with u an
    upper bound of what the item's other classes add.

    Attributes
    ----------
    learned : what is believed of cells.
    pairs : how often classes come together.
    floor : probability of error from which on cells are listed.
    slope, need : float64, shape (K,).
    raised : what a given class (row) adds to others, where it raises them; sparse float64, shape
        (K, K). Empty where classes that come together speak against each other.
    most : then, the most that a given class adds to any other; float64, shape (K,).
    """

    learned: Learned
    pairs: Pairs
    floor: float
    slope: np.ndarray
    need: np.ndarray
    raised: sparse.csr_array
    most: np.ndarray

    @classmethod
    def of(cls, learned: Learned, pairs: Pairs, *, floor: float) -> Self:
        """Prepare a search; `floor` in (0, 1]."""
        trust, hearing = learned.opinion.weight
        shift = trust * learned.scaling.shift + learned.opinion.bias
        least = log_odds_at(learned.odds, learned.opinion, p=floor)
        return cls(
            learned,
            pairs,
            floor,
            slope=trust * learned.scaling.slope,
            need=least - shift - SLACK,
            raised=raising(pairs) * max(hearing, 0.0),
            most=most_lowered(pairs) * max(-hearing, 0.0),
        )


def candidates(probs: np.ndarray, labels: LabelSets, search: Search) -> tuple[Cells, np.ndarray]:
    """Return the cells of a block that are not as given with at least the floor's probability.

    Parameters
    ----------
    probs, labels
        Of the items of the block; labels those that `search` counted.
    search
        From `Search.of`.

    Returns
    -------
    Cells by item and then class, and their probabilities, float64, shape (M,).

    Notes
    -----
    O(n K) comparisons, and O(classes of the item) a cell that may reach the floor. Where classes
    speak against each other, which is rare, many cells may.

    Examples
    --------
    >>> from labelops.multilabel.cooccurrence import summarize
    >>> from labelops.multilabel.labels import label_sets
    >>> from labelops.multilabel.opinion import Opinion
    >>> from labelops.multilabel.scaling import Scaling
    >>> from labelops.multilabel.surest import Ends
    >>> learned = Learned(
    ...     Scaling(np.ones(1), np.zeros(1)), Opinion(0.0, np.array([1.0, 1.0]), 0.2, 0.0),
    ...     np.ones(1), (1.0, 1.0), Ends(0.0, 1.0), Ends(0.0, 1.0))
    >>> labels, probs = label_sets([[0], [], []], n_classes=1), np.array([[0.9], [0.8], [0.01]])
    >>> found, p = candidates(probs, labels, Search.of(learned, summarize(labels), floor=0.1))
    >>> found.row.tolist(), p.round(3).tolist()  # 0.8 · 0.2 / (0.8 · 0.2 + 0.2)
    ([1], [0.444])
    """
    wanted = states(labels) == NO
    wanted &= _may_reach(probs, labels, search)
    row, class_id = np.nonzero(wanted)
    given = owners(labels.start), labels.ids.astype(np.int64)
    parts = [
        Cells(row, class_id, np.zeros(len(row), bool), probs[row, class_id]),
        Cells(*given, np.ones(len(given[0]), bool), probs[given]),
    ]
    cells = concatenate(parts)
    cells = cells.choose(np.lexsort((cells.class_id, cells.row)))
    _, heard = evidence(cells, labels, search.pairs)
    features = Features(cells.class_id, cells.is_given, model_log_odds(cells.p), heard)
    p = p_label_error(features, search.learned)
    return cells.choose(p >= search.floor), p[p >= search.floor]


def _may_reach(probs: np.ndarray, labels: LabelSets, search: Search) -> np.ndarray:
    """Return which cells reach the floor, were they ruled out, or nearly do; bool, (n, K)."""
    slope, need = search.slope, search.need
    ones = np.ones(len(labels.ids))
    shape = labels.n_items, labels.n_classes
    present = sparse.csr_array((ones, labels.ids.astype(np.int64), labels.start), shape=shape)
    if search.most.any():
        most = present @ search.most
        return np.asarray(slope * model_log_odds(probs) + most[:, None] >= need)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(slope != 0, need / slope, np.where(need <= 0, -np.inf, np.inf))
    # Log-odds end at ±16: whatever lies there is as sure as can be.
    low = np.where(turn <= -LARGEST, 0.0, np.where(turn > LARGEST, np.inf, expit(turn) - SLACK))
    reached = probs >= low
    if (slope < 0).any():
        high = np.where(turn >= LARGEST, 1.0, np.where(turn < -LARGEST, -np.inf, expit(turn)))
        reached = np.where(slope < 0, probs <= high + SLACK, reached)
    raised = sparse.coo_array(present @ search.raised)
    row, class_id = raised.coords
    value = slope[class_id] * model_log_odds(probs[row, class_id]) + raised.data
    near = value >= need[class_id]
    reached[row[near], class_id[near]] = True
    return np.asarray(reached)
