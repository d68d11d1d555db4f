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
    all_of_them = ranks.places(scores, hashes)
    rank = np.ones(n, np.int64)
    of_part = ranks.part_of(hashes, n_parts)
    for part in range(n_parts):
        known = ranks.know(all_of_them[of_part == part])
        rank += ranks.count_before(known, all_of_them, part=part, n_parts=n_parts)
    order = sorted(range(n), key=lambda i: (scores[i], hashes[i]))
    assert np.array_equal(rank[order], np.arange(1, n + 1))
    assert np.array_equal(ranks.rank(scores, hashes), rank)


def test_ranks__all_scores_equal_follow_the_hash():
    hashes = np.random.default_rng(0).permutation(1000).astype(np.uint64)
    rank = ranks.rank(np.zeros(1000, np.float32), hashes)
    assert np.array_equal(rank, hashes.astype(np.int64) + 1)


@pytest.mark.parametrize("n", [0, 1])
def test_ranks__of_none_and_one(n):
    assert ranks.rank(np.zeros(n, np.float32), np.zeros(n, np.uint64)).tolist() == [1] * n
