"""Confident learning on a data set in memory: the passes that run over shards, over blocks of rows.

The loops over rows are done by an engine: the readable one here, or a compiled one in
`labelops.fast.confident`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import get_args

import numpy as np

from labelops.confident import selection as sel
from labelops.confident import sparse_joint
from labelops.confident import thresholds as conf
from labelops.confident.engines import Engine, Pairs, ReadableEngine, ReadablePairs, Rows
from labelops.confident.estimates import Estimates, estimate
from labelops.confident.filters import (
    BY_CLASSES,
    BY_LOWEST,
    BY_PAIRS,
    Filter,
    Settings,
    flag,
    quotas_of,
    single_elements,
)
from labelops.confident.joint import count
from labelops.confident.latent import Matrix
from labelops.confident.scan import Scan
from labelops.confident.selection import Elements, Selection
from labelops.top_rows import Probs, TopRows, at

# N items, K classes

BLOCK_CELLS = 1 << 20


def check_inputs(probs: Probs, given: np.ndarray) -> None:
    """Refuse what is not a set of probabilities with one class id a row.

    Raises
    ------
    ValueError
        If shapes or types do not fit, or a value is out of range.
    """
    if len(probs.shape) != 2 or probs.shape[1] < 1 or probs.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"probs must be float32 or float64 of shape (N, K), got {probs.dtype} {probs.shape}"
        )
    if given.shape != (len(probs),) or given.dtype.kind not in "iu":
        raise ValueError(
            f"given must be {len(probs)} integers, one for each row of probs, "
            f"got {given.dtype} {given.shape}"
        )
    unfit = _first_unfit(probs)
    if unfit is not None:
        raise ValueError(
            f"probs must lie in [0, 1]; row {unfit} does not. Were logits passed instead of "
            "probabilities?"
        )
    out = np.flatnonzero((given < 0) | (given >= probs.shape[1]))
    if out.size:
        raise ValueError(
            f"given must lie in 0…{probs.shape[1] - 1}, the columns of probs; row {out[0]} has "
            f"{given[out[0]]}"
        )


def _first_unfit(probs: Probs) -> int | None:
    """Return the first row with a value outside [0, 1], or None. Written so that NaN fails too."""
    if isinstance(probs, TopRows):
        listed = ~((probs.values >= 0) & (probs.values <= 1))
        rest = ~((probs.rest >= 0) & (probs.rest <= 1))
        unfit = np.append(probs.row[listed], np.flatnonzero(rest))
        return int(unfit.min()) if unfit.size else None
    for rows in _blocks(probs):
        is_fit = (probs[rows] >= 0) & (probs[rows] <= 1)
        if not is_fit.all():
            return int(rows.start + np.argmin(is_fit.all(axis=1)))
    return None


def estimate_noise(probs: Probs, given: np.ndarray) -> tuple[np.ndarray, Estimates]:
    """Estimate thresholds, joint, noise rates and prior of a data set in memory.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, float32 or float64, shape (N, K); or only the most probable
        classes of each item, `labelops.top_rows.TopRows`.
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
    >>> thresholds, estimates = estimate_noise(probs, np.array([0, 0, 0, 1, 1]))
    >>> thresholds.round(3).tolist(), estimates.confident_joint.tolist()
    ([0.6, 0.85], [[2, 1], [0, 1]])
    """
    check_inputs(probs, given)
    thresholds, n_given, scan = _scan(probs, given, ReadableEngine())
    return thresholds, estimate(count_pairs(given, scan.guess, n_classes=probs.shape[1]), n_given)


def _scan(probs: Probs, given: np.ndarray, engine: Engine) -> tuple[np.ndarray, np.ndarray, Scan]:
    """Return thresholds, how many items were given each class, and what is seen in the rows."""
    p_given = at(probs, np.arange(len(given)), given)
    sums = conf.summarize(p_given, given, n_classes=probs.shape[1])
    thresholds = conf.finish(sums)
    parts = [engine.scan(probs[:0], given[:0], thresholds)]
    parts += [engine.scan(probs[rows], given[rows], thresholds) for rows in _blocks(probs)]
    return thresholds, sums.n, Scan(*(np.concatenate(c) for c in zip(*parts, strict=True)))


def count_pairs(given: np.ndarray, guess: np.ndarray, *, n_classes: int) -> Matrix:
    """Count items by given class and confident guess: all pairs, or of many those that occur.

    Returns
    -------
    int64, shape (K, K), for `labelops.confident.estimates.estimate`.
    """
    if n_classes <= sparse_joint.DENSE_CLASSES:
        return count(given, guess, n_classes=n_classes)
    pairs = sparse_joint.count(given, guess, n_classes=n_classes)
    return sparse_joint.matrix(pairs, n_classes)


def find_label_issues(
    probs: Probs,
    given: np.ndarray,
    *,
    filter_by: Filter = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    item_hash: np.ndarray | None = None,
    engine: Engine | None = None,
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
        Out-of-sample probabilities, float32 or float64, shape (N, K); or only the most probable
        classes of each item, `labelops.top_rows.TopRows`.
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
    engine
        Who does the loops over rows; the readable one if absent.

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
    settings = Settings(filter_by, frac_noise, min_examples_per_class)
    loops: Engine = engine or ReadableEngine()
    _, n_given, scan = _scan(probs, given, loops)
    if filter_by not in BY_PAIRS | BY_CLASSES | BY_LOWEST:
        return flag(settings, given, scan)

    hashes = np.arange(len(probs), dtype=np.uint64) if item_hash is None else item_hash
    n_classes, dtype = probs.shape[1], probs.dtype
    is_dense = not isinstance(probs, TopRows) and n_classes <= sparse_joint.DENSE_CLASSES

    def blocks() -> Iterator[Rows]:
        if filter_by in BY_PAIRS:
            for rows in _blocks(probs):
                yield probs[rows], given[rows], hashes[rows]

    def pairs(known: Selection) -> Pairs:
        if is_dense:
            return loops.pairs(known, n_classes, dtype)
        return ReadablePairs(known, dtype)

    p_given = at(probs, np.arange(len(given)), given)
    singles = single_elements(settings, n_classes, given, p_given, scan.p_other, hashes)
    n_disagreeing = int(flag(Settings("confident_learning"), given, scan).sum())
    noise = estimate(count_pairs(given, scan.guess, n_classes=n_classes), n_given)
    quotas = quotas_of(settings, noise.calibrated_joint, n_given, n_disagreeing)
    selection = _cuts(*quotas, singles, blocks, pairs, dtype)
    taken_pair = taken_single = None
    if filter_by in BY_PAIRS:
        taking = pairs(selection)
        parts = [taking.take(*block) for block in blocks()]
        taken_pair = np.concatenate([np.zeros(0, bool), *parts])
    if filter_by in BY_CLASSES | BY_LOWEST:
        taken_single = sel.is_taken(selection, singles)
    return flag(settings, given, scan, taken_pair=taken_pair, taken_single=taken_single)


def _cuts(
    groups: np.ndarray,
    quotas: np.ndarray,
    singles: Elements,
    blocks: Callable[[], Iterable[Rows]],
    pairs: Callable[[Selection], Pairs],
    dtype: np.dtype,
) -> Selection:
    """Find the cuts: count, narrow, count again while much is open, then sort what is left."""
    bits = sel.n_bits(len(groups))
    edges = sel.whole_range(dtype, bits)
    selection = sel.start_groups(groups, quotas, edges)
    n_bins = len(edges) - 1
    counts = pairs(selection).count_first(blocks(), bits=bits, n_bins=n_bins, below=np.inf)
    counts = counts[:, :n_bins] + sel.count_first(selection, edges, singles)
    selection, _ = sel.narrow_first(selection, edges, counts)

    def count_open(known: Selection, bits: int) -> np.ndarray:
        return np.asarray(pairs(known).count(blocks(), bits=bits) + sel.count(known, bits, singles))

    def collect_open(known: Selection) -> Elements:
        return sel.concatenate([pairs(known).collect(blocks()), sel.collect(known, singles)])

    return sel.search(selection, count_open, collect_open)


def _blocks(probs: Probs) -> Iterator[slice]:
    width = int(probs.n_listed.max(initial=1)) if isinstance(probs, TopRows) else probs.shape[1]
    step = max(1, BLOCK_CELLS // max(1, width))
    for start in range(0, len(probs), step):
        yield slice(start, start + step)
