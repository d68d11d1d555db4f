"""Oracle: the same functions on the rows written out."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.confident.filters import Filter
from labelops.confident.issues import estimate_noise, find_label_issues
from labelops.confident.scan import scan_rows
from labelops.confident.scores import Score, label_scores
from labelops.confident.top_scan import scan_top, top_scores
from labelops.fast import confident as fast
from labelops.top_rows import TopRows, at, largest
from tests.labelops.confident.data import cleanlab_flags
from tests.labelops.top import make_top

THRESHOLDS = ("any", "low", "absent", "of the rows")


def thresholds_of(kind: str, rows: TopRows, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "any":
        return rng.random(rows.n_classes)
    if kind == "low":
        return np.full(rows.n_classes, 2e-6)
    if kind == "absent":
        return np.where(rng.random(rows.n_classes) < 0.5, 2.0, 0.1)
    # Probabilities just at, or a tolerance off, the threshold.
    some = np.append(rows.rest, rows.values) if len(rows) else np.full(1, 0.5)
    return np.maximum(rng.choice(some, rows.n_classes) + rng.choice([0, 1e-6]), 2e-6)


@pytest.mark.parametrize("kind", THRESHOLDS)
@settings(max_examples=80)
@examples(seed=st.integers(0, 99_999))
def test_scan__has_the_bits_of_the_rows_written_out(kind, seed):
    rows, given = make_top(seed)
    thresholds = thresholds_of(kind, rows, seed)
    whole = rows.dense()
    # The readable scan knows no arg-max of no rows.
    wanted = (scan_rows if len(rows) else fast.scan_rows)(whole, given, thresholds)
    scan = scan_top(rows, given, thresholds)
    for name in wanted._fields:
        ours, theirs = getattr(scan, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype, name
        assert np.array_equal(ours, theirs), name


@pytest.mark.parametrize("score", get_args(Score))
@pytest.mark.parametrize("is_adjusted", [False, True])
@settings(max_examples=40)
@examples(seed=st.integers(0, 99_999))
def test_scores__are_those_of_the_rows_written_out(score, is_adjusted, seed):
    rows, given = make_top(seed, n=30)
    thresholds = thresholds_of("any", rows, seed) if is_adjusted else None
    if is_adjusted and score == "confidence_weighted_entropy":
        with pytest.raises(ValueError, match="not defined on adjusted rows"):
            top_scores(rows, given, score=score, thresholds=thresholds)
        return
    values = top_scores(rows, given, score=score, thresholds=thresholds)
    wanted = label_scores(rows.dense(), given, score=score, thresholds=thresholds)
    if is_adjusted or score == "confidence_weighted_entropy":
        # Sums over classes are rounded otherwise; scores are stored in single precision.
        assert np.allclose(values, wanted, rtol=1e-12, atol=1e-14)
    else:
        assert np.array_equal(values, wanted)


@pytest.mark.parametrize("filter_by", get_args(Filter))
@settings(max_examples=20)
@examples(seed=st.integers(0, 99_999))
def test_flags__equal_those_of_the_rows_written_out(filter_by, seed):
    rows, given = make_top(seed, n=40)
    hashes = np.random.default_rng(seed).permutation(40).astype(np.uint64) << np.uint64(40)
    wanted = find_label_issues(rows.dense(), given, filter_by=filter_by, item_hash=hashes)
    for find in (find_label_issues, fast.find_label_issues):
        flags = find(rows, given, filter_by=filter_by, item_hash=hashes)
        assert np.array_equal(flags, wanted)
    thresholds, estimates = estimate_noise(rows, given)
    of_whole = estimate_noise(rows.dense(), given)
    assert np.array_equal(thresholds, of_whole[0])
    assert np.array_equal(estimates.calibrated_joint, of_whole[1].calibrated_joint)


@pytest.mark.parametrize("filter_by", get_args(Filter))
def test_flags__of_listed_rows_equal_those_of_cleanlab(filter_by):
    rng = np.random.default_rng(5)
    n, k, m = 400, 7, 3
    ids = np.sort(np.argsort(rng.random((n, k)), axis=1)[:, :m], axis=1)
    p = rng.dirichlet(np.full(m, 0.6), n) * rng.uniform(0.6, 0.95, (n, 1))
    rest = (1 - p.sum(axis=1)) / (k - m)
    rows = TopRows(np.arange(0, n * m + 1, m), ids.ravel(), p.ravel(), rest, k)
    # Given is a listed class, so that nothing ties.
    given = ids[np.arange(n), np.where(rng.random(n) < 0.2, 0, p.argmax(axis=1))]
    flags = find_label_issues(rows, given, filter_by=filter_by)
    assert flags.any()
    assert np.array_equal(flags, cleanlab_flags(rows.dense(), given, filter_by))


def test_prediction__in_the_rest_is_the_first_class_that_is_not_listed():
    rows = TopRows(np.array([0, 2, 3, 3]), np.array([0, 1, 2]), np.full(3, 0.1), np.full(3, 0.2), 4)
    scan = scan_top(rows, np.array([0, 0, 3]), np.full(4, 0.9))
    assert scan.predicted.tolist() == rows.dense().argmax(axis=1).tolist() == [2, 0, 0]


@pytest.mark.parametrize("where", ["listed", "rest"])
def test_inputs__outside_of_probabilities_are_refused(where):
    values, rest = np.array([0.5, 0.5]), np.array([0.5, 0.5])
    (values if where == "listed" else rest)[1] = np.nan
    rows = TopRows(np.array([0, 1, 2]), np.array([0, 1]), values, rest, 2)
    with pytest.raises(ValueError, match="row 1 does not"):
        find_label_issues(rows, np.array([0, 1]))


@examples(seed=st.integers(0, 99_999))
def test_rows__are_looked_up_taken_and_compared_as_written_out(seed):
    rng = np.random.default_rng(seed)
    rows, _ = make_top(seed)
    whole, n = rows.dense(), len(rows)
    chosen = rng.integers(0, n, 9) if n else np.zeros(0, np.int64)
    assert np.array_equal(rows[chosen].dense(), whole[chosen])
    assert np.array_equal(rows[n // 3 : n // 2].dense(), whole[n // 3 : n // 2])
    asked = rng.integers(0, rows.n_classes, len(chosen))
    assert np.array_equal(at(rows, chosen, asked), at(whole, chosen, asked))
    assert np.array_equal(largest(rows), largest(whole))
