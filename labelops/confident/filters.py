"""The seven filters: what they choose among, how many they take, and what they flag in the end."""

from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from labelops.confident import selection as sel
from labelops.confident import sparse_joint
from labelops.confident.keys import order_keys
from labelops.confident.latent import Matrix
from labelops.confident.prune import prune_counts
from labelops.confident.scan import Scan
from labelops.confident.selection import Elements
from labelops.ragged import spans
from labelops.top_rows import Probs, at

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


def quotas_of(
    settings: Settings, calibrated: Matrix, n_given: np.ndarray, n_disagreeing: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups of which a filter takes items, ascending, and how many, before the guard.

    Parameters
    ----------
    settings
        The filter.
    calibrated
        Calibrated joint, int64, shape (K, K), dense or sparse.
    n_given
        Number of items given each class, shape (K,).
    n_disagreeing
        Number of items that the filter "confident_learning" flags.

    Returns
    -------
    int64, shape (G,) each. Filters that prune leave classes alone that have one item, or no more
    than they must keep.
    """
    n_classes = len(n_given)
    groups, quotas = np.zeros(1, np.int64), np.zeros(1, np.int64)
    if settings.filter_by in BY_LOWEST:
        quotas[0] = n_disagreeing
    elif settings.filter_by in BY_PAIRS | BY_CLASSES:
        _, share, keep = settings
        prune: Matrix
        if isinstance(calibrated, sparse.csr_array):
            prune = sparse_joint.prune_counts(calibrated, min_examples=keep, frac_noise=share)
        else:
            prune = prune_counts(calibrated, min_examples=keep, frac_noise=share)
        if settings.filter_by in BY_PAIRS:
            cells = sparse.coo_array(prune)
            given, true = (ids.astype(np.int64) for ids in cells.coords)
            is_pair = given != true
            groups = (given * n_classes + true)[is_pair]
            quotas = cells.data[is_pair]
        if settings.filter_by in BY_CLASSES:
            groups = np.append(groups, np.arange(n_classes) * (n_classes + 1))
            quotas = np.append(quotas, n_given - prune.diagonal())
        quotas = np.where(n_given[groups // n_classes] > max(keep, 1), quotas, 0)
    order = np.argsort(groups)
    order = order[quotas[order] > 0]
    return groups[order], quotas[order]


def elements_at(
    row: np.ndarray, group: np.ndarray, probs: Probs, given: np.ndarray, hashes: np.ndarray
) -> Elements:
    """Return the elements of some rows and pairs; the largest p_j − p_y come first.

    The difference is taken in the type of the probabilities, as cleanlab does.
    """
    y = given[row].astype(np.int64)
    lead = at(probs, row, y) - at(probs, row, group - y * probs.shape[1])
    return Elements(group, order_keys(lead), hashes[row])


def pairs_of(
    groups: np.ndarray, n_classes: int, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return row and group of every (row, other class) of a pair among some groups, ascending.

    The diagonal stands for whole classes and is passed over.

    Returns
    -------
    int64, shape (E,) each, in the order of rows and classes. Time as E, however many classes.
    """
    pairs = groups[groups % (n_classes + 1) != 0]
    y = given.astype(np.int64)
    first = np.searchsorted(pairs, y * n_classes)
    n = np.searchsorted(pairs, (y + 1) * n_classes) - first
    row, at = spans(first, n)
    return row, pairs[at]


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

    Filters by pairs ask which items are taken in any of their pairs, others which are taken in
    their class or among the lowest.
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
