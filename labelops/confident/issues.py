"""Which items are flagged: the seven filters, as compositions over blocks of rows.

Nothing here is done to all rows at once: what runs over shards elsewhere runs here over one.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np

from labelops.confident import selection as sel
from labelops.confident import thresholds as conf
from labelops.confident.estimates import Estimates, estimate
from labelops.confident.joint import count
from labelops.confident.keys import order_keys
from labelops.confident.prune import class_quotas, pair_quotas, prune_counts
from labelops.confident.scan import Scan, scan_rows
from labelops.confident.selection import Elements, Selection

# N items, K classes. A group is a pair (given k, other j) at k·K + j, or a given class k at k·K +
# k; the lowest scores of all are group 0.

Filter = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
]

BY_PAIRS: frozenset[str] = frozenset({"prune_by_noise_rate", "both"})
BY_CLASSES: frozenset[str] = frozenset({"prune_by_class", "both"})
BY_LOWEST: frozenset[str] = frozenset({"low_normalized_margin", "low_self_confidence"})

BLOCK_CELLS = 1 << 20


class Settings(NamedTuple):
    """What decides which items are flagged.

    Attributes
    ----------
    filter_by : see `find_label_issues`.
    frac_noise : share of the estimated errors to flag; for filters that prune.
    min_examples_per_class : classes keep at least so many items; likewise.
    """

    filter_by: Filter = "prune_by_noise_rate"
    frac_noise: float = 1.0
    min_examples_per_class: int = 1


def group_quotas(
    settings: Settings, calibrated: np.ndarray, n_given: np.ndarray, n_disagreeing: int
) -> np.ndarray:
    """Return how many items the filter takes of each group, before the guard.

    Parameters
    ----------
    settings
        The filter.
    calibrated
        Calibrated joint, shape (K, K).
    n_given
        Number of items given each class, shape (K,).
    n_disagreeing
        Number of items that the filter "confident_learning" flags.

    Returns
    -------
    int64, shape (K · K,).
    """
    n_classes = len(n_given)
    quotas = np.zeros((n_classes, n_classes), np.int64)
    if settings.filter_by in BY_LOWEST:
        quotas[0, 0] = n_disagreeing
    keep = settings.min_examples_per_class
    if settings.filter_by in BY_PAIRS | BY_CLASSES:
        prune = prune_counts(calibrated, min_examples=keep, frac_noise=settings.frac_noise)
        if settings.filter_by in BY_PAIRS:
            quotas += pair_quotas(prune, n_given, min_examples=keep)
        if settings.filter_by in BY_CLASSES:
            np.fill_diagonal(quotas, class_quotas(prune, n_given, min_examples=keep))
    return quotas.ravel()


def pair_elements(
    selection: Selection, probs: np.ndarray, given: np.ndarray, hashes: np.ndarray
) -> Elements:
    """Return every (row, other class j) of a pair with a quota; the largest p_j − p_y come first.

    The difference is taken in the type of the probabilities, as cleanlab does.
    """
    n_classes = probs.shape[1]
    group = given.astype(np.int64)[:, None] * n_classes + np.arange(n_classes)
    has_quota = np.zeros(n_classes * n_classes, bool)
    has_quota[selection.groups] = True
    # The diagonal stands for whole classes.
    has_quota[:: n_classes + 1] = False
    row, other = np.nonzero(has_quota[group])
    lead = probs[row, given[row]] - probs[row, other]
    return Elements(group[row, other], order_keys(lead), hashes[row])


def single_elements(
    settings: Settings,
    n_classes: int,
    given: np.ndarray,
    p_given: np.ndarray,
    p_other: np.ndarray,
    hashes: np.ndarray,
) -> Elements:
    """Return one element an item: its probability within its class, or its score among all."""
    if settings.filter_by in BY_CLASSES:
        group = given.astype(np.int64) * (n_classes + 1)
        return Elements(group, order_keys(p_given), hashes)
    if settings.filter_by in BY_LOWEST:
        by_margin = settings.filter_by == "low_normalized_margin"
        value = p_given - p_other if by_margin else p_given
        return Elements(np.zeros(len(given), np.int64), order_keys(value), hashes)
    return sel.no_elements()


def flag(
    settings: Settings,
    given: np.ndarray,
    scan: Scan,
    *,
    taken_pair: np.ndarray | None = None,
    taken_single: np.ndarray | None = None,
) -> np.ndarray:
    """Return which items the filter flags, after the guard; bool, shape (N,).

    Parameters
    ----------
    settings
        The filter.
    given, scan
        The rows.
    taken_pair
        Whether the item is taken in any of its pairs; for filters by pairs.
    taken_single
        Whether it is taken in its class, or among the lowest; for those filters.
    """
    if settings.filter_by in BY_LOWEST:
        assert taken_single is not None
        return taken_single
    if settings.filter_by == "confident_learning":
        flags = (scan.guess >= 0) & (scan.guess != given)
    elif settings.filter_by == "predicted_neq_given":
        flags = scan.predicted != given
    else:
        flags = np.ones(len(given), bool)
        for taken in (taken_pair, taken_single):
            flags = flags if taken is None else flags & taken
    return np.asarray(flags & ~scan.agrees)


def _blocks(probs: np.ndarray) -> Iterator[slice]:
    step = max(1, BLOCK_CELLS // max(1, probs.shape[1]))
    for start in range(0, len(probs), step):
        yield slice(start, start + step)


def check_inputs(probs: np.ndarray, given: np.ndarray) -> None:
    """Refuse what is not a set of probabilities with one class id a row.

    Raises
    ------
    ValueError
        If shapes or types do not fit, or a value is out of range.
    """
    if probs.ndim != 2 or probs.shape[1] < 1 or probs.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"probs must be float32 or float64 of shape (N, K), got {probs.dtype} {probs.shape}"
        )
    if given.shape != (len(probs),) or given.dtype.kind not in "iu":
        raise ValueError(
            f"given must be {len(probs)} integers, one for each row of probs, "
            f"got {given.dtype} {given.shape}"
        )
    # Written so that NaN fails too.
    bad = np.flatnonzero(~((probs >= 0) & (probs <= 1)).all(axis=1))
    if bad.size:
        raise ValueError(
            f"probs must lie in [0, 1]; row {bad[0]} does not ({bad.size} in all). "
            "Were logits passed instead of probabilities?"
        )
    out = np.flatnonzero((given < 0) | (given >= probs.shape[1]))
    if out.size:
        raise ValueError(
            f"given must lie in 0…{probs.shape[1] - 1}, the columns of probs; row {out[0]} has "
            f"{given[out[0]]}"
        )


def estimate_noise(probs: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, Estimates]:
    """Estimate thresholds, joint, noise rates and prior of a data set in memory.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, float32 or float64, shape (N, K).
    given
        Class ids in 0…K−1, shape (N,).

    Returns
    -------
    Thresholds, shape (K,), and the estimates.

    Raises
    ------
    ValueError
        If the inputs do not fit.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    >>> thresholds, found = estimate_noise(probs, np.array([0, 0, 0, 1, 1]))
    >>> thresholds.round(3).tolist(), found.confident_joint.tolist()
    ([0.6, 0.85], [[2, 1], [0, 1]])
    """
    check_inputs(probs, given)
    thresholds, n_given = _thresholds(probs, given)
    counts = np.zeros((probs.shape[1],) * 2, np.int64)
    for rows in _blocks(probs):
        scan = scan_rows(probs[rows], given[rows], thresholds)
        counts += count(given[rows], scan.guess, n_classes=probs.shape[1])
    return thresholds, estimate(counts, n_given)


def _thresholds(probs: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p_given = probs[np.arange(len(probs)), given]
    sums = conf.summarize(p_given, given, n_classes=probs.shape[1])
    return conf.finish(sums), sums.n


def find_label_issues(
    probs: np.ndarray,
    given: np.ndarray,
    *,
    filter_by: Filter = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    item_hash: np.ndarray | None = None,
) -> np.ndarray:
    """Flag the items whose given class is probably wrong.

    * prune_by_noise_rate: for each pair (given k, other j) as many items as the joint says, those
      with the largest p_j − p_k;
    * prune_by_class: for each given class as many as the joint says, those with the smallest p_k;
    * both: what both flag;
    * confident_learning: what is confidently counted into another class;
    * predicted_neq_given: what is predicted to be another class;
    * low_normalized_margin, low_self_confidence: as many as confident_learning, those with the
      lowest score.

    Except for the last two, items whose given class is the most probable one are not flagged.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, float32 or float64, shape (N, K).
    given
        Class ids in 0…K−1, shape (N,).
    filter_by
        Which filter.
    frac_noise
        Share of the estimated errors to flag; for filters that prune.
    min_examples_per_class
        Classes with no more items than this are left alone; likewise.
    item_hash
        Distinct numbers by which ties are broken, uint64, shape (N,); the row number if absent.

    Returns
    -------
    bool, shape (N,).

    Raises
    ------
    ValueError
        If the inputs do not fit or a setting is out of range.

    Notes
    -----
    The flags are those of ``cleanlab.filter.find_label_issues`` wherever the latter does not depend
    on the order of equal values.

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels. JAIR 70,
    2021, section 3.2.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    >>> find_label_issues(probs, np.array([0, 0, 0, 1, 1])).tolist()
    [False, False, True, False, False]
    """
    check_inputs(probs, given)
    if filter_by not in get_args(Filter):
        raise ValueError(f"filter_by must be one of {list(get_args(Filter))}, got {filter_by!r}")
    hashes = np.arange(len(probs), dtype=np.uint64) if item_hash is None else item_hash
    settings = Settings(filter_by, frac_noise, min_examples_per_class)
    thresholds, found = estimate_noise(probs, given)
    n_classes = probs.shape[1]
    n_given = np.bincount(given, minlength=n_classes)
    by_confidence = Settings("confident_learning")
    n_disagreeing = 0
    for rows in _blocks(probs):
        scan = scan_rows(probs[rows], given[rows], thresholds)
        n_disagreeing += int(flag(by_confidence, given[rows], scan).sum())
    quotas = group_quotas(settings, found.calibrated_joint, n_given, n_disagreeing)
    selection = _select(settings, probs, given, hashes, thresholds, quotas)
    flags = np.zeros(len(probs), bool)
    for rows in _blocks(probs):
        flags[rows] = _flag_block(
            settings, selection, probs[rows], given[rows], hashes[rows], thresholds
        )
    return flags


def _select(
    settings: Settings,
    probs: np.ndarray,
    given: np.ndarray,
    hashes: np.ndarray,
    thresholds: np.ndarray,
    quotas: np.ndarray,
) -> Selection:
    """Find the cuts in passes over the blocks."""

    def elements() -> Iterator[Elements]:
        for rows in _blocks(probs):
            if settings.filter_by in BY_PAIRS:
                yield pair_elements(selection, probs[rows], given[rows], hashes[rows])
            scan = scan_rows(probs[rows], given[rows], thresholds)
            p_given = probs[rows][np.arange(len(scan.guess)), given[rows]]
            yield single_elements(
                settings, probs.shape[1], given[rows], p_given, scan.p_other, hashes[rows]
            )

    edges = sel.whole_range(probs.dtype, sel.n_bits(int(np.count_nonzero(quotas))))
    selection = sel.start(quotas, edges)
    counts = np.zeros((len(selection.groups), len(edges) - 1), np.int64)
    for block in elements():
        counts += sel.count_first(selection, edges, block)
    selection, _ = sel.narrow_first(selection, edges, counts)
    while selection.total_open > sel.COLLECT:
        bits = sel.n_bits(len(selection.open_slots))
        counts = np.zeros((len(selection.open_slots), 1 << bits), np.int64)
        for block in elements():
            counts += sel.count(selection, bits, block)
        selection = sel.narrow(selection, bits, counts)
    found = [sel.no_elements(), *(sel.collect(selection, block) for block in elements())]
    return sel.settle(selection, sel.concatenate(found))


def _flag_block(
    settings: Settings,
    selection: Selection,
    probs: np.ndarray,
    given: np.ndarray,
    hashes: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    scan = scan_rows(probs, given, thresholds)
    taken_pair = taken_single = None
    if settings.filter_by in BY_PAIRS:
        pairs = pair_elements(selection, probs, given, np.arange(len(probs), dtype=np.uint64))
        taken = sel.is_taken(selection, pairs._replace(hash=hashes[pairs.hash.astype(np.int64)]))
        taken_pair = np.zeros(len(probs), bool)
        taken_pair[pairs.hash[taken].astype(np.int64)] = True
    if settings.filter_by in BY_CLASSES | BY_LOWEST:
        p_given = probs[np.arange(len(probs)), given]
        singles = single_elements(settings, probs.shape[1], given, p_given, scan.p_other, hashes)
        taken_single = sel.is_taken(selection, singles)
    return flag(settings, given, scan, taken_pair=taken_pair, taken_single=taken_single)
