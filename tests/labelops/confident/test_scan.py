"""Oracle: the loop of the paper, row by row; the compiled scan against the readable one."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.confident.scan import scan_rows
from labelops.fast import confident as fast
from tests.oracles.confident import slow_guess


def cases(seed: int, dtype: str, kind: str):
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(1, 40))
    probs = rng.dirichlet(np.full(n_classes, 0.3), 60)
    if kind == "coarse":  # ties everywhere, exact 0 and 1
        probs = np.round(probs * 4) / 4
    given = rng.integers(0, n_classes, 60)
    return probs.astype(dtype), given, rng.uniform(0.05, 0.9, n_classes)


@pytest.mark.parametrize("kind", ["smooth", "coarse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=40)
@examples(seed=st.integers(0, 9999))
def test_scan__compiled_and_readable_agree_with_the_loop(seed, dtype, kind):
    probs, given, thresholds = cases(seed, dtype, kind)
    scan = scan_rows(probs, given, thresholds)
    compiled = fast.scan_rows(probs, given, thresholds)
    for name, a, b in zip(scan._fields, scan, compiled, strict=True):
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name
    for i, row in enumerate(probs):
        assert scan.guess[i] == slow_guess(row, thresholds)
        assert scan.predicted[i] == int(np.argmax(row))
        raised = row.copy()
        raised[given[i]] += np.array(1e-6, dtype)
        assert scan.agrees[i] == (int(np.argmax(raised)) == given[i])


@pytest.mark.parametrize("scan", [scan_rows, fast.scan_rows])
def test_scan__empty_shard_gives_empty_columns(scan):
    columns = scan(np.empty((0, 3)), np.empty(0, np.int32), np.full(3, 0.5))
    assert [len(column) for column in columns] == [0] * 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_doubtful_rows__are_those_whose_given_class_does_not_lead(dtype):
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.ones(4), 500).astype(dtype)
    given = rng.integers(0, 4, 500).astype(np.int32)
    others = probs.copy()
    others[np.arange(500), given] = -1
    p_other = others.max(axis=1)
    doubtful = fast.DoubtfulRows(n_classes=4, dtype=probs.dtype, n_bytes=700)
    rows, kept = [], []
    for first in range(0, 500, 77):
        part = slice(first, first + 77)
        for row, block in doubtful.add(
            probs[part], given[part], p_other[part], reach=0.1, first_row=first
        ):
            rows.append(row.copy())
            kept.append(block.copy())
    for row, block in doubtful.rest():
        rows.append(row.copy())
        kept.append(block.copy())
    wanted = np.flatnonzero(probs[np.arange(500), given] - p_other < np.array(0.1, dtype))
    assert np.array_equal(np.concatenate(rows), wanted)
    assert np.array_equal(np.concatenate(kept), probs[wanted])
    assert len(rows) > 3
