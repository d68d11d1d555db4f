"""Confident learning's loops over rows, compiled.

Each does what a function of `labelops.confident` says in NumPy, and gives the same bits.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from labelops.confident import issues, scores
from labelops.confident.engines import Pairs
from labelops.confident.scan import Scan
from labelops.confident.scores import Score, margin_score, weighted_entropy
from labelops.confident.selection import Selection
from labelops.confident.thresholds import TOLERANCE, confident_bounds
from labelops.confident.top_scan import scan_top
from labelops.fast.confident_pairs import PairCuts
from labelops.fast.jit import compiled
from labelops.top_rows import Probs, TopRows

# N rows, K classes, G groups with a quota, D bins


@compiled()
def _max_of(bits, i, start, stop, lowest):  # type: ignore[no-untyped-def]
    # Bits of numbers that are not negative are ordered as the numbers are, and integers have vector
    # instructions for a maximum where floats, because of NaN, have none.
    top = lowest
    for j in range(start, stop):
        top = max(top, bits[i, j])
    return top


# Sums of whole numbers that are not NaN are the same in any order.
@compiled(fastmath=("nnan", "nsz", "reassoc"))
def _n_confident(probs, i, bounds):  # type: ignore[no-untyped-def]
    # Counted in floats of the same width as the row, so that one vector instruction does for both;
    # exact up to 2²⁴ classes.
    n, one, zero = probs.dtype.type(0), probs.dtype.type(1), probs.dtype.type(0)
    for j in range(probs.shape[1]):
        n += one if probs[i, j] >= bounds[j] else zero
    return n


@compiled()
def _first(bits, i, wanted):  # type: ignore[no-untyped-def]
    j = 0
    while bits[i, j] != wanted:
        j += 1
    return j


@compiled()
def _scan(probs, bits, given, bounds, tolerance, lowest, out):  # type: ignore[no-untyped-def]
    guess, predicted, p_predicted, p_other, agrees = out
    sides = np.empty(2, probs.dtype)
    side_bits = sides.view(bits.dtype)
    n_classes = probs.shape[1]
    for i in range(len(probs)):
        y = np.int64(given[i])
        left = _max_of(bits, i, 0, y, lowest)
        right = _max_of(bits, i, y + 1, n_classes, lowest)
        side_bits[0], side_bits[1] = left, right
        raised = probs[i, y] + tolerance
        agrees[i] = raised > sides[0] and raised >= sides[1]
        p_other[i] = max(sides[0], sides[1]) if n_classes > 1 else -np.inf
        best = y
        if bits[i, y] <= left or bits[i, y] < right:
            best = _first(bits, i, max(left, right))
        predicted[i] = best
        p_predicted[i] = probs[i, best]
        n_confident = _n_confident(probs, i, bounds)
        guess[i] = -1 if n_confident == 0 else best
        if n_confident == 1 and probs[i, best] < bounds[best]:
            only = 0
            while probs[i, only] < bounds[only]:
                only += 1
            guess[i] = only


def empty_scan(n: int, dtype: np.dtype) -> Scan:
    """Return room for what `scan_rows` finds in n rows."""
    return Scan(
        guess=np.empty(n, np.int32),
        predicted=np.empty(n, np.int32),
        p_predicted=np.empty(n, dtype),
        p_other=np.empty(n, dtype),
        agrees=np.empty(n, np.bool_),
    )


def scan_rows(probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> Scan:
    """Do what `labelops.confident.scan.scan_rows` does."""
    out = empty_scan(len(probs), probs.dtype)
    return scan_block(probs, given, confident_bounds(thresholds, probs.dtype), out)


def scan_block(probs: np.ndarray, given: np.ndarray, bounds: np.ndarray, out: Scan) -> Scan:
    """Do what `scan_rows` does, with bounds made once for many blocks."""
    dtype = probs.dtype
    whole = np.int32 if dtype == np.float32 else np.int64
    lowest = whole(np.iinfo(whole).min)
    _scan(probs, probs.view(whole), given, bounds, dtype.type(TOLERANCE), lowest, out)
    return out


@compiled()
def _keep_doubtful(probs, given, p_other, reach, begin, kept, n_out, first_row):  # type: ignore[no-untyped-def]
    out_row, out_probs = kept
    for i in range(begin, len(probs)):
        if probs[i, given[i]] - p_other[i] < reach:
            if n_out == len(out_probs):
                return i, n_out
            for j in range(probs.shape[1]):
                out_probs[n_out, j] = probs[i, j]
            out_row[n_out] = first_row + i
            n_out += 1
    return len(probs), n_out


class DoubtfulRows:
    """Collects rows in which the given class does not lead by a certain margin.

    Parameters
    ----------
    n_classes, dtype
        Of the rows.
    n_bytes
        Size of the buffer.
    """

    def __init__(self, *, n_classes: int, dtype: np.dtype, n_bytes: int = 1 << 23) -> None:
        size = max(16, n_bytes // (n_classes * np.dtype(dtype).itemsize))
        self._kept = np.empty(size, np.int32), np.empty((size, n_classes), dtype)
        self._n = 0

    def add(
        self,
        probs: np.ndarray,
        given: np.ndarray,
        p_other: np.ndarray,
        *,
        reach: float,
        first_row: int,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Copy the rows with p_given − p_other < reach; yield (row, probs) from time to time.

        What is yielded is valid until the next step.
        """
        limit, done = probs.dtype.type(reach), 0
        while True:
            done, self._n = _keep_doubtful(
                probs, given, p_other, limit, done, self._kept, self._n, first_row
            )
            if done == len(probs):
                return
            yield from self.rest()

    def rest(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what is left in the buffer."""
        if self._n:
            row, probs = self._kept
            yield row[: self._n], probs[: self._n]
        self._n = 0


@compiled()
def _adjusted(probs, given, thresholds, top, p_given, p_other):  # type: ignore[no-untyped-def]
    for i in range(len(probs)):
        y, total, other = np.int64(given[i]), 0.0, -np.inf
        for j in range(probs.shape[1]):
            p = np.float64(probs[i, j]) - thresholds[j] + top
            total += p
            if j != y:
                other = max(other, p)
        p_given[i] = (np.float64(probs[i, y]) - thresholds[y] + top) / total
        p_other[i] = other / total


@compiled()
def _entropy(probs, out):  # type: ignore[no-untyped-def]
    for i in range(len(probs)):
        total = 0.0
        for j in range(probs.shape[1]):
            p = np.float64(probs[i, j])
            if p > 0:
                total -= p * np.log(p)
        out[i] = total


def label_scores(
    probs: np.ndarray,
    given: np.ndarray,
    *,
    score: Score = "self_confidence",
    thresholds: np.ndarray | None = None,
) -> np.ndarray:
    """Do what `labelops.confident.scores.label_scores` does, up to the rounding of sums."""
    n, n_classes = probs.shape
    if score == "confidence_weighted_entropy":
        if thresholds is not None:
            raise ValueError("label_scores: the entropy score is not defined on adjusted rows")
        entropies = np.empty(n)
        _entropy(probs, entropies)
        return weighted_entropy(entropies, probs[np.arange(n), given], n_classes)
    if thresholds is None:
        return scores.label_scores(probs, given, score=score)
    p_given, p_other = np.empty(n), np.empty(n)
    _adjusted(probs, given, thresholds, float(thresholds.max()), p_given, p_other)
    return p_given if score == "self_confidence" else margin_score(p_given, p_other)


class CompiledEngine:
    """The loops over rows, compiled."""

    def scan(self, probs: Probs, given: np.ndarray, thresholds: np.ndarray) -> Scan:
        """Do `scan_rows`; rows of which only the probable classes are listed need no compiling."""
        if isinstance(probs, TopRows):
            return scan_top(probs, given, thresholds)
        return scan_rows(probs, given, thresholds)

    def pairs(self, selection: Selection, n_classes: int, dtype: np.dtype) -> Pairs:
        """Return a `PairCuts`."""
        return PairCuts(selection, n_classes=n_classes, dtype=dtype)


find_label_issues = partial(issues.find_label_issues, engine=CompiledEngine())
"""What `labelops.confident.issues.find_label_issues` does, faster."""
