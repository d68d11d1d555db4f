"""Oracles: items sorted one by one, planted noise of a known rate, models that are in the way."""

import numpy as np
import pytest
from hypothesis import given as having
from hypothesis import settings
from hypothesis import strategies as st

from labelops.confident.surest import (
    LEAST,
    LEAST_RATE,
    MAX_RATE,
    MODEL_ERROR,
    PULL,
    SHARES,
    Cells,
    add_cells,
    count_cells,
    n_wrong,
    surest,
)


def sorted_out(predicted, p, agrees, n_classes):
    """Return how many of the surest there are and disagree, class by class; no two p are close."""
    n, other = np.zeros((2, len(SHARES), n_classes), int)
    for s, share in enumerate(SHARES):
        for k in range(n_classes):
            rows = [i for i in np.argsort(-p, kind="stable") if predicted[i] == k]
            wanted = max(int(np.ceil(share * len(rows))), min(len(rows), LEAST))
            n[s, k], other[s, k] = wanted, sum(not agrees[i] for i in rows[:wanted])
    return n, other


@settings(max_examples=60)
@having(seed=st.integers(0, 10**6), n=st.integers(0, 120), n_classes=st.integers(1, 4))
def test_surest__are_those_of_sorting_each_class(seed, n, n_classes):
    rng = np.random.default_rng(seed)
    # Doubts two steps of confidence apart, so that none are taken for equal.
    p = 1 - 2.0 ** (-rng.permutation(n) / 16 - 1)
    predicted, agrees = rng.integers(0, n_classes, n), rng.random(n) < 0.8
    said = surest(count_cells(predicted, p, agrees), n_classes=n_classes)
    seen, other = sorted_out(predicted, p, agrees, n_classes)
    assert said.n.tolist() == seen.sum(axis=1).tolist()
    assert said.n_other.tolist() == other.sum(axis=1).tolist()
    common = (other[0].sum() + 0.5) / (seen[0].sum() + 1)
    for k in range(n_classes):
        rate = (other[0, k] + PULL * common) / (seen[0, k] + PULL) - MODEL_ERROR
        assert said.rate[k] == pytest.approx(min(max(rate, LEAST_RATE), MAX_RATE))


def test_cells__of_shards_add_up_to_those_of_all_items():
    rng = np.random.default_rng(0)
    predicted, p = rng.integers(0, 3, 500), rng.random(500).astype(np.float32)
    p[:50], p[50:60] = 1.0, 0.0
    agrees = rng.random(500) < 0.7
    whole = count_cells(predicted, p, agrees)
    parts = [count_cells(predicted[s], p[s], agrees[s]) for s in np.split(np.arange(500), [0, 7])]
    added = parts[0]
    for part in parts[1:]:
        added = add_cells(part, added)
    for a, b in zip(added, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.n.sum() == 500
    assert whole.n_other.sum() == (~agrees).sum()


def simulated(rate: float, *, right: float, n: int = 20_000) -> tuple[Cells, int]:
    """Return cells of a model that is right as often as it says, and how many labels are wrong."""
    rng = np.random.default_rng(1)
    p = 1 - (1 - right) * 2 * rng.random(n) ** 2
    is_right, is_wrong = rng.random(n) < p, rng.random(n) < rate
    # With many classes a wrong label hardly ever is what a wrong prediction says.
    agrees = is_right & ~is_wrong
    return count_cells(rng.integers(0, 5, n), p, agrees), int(is_wrong.sum())


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.4])
def test_rate__is_that_of_planted_noise_where_the_model_is_good(rate):
    cells, wrong = simulated(rate, right=0.95)
    said = surest(cells, n_classes=5)
    assert said.is_flat
    # 200 items of a class are seen: less than 0.035 is a standard error at any rate.
    np.testing.assert_allclose(said.rate, max(rate - MODEL_ERROR, LEAST_RATE), atol=0.08)
    n_other = int(cells.n_other.sum())
    low, high = n_wrong(said, n_items=20_000, n_disagreeing=n_other, doubt=0.0)[1:]
    assert low <= wrong <= high


def test_model__that_errs_the_more_the_less_it_is_sure_is_not_taken_for_noise():
    cells, _ = simulated(0.0, right=0.6)
    said = surest(cells, n_classes=5)
    assert not said.is_flat
    assert n_wrong(said, n_items=20_000, n_disagreeing=8000, doubt=8000.0).low == 0


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("error", [0.005, 0.012, 0.03])
def test_model__that_errs_among_its_surest_does_not_raise_the_lower_end(noise, error):
    """Half a million items: chance hides nothing. Errors nearly treble to the surest half."""
    n, rng = 500_000, np.random.default_rng(0)
    rank = rng.permutation(n) / n
    p = 1 - 0.4 * rank
    agrees = rng.random(n) >= np.minimum(error * (0.8 + 8 * rank), 1)
    agrees &= rng.random(n) >= noise
    found = surest(count_cells(np.zeros(n, int), p, agrees), n_classes=2)
    ends = n_wrong(found, n_items=n, n_disagreeing=int((~agrees).sum()), doubt=0.0)
    assert ends.low <= noise * n <= ends.high
    # And most of what is there is still said to be, where the model is good.
    assert error > 0.005 or ends.low >= 0.75 * noise * n


def test_nothing__says_nothing():
    empty = count_cells(np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    said = surest(empty, n_classes=2)
    assert said.n.tolist() == [0, 0, 0]
    assert n_wrong(said, n_items=0, n_disagreeing=0, doubt=0.0) == (0, 0, 0)
