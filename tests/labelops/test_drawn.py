"""Counting by drawn items: against formulas, enumeration and simulation."""

import itertools

import numpy as np
import pytest

from labelops.drawn import (
    LEAST,
    N_STRATA,
    allocate,
    count_wrong,
    drawing_order,
    first_of_each,
    half_width,
    stratum_of,
)


def test_strata_begin_at_their_edges() -> None:
    p = np.array([0.0, 0.0499, 0.05, 0.4999, 0.5, 1.0])
    assert stratum_of(p).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("cuts", [[0], [0, 1, 500], [0, 3, 3, 400, 999]])
def test_what_is_drawn_does_not_depend_on_shards(cuts: list[int]) -> None:
    rng = np.random.default_rng(0)
    stratum, key = (
        rng.integers(0, N_STRATA, 1000),
        drawing_order(rng.integers(0, 2**63, 1000, dtype=np.uint64)),
    )
    whole = first_of_each(stratum, key, 20)
    parts = [np.arange(a, b) for a, b in itertools.pairwise([*cuts, 1000])]
    kept = np.concatenate([part[first_of_each(stratum[part], key[part], 20)] for part in parts])
    assert kept[first_of_each(stratum[kept], key[kept], 20)].tolist() == whole.tolist()
    for h in range(N_STRATA):
        mine = np.flatnonzero(stratum == h)
        assert set(whole[stratum[whole] == h]) == set(mine[np.argsort(key[mine])[:20]])


def test_order_of_drawing_is_not_that_of_other_samples() -> None:
    hashes = np.sort(np.random.default_rng(1).integers(0, 2**64, 5000, dtype=np.uint64))
    rank = np.argsort(np.argsort(drawing_order(hashes)))
    assert abs(np.corrcoef(rank, np.arange(5000))[0, 1]) < 0.05


def test_allocation_is_the_best_of_all() -> None:
    n_of, p_of = np.array([300, 40, 25]), np.array([0.02, 0.3, 0.8])
    found = allocate(n_of, p_of, 30)
    ways = [
        np.array([a, b, 30 - a - b])
        for a in range(LEAST, 26)
        for b in range(LEAST, 31 - a)
        if LEAST <= 30 - a - b <= 25
    ]
    assert half_width(n_of, p_of, found) == min(half_width(n_of, p_of, way) for way in ways)


@pytest.mark.parametrize("n_of", [[0, 0, 0], [3, 0, 0], [0, 0, 1000], [2, 1, 4], [10**9, 1, 0]])
def test_no_more_are_drawn_than_there_are(n_of: list[int]) -> None:
    sizes = np.array(n_of)
    drawn = allocate(sizes, np.array([0.0, 0.5, 1.0]), 60)
    assert (drawn <= sizes).all()
    assert drawn.sum() == min(60, sizes.sum())
    assert (drawn[sizes > 0] > 0).all()


def test_all_checked_leaves_no_doubt() -> None:
    sizes, wrong = np.array([30, 20, 10]), np.array([1, 5, 9])
    assert count_wrong(sizes, sizes, wrong) == (15.0, 15.0, 15.0)


@pytest.mark.parametrize("p", [(0.005, 0.2, 0.9), (0.0, 0.0, 0.5), (0.3, 0.4, 0.6)])
@pytest.mark.parametrize("n_of", [(9000, 800, 200), (400, 80, 20)])
def test_count_is_unbiased_and_its_interval_covers_whatever_is_believed(
    p: tuple[float, ...], n_of: tuple[int, ...]
) -> None:
    rng, sizes = np.random.default_rng(0), np.array(n_of)
    drawn = allocate(sizes, np.array([0.01, 0.2, 0.9]), 60)
    wrong = rng.binomial(sizes, p)
    found = np.array(
        [
            count_wrong(sizes, drawn, rng.hypergeometric(wrong, sizes - wrong, drawn))
            for _ in range(1000)
        ]
    )
    standard_error = found[:, 0].std() / np.sqrt(1000)
    assert abs(found[:, 0].mean() - wrong.sum()) < 4 * standard_error + 1e-9
    assert ((found[:, 1] <= wrong.sum()) & (wrong.sum() <= found[:, 2])).mean() >= 0.92
