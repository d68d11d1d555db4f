"""Oracle: sorting all keys at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.cut import (
    MAX_PASSES,
    count_digits,
    is_taken,
    narrow,
    open_cut,
    pack,
    sure_first,
    unpack,
)


def cut_over(shards: list[np.ndarray], limit: int):
    cut, passes = open_cut(limit), 0
    while not cut.is_final:
        counts = sum(count_digits(keys, cut) for keys in shards)
        cut = unpack(pack(narrow(cut, counts)))
        passes += 1
    assert passes <= MAX_PASSES
    return cut


@settings(max_examples=300, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), unique=True, max_size=40),
    limit=st.integers(0, 45),
    n_shards=st.integers(1, 7),
)
def test_cut__takes_the_smallest_keys_for_every_sharding(keys, limit, n_shards):
    keys = np.array(keys, np.uint64)
    shards = np.array_split(keys, n_shards)
    cut = cut_over(shards, limit)
    taken = np.concatenate([part[is_taken(part, cut)] for part in shards])
    assert sorted(taken.tolist()) == sorted(keys.tolist())[:limit]


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_cut__never_takes_more_than_the_limit_among_equal_keys(limit):
    keys = np.array([7, 7, 7, 3], np.uint64)
    taken = is_taken(keys, cut_over([keys], limit))
    assert taken.sum() <= limit
    assert taken[3] == (limit >= 1)


def test_cut__without_items_or_room_takes_nothing():
    assert cut_over([np.array([], np.uint64)], 5).is_all
    keys = np.arange(3, dtype=np.uint64)
    assert not is_taken(keys, cut_over([keys], 0)).any()


def test_sure_first__orders_by_single_precision_then_hash():
    rng = np.random.default_rng(0)
    doubt = np.concatenate([rng.random(500), np.zeros(5), [1.0, -0.0, 1e-30]])
    hashes = rng.integers(0, 2**64, len(doubt), dtype=np.uint64)
    want = np.lexsort([hashes >> np.uint64(32), doubt.astype(np.float32)])
    assert np.argsort(sure_first(doubt, hashes), kind="stable").tolist() == want.tolist()
