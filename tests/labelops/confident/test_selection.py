"""Oracle: sorting all elements of every group; the compiled version against the readable one."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from labelops.confident import selection as sel
from labelops.confident.engines import ReadablePairs
from labelops.confident.filters import elements_at, pairs_of
from labelops.confident.keys import MAX_KEY, order_keys
from labelops.confident.selection import Elements
from labelops.fast.confident_pairs import PairCuts
from tests.oracles.confident import slow_first


def elements_of(seed: int, dtype: str) -> tuple[np.ndarray, Elements]:
    """Return quotas of ten groups, and elements with many ties and extreme hashes."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 120))
    values = rng.uniform(-1, 1, n) if seed % 2 else rng.integers(-4, 5, n) / 4
    hashes = rng.permutation(n).astype(np.uint64) * np.uint64(2**57 + 1)
    if n > 2:
        hashes[:2] = [0, MAX_KEY]
    elements = Elements(rng.integers(0, 10, n), order_keys(values.astype(dtype)), hashes)
    return rng.integers(0, 12, 10), elements


def split(elements: Elements, n_shards: int) -> list[Elements]:
    return [
        Elements(*(column[start::n_shards] for column in elements)) for start in range(n_shards)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@examples(
    seed=st.integers(0, 99_999),
    n_shards=st.integers(1, 5),
    bits=st.integers(1, 7),
    collect=st.sampled_from([0, 10, 1000]),
)
def test_selection__takes_what_sorting_takes_for_every_sharding(
    seed, n_shards, bits, collect, dtype
):
    quotas, elements = elements_of(seed, dtype)
    shards = split(elements, n_shards)
    edges = sel.whole_range(np.dtype(dtype), bits)
    selection = sel.start(quotas, edges)
    counts = sum(sel.count_first(selection, edges, shard) for shard in shards)
    selection, is_short = sel.narrow_first(selection, edges, counts)
    have = np.bincount(elements.group, minlength=10)[selection.groups]
    assert np.array_equal(is_short, have < quotas[selection.groups])
    passes = 0
    while selection.total_open > collect:
        counts = sum(sel.count(selection, bits, shard) for shard in shards)
        assert counts.sum() == selection.total_open
        selection = sel.narrow(selection, bits, counts)
        passes += 1
    key_bits = 8 * np.dtype(dtype).itemsize
    assert passes <= -(-key_bits // bits) + -(-64 // bits)
    collected = sel.concatenate([sel.collect(selection, shard) for shard in shards])
    selection = sel.settle(selection, collected)
    taken = sel.is_taken(selection, elements)
    assert np.array_equal(taken, slow_first(quotas, *elements))


def test_selection__number_of_passes_is_enough_for_any_number_of_groups():
    for n_groups in (1, 100, 10_000, 10**6):
        bits = sel.n_bits(n_groups)
        assert bits >= sel.MIN_BITS
        assert sel.max_passes(n_groups, 64) * bits >= 128


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=40)
@examples(seed=st.integers(0, 99_999), bits=st.integers(1, 6), coarse=st.booleans())
def test_pair_cuts__compiled_do_what_the_readable_ones_do(seed, bits, coarse, dtype):
    rng = np.random.default_rng(seed)
    n, n_classes = int(rng.integers(0, 80)), int(rng.integers(1, 7))
    probs = rng.dirichlet(np.full(n_classes, 0.4), n)
    probs = (np.round(probs * 8) / 8 if coarse else probs).astype(dtype)
    given = rng.integers(0, n_classes, n).astype(np.int32)
    hashes = rng.permutation(n).astype(np.uint64) * np.uint64(2**57 + 1)
    quotas = rng.integers(0, 9, n_classes**2)
    edges = sel.whole_range(probs.dtype, bits)
    blocks = [(probs[::2], given[::2], hashes[::2]), (probs[1::2], given[1::2], hashes[1::2])]

    def compiled():
        return PairCuts(selection, n_classes=n_classes, dtype=probs.dtype)

    selection = sel.start(quotas, edges)
    # Groups on the diagonal are whole classes: they get no elements from pairs.
    elements = elements_at(*pairs_of(selection.groups, n_classes, given), probs, given, hashes)
    counts = sel.count_first(selection, edges, elements)
    actual = compiled().count_first(blocks, bits=bits, n_bins=len(edges) - 1, below=np.inf)
    assert np.array_equal(actual[:, :-1], counts)
    assert not actual[:, -1].any()
    readable = ReadablePairs(selection, probs.dtype)
    for n_bins, limit in ((3, edges_value(edges, 2, dtype)), (2, 0.0), (1, np.inf)):
        first = {"bits": bits, "n_bins": n_bins, "below": limit}
        actual = compiled().count_first(blocks, **first)
        assert np.array_equal(actual, readable.count_first(blocks, **first))
    assert np.array_equal(actual[:, 0], counts[:, 0])
    selection, _ = sel.narrow_first(selection, edges, counts)
    while selection.total_open > 3:
        counts = sel.count(selection, bits, elements)
        assert np.array_equal(compiled().count(blocks, bits=bits), counts)
        selection = sel.narrow(selection, bits, counts)
    actual = compiled().collect(blocks)
    wanted = sel.collect(selection, elements)
    assert sorted(zip(*actual, strict=True)) == sorted(zip(*wanted, strict=True))
    selection = sel.settle(selection, wanted)
    taken = np.zeros(n, bool)
    row_of_hash = {value: row for row, value in enumerate(hashes.tolist())}
    for value in elements.hash[sel.is_taken(selection, elements)].tolist():
        taken[row_of_hash[value]] = True
    assert np.array_equal(compiled().take(probs, given, hashes), taken)


def edges_value(edges: np.ndarray, position: int, dtype: str) -> float:
    bins = len(edges) - 2
    return -1.0 + 2.0 * position / bins
