"""Multi-label confident learning's loops over rows, compiled.

Each does what `labelops.multilabel.cells.ReadableEngine` says in NumPy, and gives the same bits.
Where every class that is not present is ruled out, a row is first counted as if it had no class at
all, in loops without branches, and its few classes are put right afterwards: sums are integers, so
nothing is lost.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from labelops.confident.thresholds import FRACTION_BITS, LOW_BITS, TOLERANCE, SelfConfidence
from labelops.fast.jit import compiled
from labelops.multilabel import issues
from labelops.multilabel.cells import Cells, Counts
from labelops.multilabel.labels import LabelSets, n_no, n_yes
from labelops.multilabel.scores import ALPHA, TEMPERATURE, RowScore

# n rows, K classes

UNIT = 2.0**FRACTION_BITS
LOW_MASK = (1 << LOW_BITS) - 1

N_LOWEST = 32
"""Of the moving average the 33rd lowest score weighs 0.2³², less than a rounding."""


class _Limits(NamedTuple):
    """From where on "no" and "yes" are confident, shape (K,), and by what states must differ."""

    no: np.ndarray
    yes: np.ndarray
    tolerance: float


class _Tallies(NamedTuple):
    """Counts of one given state: guesses "no" and "yes", disagreeing, sure; int32, shape (K,)."""

    no: np.ndarray
    yes: np.ndarray
    apart: np.ndarray
    sure: np.ndarray


class _Sets(NamedTuple):
    """Classes that items have, and those that they do not have, unless these are all others."""

    ids: np.ndarray
    start: np.ndarray
    no_ids: np.ndarray
    no_start: np.ndarray
    rest_is_no: bool


@compiled()
def _sum_rest(probs, high, low):  # type: ignore[no-untyped-def]
    one = probs.dtype.type(1)
    for i in range(len(probs)):
        for c in range(probs.shape[1]):
            fixed = np.int64(np.float64(one - probs[i, c]) * UNIT)
            high[c] += fixed >> LOW_BITS
            low[c] += fixed & LOW_MASK


@compiled()
def _sum_listed(probs, ids, start, is_yes, sign, high, low):  # type: ignore[no-untyped-def]
    one = probs.dtype.type(1)
    for i in range(len(probs)):
        for m in range(start[i], start[i + 1]):
            c = ids[m]
            p = probs[i, c] if is_yes else one - probs[i, c]
            fixed = np.int64(np.float64(p) * UNIT)
            high[c] += sign * (fixed >> LOW_BITS)
            low[c] += sign * (fixed & LOW_MASK)


@compiled()
def _count_rest(probs, limits, counts):  # type: ignore[no-untyped-def]
    low_no, low_yes, tolerance = limits
    to_no, to_yes, apart, sure = counts
    one = probs.dtype.type(1)
    for i in range(len(probs)):
        for c in range(probs.shape[1]):
            p = probs[i, c]
            q = one - p
            is_no, is_yes, leads = q >= low_no[c], p >= low_yes[c], p > q
            is_apart = q + tolerance < p
            to_yes[c] += np.int32(is_yes & (leads | (not is_no)))
            to_no[c] += np.int32(is_no & ((not leads) | (not is_yes)))
            apart[c] += np.int32(is_apart)
            sure[c] += np.int32(is_apart & is_yes)


@compiled()
def _count_listed(probs, ids, start, is_given, sign, limits, counts):  # type: ignore[no-untyped-def]
    low_no, low_yes, tolerance = limits
    to_no, to_yes, apart, sure = counts
    one = probs.dtype.type(1)
    for i in range(len(probs)):
        for m in range(start[i], start[i + 1]):
            c = ids[m]
            p = probs[i, c]
            q = one - p
            is_no, is_yes, leads = q >= low_no[c], p >= low_yes[c], p > q
            if is_given:
                is_apart = not (p + tolerance > q)
                is_sure = is_apart and is_no
            else:
                is_apart = q + tolerance < p
                is_sure = is_apart and is_yes
            to_yes[c] += sign * np.int32(is_yes and (leads or not is_no))
            to_no[c] += sign * np.int32(is_no and (not leads or not is_yes))
            apart[c] += sign * np.int32(is_apart)
            sure[c] += sign * np.int32(is_sure)


@compiled()
def _n_apart(probs, i, tolerance):  # type: ignore[no-untyped-def]
    n, one = np.int32(0), probs.dtype.type(1)
    for c in range(probs.shape[1]):
        n += np.int32((one - probs[i, c]) + tolerance < probs[i, c])
    return n


@compiled()
def _list_all(probs, sets, tolerance, out):  # type: ignore[no-untyped-def]
    """Write disagreeing cells while there is room; return how many there are."""
    ids, start, _, _, _ = sets
    out_row, out_class, out_given = out
    n, one = 0, probs.dtype.type(1)
    n_classes = probs.shape[1]
    for i in range(len(probs)):
        m, end = start[i], start[i + 1]
        # Nearly all rows of a good model have none among the classes that are ruled out.
        dense = _n_apart(probs, i, tolerance) > 0
        c = 0
        while c < n_classes:
            if not dense:
                if m == end:
                    break
                c = np.int64(ids[m])
            p = probs[i, c]
            is_given = m < end and np.int64(ids[m]) == c
            if is_given:
                m += 1
                is_apart = not (p + tolerance > one - p)
            else:
                is_apart = (one - p) + tolerance < p
            if is_apart:
                if n < len(out_row):
                    out_row[n], out_class[n], out_given[n] = i, c, is_given
                n += 1
            c += 1
    return n


@compiled()
def _list_listed(probs, sets, tolerance, out):  # type: ignore[no-untyped-def]
    ids, start, no_ids, no_start, _ = sets
    out_row, out_class, out_given = out
    n, one = 0, probs.dtype.type(1)
    for i in range(len(probs)):
        m, end = start[i], start[i + 1]
        k, no_end = no_start[i], no_start[i + 1]
        while m < end or k < no_end:
            is_given = m < end and (k == no_end or ids[m] < no_ids[k])
            if is_given:
                c = np.int64(ids[m])
                m += 1
                is_apart = not (probs[i, c] + tolerance > one - probs[i, c])
            else:
                c = np.int64(no_ids[k])
                k += 1
                is_apart = (one - probs[i, c]) + tolerance < probs[i, c]
            if is_apart:
                if n < len(out_row):
                    out_row[n], out_class[n], out_given[n] = i, c, is_given
                n += 1
    return n


def _sets(labels: LabelSets) -> _Sets:
    no_ids, no_start = labels.negative_ids, labels.negative_start
    if no_ids is None or no_start is None:
        return _Sets(labels.ids, labels.start, labels.ids[:0], labels.start[:0], True)
    return _Sets(labels.ids, labels.start, no_ids, no_start, False)


class CompiledEngine:
    """The loops over rows, compiled."""

    def sums(self, probs: np.ndarray, labels: LabelSets) -> SelfConfidence:
        """Do `ReadableEngine.sums`."""
        shape = (2, labels.n_classes)
        high, low = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        if labels.negative_ids is None:
            _sum_rest(probs, high[0], low[0])
            _sum_listed(probs, labels.ids, labels.start, False, -1, high[0], low[0])
        else:
            negative = labels.negative_ids, labels.negative_start
            _sum_listed(probs, *negative, False, 1, high[0], low[0])
        _sum_listed(probs, labels.ids, labels.start, True, 1, high[1], low[1])
        n = np.stack([n_no(labels), n_yes(labels)])
        return SelfConfidence(*(np.ascontiguousarray(x.T).ravel() for x in (n, high, low)))

    def counts(self, probs: np.ndarray, labels: LabelSets, bounds: np.ndarray) -> Counts:
        """Do `ReadableEngine.counts`."""
        low = np.ascontiguousarray(bounds.T)
        limits = _Limits(low[0], low[1], probs.dtype.type(TOLERANCE))
        tallies = np.zeros((2, 4, labels.n_classes), np.int32)
        of_no, of_yes = _Tallies(*tallies[0]), _Tallies(*tallies[1])
        if labels.negative_ids is None:
            _count_rest(probs, limits, of_no)
            _count_listed(probs, labels.ids, labels.start, False, -1, limits, of_no)
        else:
            negative = labels.negative_ids, labels.negative_start
            _count_listed(probs, *negative, False, 1, limits, of_no)
        _count_listed(probs, labels.ids, labels.start, True, 1, limits, of_yes)
        joint = tallies[:, :2].transpose(2, 0, 1).astype(np.int64)
        return Counts(joint, tallies[:, 2].T.astype(np.int64), tallies[:, 3].T.astype(np.int64))

    def disagreeing(self, probs: np.ndarray, labels: LabelSets) -> Cells:
        """Do `ReadableEngine.disagreeing`."""
        tolerance, sets = probs.dtype.type(TOLERANCE), _sets(labels)
        list_cells = _list_all if sets.rest_is_no else _list_listed
        size = 1024 + len(probs) // 2
        while True:
            row, class_id = np.empty(size, np.int64), np.empty(size, np.int64)
            is_given = np.empty(size, np.bool_)
            n = list_cells(probs, sets, tolerance, (row, class_id, is_given))
            if n <= size:
                row, class_id = row[:n].copy(), class_id[:n].copy()
                return Cells(row, class_id, is_given[:n].copy(), probs[row, class_id])
            size = n


@compiled()
def _known_scores(probs, i, sets, scores):  # type: ignore[no-untyped-def]
    """Write the probabilities of a row's known states; return how many there are."""
    ids, start, no_ids, no_start, rest_is_no = sets
    n = 0
    if rest_is_no:
        n = probs.shape[1]
        for c in range(n):
            scores[c] = 1.0 - np.float64(probs[i, c])
        for m in range(start[i], start[i + 1]):
            scores[ids[m]] = np.float64(probs[i, ids[m]])
        return n
    for m in range(start[i], start[i + 1]):
        scores[n] = np.float64(probs[i, ids[m]])
        n += 1
    for m in range(no_start[i], no_start[i + 1]):
        scores[n] = 1.0 - np.float64(probs[i, no_ids[m]])
        n += 1
    return n


