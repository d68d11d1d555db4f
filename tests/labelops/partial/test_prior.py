"""Class prior: slow loops over sorted scores, another program's answers, and planted shares."""

import numpy as np
import pytest
from scipy.stats import binom

from labelops.partial.prior import (
    METHODS,
    best_bin,
    dedpul,
    elkan_noto,
    estimate_prior,
    first_ratios,
    ratio_of_means,
    scott,
)
from labelops.partial.scores import LOGITS, ScoreCounts, count_scores
from tests.oracles.dedpul_answers import ANSWERS, CASES, scores


def counted(labelled: np.ndarray, unlabelled: np.ndarray) -> ScoreCounts:
    whole = np.concatenate([labelled, unlabelled])
    return count_scores(whole, np.arange(len(whole)) < len(labelled))


def normal(mean, share, n_labelled=5000, n_unlabelled=5000, seed=0):
    """Return scores where positives are N(mean, 1) and negatives N(−mean, 1)."""
    rng = np.random.default_rng(seed)
    is_positive = rng.random(n_unlabelled) < share
    labelled = rng.normal(mean, 1, n_labelled)
    unlabelled = rng.normal(np.where(is_positive, mean, -mean), 1)
    return tuple(1 / (1 + np.exp(-2 * mean * x)) for x in (labelled, unlabelled))


def middles(seed=0, n=300):
    """Return scores in the middles of bins, with ties."""
    rng = np.random.default_rng(seed)
    bins = rng.integers(1900, 2200, (2, n)) + np.array([[60], [0]])
    return tuple(1 / (1 + np.exp(-LOGITS[bins])))


@pytest.mark.parametrize("seed", range(5))
def test_best_bin__is_that_of_a_loop_over_thresholds(seed):
    p, u = middles(seed)
    slack = np.sqrt(np.log(4 / 0.1) / 2 / len(u)) + np.sqrt(np.log(4 / 0.1) / 2 / len(p))
    best = (np.inf, np.nan)
    for c in np.unique(np.concatenate([p, u])):
        q_p, q_u = (p >= c).mean(), (u >= c).mean()
        if q_p > 0:
            best = min(best, (q_u / q_p + 1.01 * slack / q_p, q_u / q_p))
    assert best_bin(counted(p, u)) == pytest.approx(best[1])


def test_scott__is_the_least_ratio_of_binomial_bounds():
    p, u = middles(n=60)
    ratios = []
    for c in np.unique(p):
        at_p, at_u = int((p >= c).sum()), int((u >= c).sum())
        grid = np.linspace(0, 1, 20_001)
        # The largest share under which so few, and the least under which so many, are not rare.
        high = grid[binom.cdf(at_u, len(u), grid) >= 0.1].max()
        low = grid[binom.sf(at_p - 1, len(p), grid) >= 0.1].min()
        ratios.append(high / low)
    assert scott(counted(p, u)) == pytest.approx(min(1, *ratios), abs=1e-3)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_dedpul__answers_as_its_authors_program(case):
    assert dedpul(counted(*scores(case))) == pytest.approx(ANSWERS[case], abs=0.005)


def test_means__are_those_of_the_scores():
    p, u = middles()
    assert ratio_of_means(counted(p, u)) == pytest.approx(min(1, u.mean() / p.mean()))
    assert elkan_noto(counted(p, u)) == pytest.approx(min(1, 1 / p.mean() - 1))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("method", ["best-bin", "dedpul"])
def test_separable_classes__give_the_share(share, method):
    found = [METHODS[method](counted(*normal(2, share, seed=seed))) for seed in range(5)]
    assert np.mean(found) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("share", "want"), [(0.1, 0.283), (0.3, 0.460), (0.5, 0.623)])
def test_overlapping_classes__are_estimated_from_above(share, want):
    """N(0, 1) against N(−1, 1): the ratio never is level."""
    found = [best_bin(counted(*normal(0.5, share, seed=seed))) for seed in range(10)]
    assert np.mean(found) == pytest.approx(want, abs=0.03)
    assert min(found) > share


