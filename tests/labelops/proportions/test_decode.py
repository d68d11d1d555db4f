"""Oracle: sorting by hand, as the rule of ties says."""

import numpy as np
import pytest

from labelops.proportions.decode import top_of_bags
from tests.labelops.proportions.data import starts


@pytest.mark.parametrize("seed", range(4))
def test_top__keeps_every_count_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 9, 20)
    start = starts(sizes)
    beliefs = rng.integers(0, 3, start[-1]) / 2
    q = rng.integers(0, 2, start[-1]).astype(float)
    k = rng.integers(0, sizes + 1)
    found = top_of_bags(beliefs, q, start, k)
    for b in range(20):
        items = list(range(start[b], start[b + 1]))
        best = sorted(items, key=lambda i: (-beliefs[i], -q[i], i))[: k[b]]
        assert [i for i in items if found[i]] == sorted(best)


@pytest.mark.parametrize("k", [-1, 3])
def test_top__refuses_counts_that_the_bag_cannot_have(k):
    with pytest.raises(ValueError, match="bag 0 of 2 items"):
        top_of_bags(np.zeros(2), np.zeros(2), np.array([0, 2]), np.array([k]))