@compiled()
def _row_ema(probs, sets, out):  # type: ignore[no-untyped-def]
    scores, lowest = np.empty(probs.shape[1]), np.empty(N_LOWEST)
    for i in range(len(probs)):
        n = _known_scores(probs, i, sets, scores)
        lowest[:] = np.inf
        for m in range(n):
            if scores[m] < lowest[-1]:
                at = N_LOWEST - 1
                while at > 0 and lowest[at - 1] > scores[m]:
                    lowest[at] = lowest[at - 1]
                    at -= 1
                lowest[at] = scores[m]
        last = min(n, N_LOWEST) - 1
        average = lowest[last] if n else 1.0
        for t in range(last - 1, -1, -1):
            average = ALPHA * lowest[t] + (1 - ALPHA) * average
        out[i] = average


@compiled()
def _row_softmin(probs, sets, out):  # type: ignore[no-untyped-def]
    scores = np.empty(probs.shape[1])
    for i in range(len(probs)):
        n = _known_scores(probs, i, sets, scores)
        lowest, total, weights = np.inf, 0.0, 0.0
        for m in range(n):
            lowest = min(lowest, scores[m])
        for m in range(n):
            weight = np.exp((lowest - scores[m]) / TEMPERATURE)
            weights += weight
            total += weight * scores[m]
        out[i] = total / weights if n else 1.0


def row_scores(probs: np.ndarray, labels: LabelSets, *, score: RowScore = "ema") -> np.ndarray:
    """Do what `labelops.multilabel.scores.row_scores` does, up to the rounding of sums."""
    kernels = {"ema": _row_ema, "softmin": _row_softmin}
    if score not in kernels:
        raise ValueError(f"row_scores: score must be one of {list(kernels)}, got {score!r}")
    scores = np.empty(len(probs))
    kernels[score](probs, _sets(labels), scores)
    return scores


find_label_issues = partial(issues.find_label_issues, engine=CompiledEngine())
"""What `labelops.multilabel.issues.find_label_issues` does, faster."""