def test_calibrated_scores_of_sure_answers__make_elkan_and_noto_right():
    """Labelled with probability c where positive, never else; the classifier knows as much."""
    rng = np.random.default_rng(0)
    is_positive = rng.random(20_000) < 0.4
    is_labelled = is_positive & (rng.random(20_000) < 0.3)
    found = count_scores(np.where(is_positive, 0.3, 1e-9), is_labelled)
    share = is_positive[~is_labelled].mean()
    assert elkan_noto(found) == pytest.approx(share, abs=0.03)
    assert estimate_prior(found).of_all(found) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("mean", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_interval__holds_the_share(mean, share):
    drawn = [normal(mean, share, 1000, 4000, seed) for seed in range(8)]
    found = [estimate_prior(counted(p, u), n_resamples=60) for p, u in drawn]
    assert sum(one.low <= share <= one.high for one in found) >= 7
    assert all(one.low <= one.value <= one.high for one in found)


def test_levels__are_seen_where_there_are_some():
    apart = [estimate_prior(counted(*normal(2, 0.3, seed=s)), n_resamples=60) for s in range(6)]
    close = [estimate_prior(counted(*normal(0.5, 0.3, seed=s)), n_resamples=60) for s in range(6)]
    assert sum(one.is_irreducible for one in apart) >= 5
    assert not any(one.is_irreducible for one in close)


def test_ties__that_fill_both_parts_leave_the_lower_end_open():
    same = counted(np.full(30, 0.7), np.full(90, 0.7))
    assert first_ratios(same) == (1.0, np.inf)
    found = estimate_prior(same, method="best-bin")
    assert found == (1.0, 0.0, 1.0, False, "best-bin")


@pytest.mark.parametrize("seed", range(3))
def test_two_values__of_scores_hold_the_share(seed):
    rng = np.random.default_rng(seed)
    is_positive = rng.random(4000) < 0.3
    labelled = np.where(rng.random(1000) < 0.6, 0.9, 0.2)
    unlabelled = np.where(rng.random(4000) < np.where(is_positive, 0.6, 0.2), 0.9, 0.2)
    found = estimate_prior(counted(labelled, unlabelled))
    assert found.low == 0
    assert found.high > 0.3
    assert not found.is_irreducible


@pytest.mark.parametrize("n_labelled", [2, 10, 20, 40])
def test_few_labelled__hold_the_share(n_labelled):
    found = [
        estimate_prior(counted(*normal(2, 0.3, n_labelled, 2000, seed)), n_resamples=60)
        for seed in range(20)
    ]
    assert sum(one.low <= 0.3 <= one.high for one in found) >= 17
    assert all((one.low, one.high) == (0, 1) for one in found if n_labelled < 20)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_scores__that_are_no_probabilities_are_refused(bad):
    with pytest.raises(ValueError, match="probabilities were expected"):
        count_scores(np.array([0.5, bad]), np.array([True, False]))


def test_mask_of_integers__is_a_mask():
    found = count_scores(np.array([0.2, 0.9, 0.3]), np.array([1, 0, 0]))
    assert (found.n_labelled, found.n_unlabelled) == (1, 2)


def test_share_of_all__where_all_are_labelled_is_one():
    found = counted(np.full(10, 0.5), np.zeros(0))
    assert estimate_prior(found).of_all(found) == 1
    none = counted(np.zeros(0), np.zeros(0))
    assert np.isnan(estimate_prior(none).of_all(none))


def test_resampling__is_the_same_every_time_and_does_not_touch_the_counts():
    found = counted(*normal(1, 0.3, 500, 500))
    before = [part.copy() for part in found]
    assert estimate_prior(found, n_resamples=20) == estimate_prior(found, n_resamples=20)
    assert all(np.array_equal(a, b) for a, b in zip(before, found, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_corners(method):
    none, some = np.zeros(0), np.full(4, 0.5)
    for p, u in ((none, some), (some, none), (none, none)):
        found = estimate_prior(counted(p, u), method=method)
        assert np.isnan(found.value)
        assert (found.low, found.high, found.is_irreducible) == (0.0, 1.0, False)
    for p, u in ((some, some), (some[:1], some[:1]), (np.ones(3), np.zeros(5)), (some * 0, some)):
        found = estimate_prior(counted(p, u), method=method, n_resamples=5)
        assert 0 <= found.low <= found.value <= found.high <= 1
    tied = estimate_prior(counted(some, some), method="best-bin", n_resamples=5)
    assert tied.value == 1


def test_all_orders_and_cuts_of_items__count_the_same():
    p, u = normal(1, 0.3, 200, 300)
    whole = counted(p, u)
    one, other = counted(p[:50], u[:1]), counted(p[50:][::-1], u[1:])
    for a, b, both in zip(one, other, whole, strict=True):
        assert np.array_equal(a + b, both)
    assert (whole.n_labelled, whole.n_unlabelled) == (200, 300)
