"""Confident learning where an item may have any number of classes: passes over blocks of rows.

Three or four passes, none of which holds more than a block: sums for the thresholds; counts for the
joints; where more labels disagree than are flagged, cuts between them; and the flags. Everything
that is carried between blocks adds up exactly, so neither blocks nor their order change
anything.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import NamedTuple, get_args

import numpy as np

from labelops.confident import selection as sel
from labelops.confident import thresholds as conf
from labelops.confident.filters import BY_CLASSES, BY_LOWEST, BY_PAIRS, Filter, Settings
from labelops.confident.keys import order_keys
from labelops.confident.selection import Elements, Selection
from labelops.multilabel.cells import (
    Cells,
    Counts,
    Engine,
    ReadableEngine,
    add_counts,
    no_counts,
    state_bounds,
)
from labelops.multilabel.estimates import Estimates, estimate, quotas
from labelops.multilabel.labels import LabelSets

# N items, K classes; a group is a class and the given state, 2 · class + state

COLLECT = 1 << 21
"""So many open cells (48 MB) are collected and sorted instead of counted once more."""


class Block(NamedTuple):
    """Some items.

    Attributes
    ----------
    probs : out-of-sample probability of every class, float32 or float64, shape (n, K); rows need
        not sum to one.
    labels : their given classes.
    hashes : distinct numbers by which ties are broken, uint64, shape (n,).
    """

    probs: np.ndarray
    labels: LabelSets
    hashes: np.ndarray


Blocks = Callable[[], Iterable[Block]]
"""Gives the same items whenever it is called."""


class Rules(NamedTuple):
    """What is known of a data set, enough to flag its labels block by block.

    Attributes
    ----------
    settings : the filter.
    estimates : thresholds, joints, rates.
    cuts : where the flagged cells of a group end; None for filters that do not choose among them.
    """

    settings: Settings
    estimates: Estimates
    cuts: Selection | None


def check_block(block: Block, n_classes: int) -> Block:
    """Refuse what is not a block of probabilities with labels.

    Raises
    ------
    ValueError
        If shapes or types do not fit, or a probability is out of range.
    """
    probs = block.probs
    if probs.shape[1:] != (n_classes,) or probs.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"probs must be float32 or float64 of shape (n, {n_classes}), got {probs.dtype} "
            f"{probs.shape}"
        )
    if block.labels.n_items != len(probs) or block.labels.n_classes != n_classes:
        raise ValueError(
            f"labels must be of {len(probs)} items and {n_classes} classes, as probs are; got "
            f"{block.labels.n_items} and {block.labels.n_classes}"
        )
    if block.hashes.shape != (len(probs),) or block.hashes.dtype != np.uint64:
        raise ValueError(
            f"hashes must be {len(probs)} uint64, one an item, got {block.hashes.dtype} "
            f"{block.hashes.shape}"
        )
    # Written so that NaN fails too.
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        row = int(np.argmin(((probs >= 0) & (probs <= 1)).all(axis=1)))
        raise ValueError(
            f"probs must lie in [0, 1]; row {row} of the block does not. Were logits passed "
            "instead of probabilities?"
        )
    return block


def fit(
    blocks: Blocks,
    *,
    n_classes: int,
    settings: Settings,
    engine: Engine | None = None,
) -> Rules:
    """Estimate a data set's noise and find the cuts of a filter.

    Parameters
    ----------
    blocks
        The data set, cut in any way; called once a pass.
    n_classes
        K.
    settings
        Which filter, as in `labelops.confident.issues.find_label_issues`.
    engine
        Who does the loops over rows; the readable one if absent.

    Raises
    ------
    ValueError
        If a block does not fit or a setting is out of range.

    Notes
    -----
    Each pass is O(N K). Memory: blocks, 300 B a class, and for the cuts at most 24 MB + 48 MB,
    whatever N is; where no more than `COLLECT` cells compete, two passes are enough.

    References
    ----------
    Thyagarajan, Snorrason, Northcutt, Mueller: Identifying Incorrect Annotations in Multi-Label
    Classification Data. 2022.
    """
    if settings.filter_by not in get_args(Filter):
        raise ValueError(
            f"filter_by must be one of {list(get_args(Filter))}, got {settings.filter_by!r}"
        )
    engine = engine or ReadableEngine()
    pair = np.zeros(2 * n_classes, np.int64)
    checked = (check_block(block, n_classes) for block in blocks())
    sums = (engine.sums(block.probs, block.labels) for block in checked)
    total = reduce(conf.merge, sums, conf.SelfConfidence(pair, pair, pair))
    thresholds = conf.finish(total).reshape(-1, 2)
    parts = (
        engine.counts(b.probs, b.labels, state_bounds(thresholds, b.probs.dtype)) for b in blocks()
    )
    counts = reduce(add_counts, parts, no_counts(n_classes))
    noise = estimate(counts.joint, total.n.reshape(-1, 2), thresholds)
    if not is_chosen_from(settings):
        return Rules(settings, noise, None)

    def elements() -> Iterator[Elements]:
        for block in blocks():
            cells = engine.disagreeing(block.probs, block.labels)
            yield elements_of(settings, cells, block.hashes)

    def count_open(known: Selection, bits: int) -> np.ndarray:
        none = np.zeros((len(known.open_slots), 1 << bits), np.int64)
        return sum((sel.count(known, bits, part) for part in elements()), none)

    def collect_open(known: Selection) -> Elements:
        open_ones = (sel.collect(known, part) for part in elements())
        return sel.concatenate([sel.no_elements(), *open_ones])

    cuts = sel.search(start_cuts(settings, noise, counts), count_open, collect_open, most=COLLECT)
    return Rules(settings, noise, cuts)


def elements_of(settings: Settings, cells: Cells, hashes: np.ndarray) -> Elements:
    """Return disagreeing cells as what competes within its group; the least probable first.

    Hashes are those of all items that they are of, shape (n,).
    """
    group = cells.class_id
    if settings.filter_by not in BY_LOWEST:
        group = 2 * group + cells.is_given
    # In double precision whatever the probabilities are in, so that shards may differ.
    return Elements(group, order_keys(cells.p_given.astype(np.float64)), hashes[cells.row])


def is_chosen_from(settings: Settings) -> bool:
    """Return whether a filter takes so many of a group, for which cuts are found."""
    return settings.filter_by in BY_PAIRS | BY_CLASSES | BY_LOWEST


def start_cuts(settings: Settings, estimates: Estimates, counts: Counts) -> Selection:
    """Return what is known of the cuts of all items before competing cells are looked at."""
    by_class = settings.filter_by in BY_LOWEST
    n_open = counts.disagreeing.sum(axis=1) if by_class else counts.disagreeing.ravel()
    # A single bin, counted before: nothing that disagrees has more than a half.
    edges = order_keys(np.array([0.0, 0.5])) + np.array([0, 1], np.uint64)
    selection = sel.start(quotas(settings, estimates, counts), edges)
    selection, _ = sel.narrow_first(selection, edges, n_open[selection.groups][:, None])
    return selection


def apply(rules: Rules, block: Block, *, engine: Engine | None = None) -> Cells:
    """Return the labels of a block, of the items of `fit`, that are probably wrong or missing.

    Returns
    -------
    Cells: `is_given` says of which kind, wrong or (not given) missing.
    """
    cells = (engine or ReadableEngine()).disagreeing(block.probs, block.labels)
    return cells.choose(is_flagged(rules, cells, block.hashes))


def is_flagged(rules: Rules, cells: Cells, hashes: np.ndarray) -> np.ndarray:
    """Return which of disagreeing cells are probably wrong or missing; bool, shape (M,).

    Probabilities are in the type they were given in, hashes those of the items, shape (n,).
    """
    if rules.cuts is not None:
        return sel.is_taken(rules.cuts, elements_of(rules.settings, cells, hashes))
    if rules.settings.filter_by == "confident_learning":
        bounds = state_bounds(rules.estimates.thresholds, cells.p.dtype)
        other = np.where(cells.is_given, 1 - cells.p, cells.p)
        return np.asarray(other >= bounds[cells.class_id, np.where(cells.is_given, 0, 1)])
    return np.ones(len(cells.row), bool)
