"""Posteriors from positive and unlabelled items: Bayes for normal classes, and planted truth."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, logit

from labelops.partial.posteriors import (
    Posterior,
    believe_positive,
    fit_positive_pool,
    fit_posterior,
    pool_positives,
)
from labelops.partial.prior import PriorEstimate
from labelops.partial.scores import count_scores


def planted(n=40_000, mean=1.0, share=0.4, frequency=0.3, seed=0):
    """Return points of classes N(±mean, 1), which are positive, and which of them labelled."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < share
    x = rng.normal(np.where(positive, mean, -mean))
    return x, positive, positive & (rng.random(n) < frequency)


def known(share: float, low: float | None = None) -> PriorEstimate:
    return PriorEstimate(share, share if low is None else low, 1.0, True, "dedpul")


@pytest.mark.parametrize(("stretch", "move"), [(1.0, 0.0), (0.3, 2.0), (3.0, -1.0)])
@pytest.mark.parametrize("mean", [0.7, 1.5])
def test_posterior__is_that_of_bayes_whatever_line_the_score_is_on(mean, stretch, move):
    x, positive, labelled = planted(mean=mean)
    share = positive[~labelled].mean()
    # Log-odds of normal classes: 2 m x, and those of the shares.
    score = expit(stretch * (2 * mean * x) + move)
    posterior = fit_posterior(count_scores(score, labelled), known(share))
    found = believe_positive(posterior, score, np.where(labelled, 1, -1)).p[~labelled]
    inside = np.abs(logit(score[~labelled])) < 15
    want = expit(2 * mean * x[~labelled] + logit(share))
    assert np.abs(found - want)[inside].max() < 0.07
    assert found.mean() == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_mean__over_the_unlabelled_is_the_prior_whether_or_not_it_is_right(share):
    x, _, labelled = planted(n=3000)
    score, state = expit(2 * x), np.where(labelled, 1, -1)
    posterior = fit_posterior(count_scores(score, labelled), known(share, share / 2))
    belief = believe_positive(posterior, score, state)
    assert belief.p[~labelled].mean() == pytest.approx(share, abs=0.002)
    assert belief.low[~labelled].mean() == pytest.approx(share / 2, abs=0.002)
    assert (belief.low <= belief.p).all()
    order = np.argsort(score[~labelled])
    assert (np.diff(belief.p[~labelled][order]) >= 0).all()


def test_known_items__are_what_they_are():
    belief = believe_positive(Posterior(1.0, 0.0, -2.0), np.full(3, 0.5), np.array([1, 0, -1]))
    assert belief.p.tolist() == [1, 0, 0.5]
    assert belief.low[:2].tolist() == [1, 0]


def test_no_and_only_positives__among_the_unlabelled():
    x, _, labelled = planted(n=300)
    score, state = expit(2 * x), np.where(labelled, 1, -1)
    for share in (0.0, 1.0):
        posterior = fit_posterior(count_scores(score, labelled), known(share, 0.0))
        belief = believe_positive(posterior, score, state)
        assert (belief.p[~labelled] == share).all()
        assert (belief.low[~labelled] == 0).all()


def test_corners():
    none = fit_posterior(count_scores(np.zeros(0), np.zeros(0, bool)), known(0.5))
    assert np.isnan(none).all()
    assert len(believe_positive(none, np.zeros(0), np.zeros(0, int)).p) == 0
    only = fit_posterior(count_scores(np.full(3, 0.5), np.ones(3, bool)), known(0.5))
    assert believe_positive(only, np.full(3, 0.5), np.ones(3, int)).p.tolist() == [1, 1, 1]
    for value in (0.0, 0.5, 1.0):
        tied = fit_posterior(count_scores(np.full(6, value), np.arange(6) < 2), known(0.4))
        p = believe_positive(tied, np.full(6, value), np.array([1, 1, -1, -1, -1, -1])).p
        np.testing.assert_allclose(p[2:], 0.4, atol=0.02)
    with pytest.raises(ValueError, match="prior"):
        fit_posterior(count_scores(np.full(6, 0.5), np.arange(6) < 2), known(np.nan))


def two_views(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    views = rng.normal(np.where(positive, 1.0, -1.0), size=(2, n))
    labelled = positive & (rng.random(n) < 0.4)
    return views, positive, labelled


def test_pool__of_independent_views_is_the_posterior_of_bayes():
    views, positive, labelled = two_views()
    share = positive[~labelled].mean()
    # One view is told twice as surely as it may be, the other half as surely.
    scores = expit(views * np.array([[4.0], [1.0]]))
    found = fit_positive_pool(scores, labelled, prior=share)
    np.testing.assert_allclose(found.weights, [0.5, 2.0], rtol=0.12)
    assert found.bias == pytest.approx(logit(share), abs=0.15)
    pooled = pool_positives(scores, found)
    assert pooled[~labelled].mean() == pytest.approx(share, abs=0.02)
    assert np.array_equal(pool_positives(scores[:, 5:6], found), pooled[5:6])


def test_pool__is_where_the_likelihood_is_level():
    views, positive, labelled = two_views(n=2000)
    share = float(positive[~labelled].mean())
    found = fit_positive_pool(expit(views), labelled, prior=share)
    odds = labelled.sum() / (share * (~labelled).sum())

    def loss(theta):
        p = expit(theta[:2] @ views + theta[2])
        labelling = odds * p / (1 + odds * p)
        return -np.log(np.where(labelled, labelling, 1 - labelling)).mean()

    slope = approx_fprime(np.append(found.weights, found.bias), loss)
    assert np.abs(slope).max() < 1e-4


def test_pool__without_one_kind_is_the_plain_mean():
    for labelled in (np.zeros(3, bool), np.ones(3, bool), np.zeros(0, bool)):
        found = fit_positive_pool(np.full((2, len(labelled)), 0.5), labelled, prior=0.4)
        assert found.weights.tolist() == [0.5, 0.5]
        assert found.bias == 0
    nothing = fit_positive_pool(np.array([[0.9, 0.1, 0.0]]), np.arange(3) < 1, prior=0.0)
    assert np.isfinite(pool_positives(np.array([[0.0, 1.0]]), nothing)).all()
