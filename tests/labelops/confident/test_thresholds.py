"""Oracle: exact rational arithmetic."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.confident import thresholds as conf
from tests.oracles.confident import slow_thresholds


@examples(seed=st.integers(0, 999), width=st.sampled_from([32, 64]), n_shards=st.integers(1, 9))
def test_thresholds__are_the_rounded_exact_mean_for_every_sharding(seed, width, n_shards):
    rng = np.random.default_rng(seed)
    # Multiples of 2⁻⁶² are what the sums hold exactly.
    p_given = rng.random(200).astype(f"float{width}")
    given = rng.integers(0, 4, 200)
    shards = zip(np.array_split(p_given, n_shards), np.array_split(given, n_shards), strict=True)
    parts = [conf.summarize(p, y, n_classes=5) for p, y in shards]
    rng.shuffle(parts)
    sums = parts[0]
    for part in parts[1:]:
        sums = conf.merge(sums, part)
    assert np.array_equal(conf.finish(sums), slow_thresholds(p_given, given, 5))


def test_thresholds__absent_class_is_never_confident():
    sums = conf.summarize(np.array([0.5]), np.array([0]), n_classes=2)
    assert conf.finish(sums)[1] == 2.0


def test_thresholds__of_zero_are_raised_so_that_zero_is_not_confident():
    thresholds = conf.finish(conf.summarize(np.zeros(3), np.zeros(3, int), n_classes=1))
    assert thresholds[0] == 2e-6
    assert not (np.zeros(1) >= conf.confident_bounds(thresholds, np.dtype(float))).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds__saturated_confidences_stay_confident_for_every_sharding(dtype):
    p_given, given = np.full(30_000, 0.9, dtype), np.zeros(30_000, int)
    for n_shards in (1, 2, 7, 100):
        parts = [
            conf.summarize(p, given[: len(p)], n_classes=1)
            for p in np.array_split(p_given, n_shards)
        ]
        sums = parts[0]
        for part in parts[1:]:
            sums = conf.merge(sums, part)
        thresholds = conf.finish(sums)
        assert thresholds[0] == float(dtype(0.9))
        assert (p_given >= conf.confident_bounds(thresholds, p_given.dtype)).all()


@examples(p=st.floats(0, 1, width=32), t=st.floats(2e-6, 1))
def test_bounds__compare_in_single_as_in_double_precision(p, t):
    bound = conf.confident_bounds(np.array([t]), np.dtype(np.float32))[0]
    assert (np.float32(p) >= bound) == (float(p) >= t - 1e-6)
