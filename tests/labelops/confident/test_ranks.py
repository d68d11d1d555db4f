"""Oracle: sorting by score, then hash."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.confident import ranks


@examples(seed=st.integers(0, 99_999), n_parts=st.integers(1, 4), tied=st.booleans())
def test_ranks__are_those_of_sorting_however_the_issues_are_parted(seed, n_parts, tied):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60))
    scores = (rng.integers(0, 3, n) / 2 if tied else rng.random(n)).astype(np.float32)
    hashes = rng.permutation(n).astype(np.uint64)
    if seed % 2:
        hashes *= np.uint64(2**57 + 1)
    p_other = rng.integers(0, 3, n) / 2
    if not tied:
        p_other[:] = 1.0
    all_of_them = ranks.places(scores, hashes, p_other=p_other)
    rank = np.ones(n, np.int64)
    of_part = ranks.part_of(hashes, n_parts)
    for part in range(n_parts):
        known = ranks.know(all_of_them[of_part == part])
        rank += ranks.count_before(known, all_of_them, part=part, n_parts=n_parts)
    order = sorted(
        range(n), key=lambda i: (scores[i], -p_other[i] if scores[i] == 0 else 0, hashes[i])
    )
    assert np.array_equal(rank[order], np.arange(1, n + 1))
    order = sorted(range(n), key=lambda i: (scores[i], hashes[i]))
    assert np.array_equal(ranks.rank(scores, hashes)[order], np.arange(1, n + 1))


def test_ranks__later_ones_come_after_all_others_whatever_else_is_said():
    scores = np.array([0, 0, 1, 1], np.float32)
    later, p_other = np.array([True, False, False, True]), np.array([1.0, 0.0, 1.0, 0.0])
    places = ranks.places(scores, np.arange(4, dtype=np.uint64), later, p_other)
    assert np.argsort(places["key"]).tolist() == [1, 2, 0, 3]


def test_ranks__all_scores_equal_follow_the_hash():
    hashes = np.random.default_rng(0).permutation(1000).astype(np.uint64)
    rank = ranks.rank(np.zeros(1000, np.float32), hashes)
    assert np.array_equal(rank, hashes.astype(np.int64) + 1)


@pytest.mark.parametrize("n", [0, 1])
def test_ranks__of_none_and_one(n):
    assert ranks.rank(np.zeros(n, np.float32), np.zeros(n, np.uint64)).tolist() == [1] * n
