"""Oracles: planted shares lie within the ends, strong model or weak; repeating for weighing."""

import numpy as np
import pytest
from scipy.special import expit

from labelops.multilabel.surest import MOST, Ends, error_counts, noise_ends
from tests.labelops.multilabel.test_opinion import spoil

N = 40_000


def planted(
    steepness: float, alpha: float, omega: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (score, given, truth) of one class, of which the score says more or less."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=N) * steepness
    truth = rng.random(N) < expit(score - 1.0)
    return score, spoil(truth, alpha, omega, rng), truth


def ends(score: np.ndarray, given: np.ndarray, weight: np.ndarray | None = None):
    odds = np.full(len(score), given.sum() / (~given).sum())
    return noise_ends(score, given, odds, np.ones(len(score)) if weight is None else weight)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "omega"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.1)])
@pytest.mark.parametrize("steepness", [2.0, 20.0])
def test_ends__hold_what_was_planted_and_are_near_it_where_the_model_is_strong(
    steepness: float, alpha: float, omega: float, seed: int
) -> None:
    score, given, truth = planted(steepness, alpha, omega, seed)
    missing, wrong = ends(score, given)
    assert missing.low <= alpha <= missing.high
    assert wrong.low <= omega <= wrong.high
    # What is seen of the absent says little of ω where many labels are missing as well.
    if steepness == 20 and not (alpha and omega):
        for found, share in ((missing, alpha), (wrong, omega)):
            # With no noise, or with noise of the other kind, all that is undecided is left open.
            assert found.high - found.low < 0.35
            assert (found.low > 0.2 * share) == (share > 0)
    hidden, false = error_counts(
        int(given.sum()), missing=alpha, wrong=omega, missing_ends=missing, wrong_ends=wrong
    )
    # Ends of shares are ends of numbers: where what is wrong is unknown, so is what is missing.
    assert hidden.low <= (truth & ~given).sum() <= hidden.high
    assert false.low <= (given & ~truth).sum() <= false.high


@pytest.mark.parametrize(("alpha", "omega"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.1)])
def test_ends__from_above_hold_where_the_model_knows_hardly_anything(
    alpha: float, omega: float
) -> None:
    missing, wrong = ends(*planted(0.5, alpha, omega, 0)[:2])
    assert missing.high >= alpha
    assert wrong.high >= omega


def test_ends__from_below_are_nothing_where_the_model_is_weak() -> None:
    missing, wrong = ends(*planted(1.0, 0.0, 0.0, 0)[:2])
    assert (missing.low, wrong.low) == (0.0, 0.0)
    assert missing.high > 0.3


def test_ends__where_hard_cells_are_spoiled_more_reach_what_was_spoiled() -> None:
    score, _, truth = planted(6.0, 0.0, 0.0, 1)
    hides = np.random.default_rng(2).random(N) < 0.3 * np.exp(-np.abs(score) / 6)
    given = truth & ~hides
    missing, _ = ends(score, given)
    alpha = (truth & ~given).sum() / truth.sum()
    assert missing.low <= alpha <= missing.high, (missing, alpha)


def test_ends__of_weighted_cells_are_those_of_as_many() -> None:
    score, given, _ = planted(6.0, 0.2, 0.1, 3)
    rare = np.flatnonzero(~given & (score < 0))
    kept = np.setdiff1d(np.arange(N), rare[np.arange(len(rare)) % 10 > 0])
    weight = np.where(np.isin(kept, rare), 10.0, 1.0)
    odds = np.full(len(kept), given.sum() / (~given).sum())
    drawn = noise_ends(score[kept], given[kept], odds, weight)
    for found, wanted in zip(drawn, ends(score, given), strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.02)


@pytest.mark.parametrize("is_given", [np.zeros(3, bool), np.ones(3, bool)])
def test_ends__of_one_state_only_say_nothing_sure(is_given: np.ndarray) -> None:
    for found in noise_ends(np.arange(3.0), is_given, np.ones(3), np.ones(3)):
        assert found.low == 0
        assert 0 < found.high <= MOST


def test_counts__of_nothing_given_are_nothing() -> None:
    every = Ends(0.0, MOST)
    found = error_counts(0, missing=0.5, wrong=0.5, missing_ends=every, wrong_ends=every)
    assert [tuple(one) for one in found] == [(0.0, 0.0, 0.0)] * 2
