"""Metrics without known negatives: those of the truth, closed forms, and what intervals hold."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from labelops.partial.metrics import auc, f1, positive_metrics, precision
from labelops.partial.prior import PriorEstimate
from labelops.partial.scores import count_scores


def drawn(seed: int, n: int = 4000, frequency: float = 0.4):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    score = 1 / (1 + np.exp(-rng.normal(np.where(positive, 1.0, -1.0)) - 0.3))
    return score, positive, positive & (rng.random(n) < frequency)


def truth(score, positive, labelled):
    y, s = positive[~labelled], score[~labelled]
    flagged = s >= 0.5
    return (
        precision_score(y, flagged),
        recall_score(y, flagged),
        f1_score(y, flagged),
        roc_auc_score(y, s),
    )


def test_values__are_those_of_the_truth_on_average_and_intervals_hold_it():
    off, held = [], []
    for seed in range(30):
        score, positive, labelled = drawn(seed)
        share = positive[~labelled].mean()
        prior = PriorEstimate(share, share - 0.02, share + 0.02, True, "dedpul")
        found = positive_metrics(count_scores(score, labelled), prior, n_resamples=60)
        want = truth(score, positive, labelled)
        off.append([metric.value - true for metric, true in zip(found, want, strict=True)])
        held.append([m.low <= true <= m.high for m, true in zip(found, want, strict=True)])
    assert np.abs(np.mean(off, axis=0)).max() < 0.006
    assert np.std(off, axis=0).max() < 0.03
    assert np.mean(held) >= 0.95


def test_all_rise__with_the_prior():
    counts = count_scores(*(part for part in (drawn(0)[0], drawn(0)[2])))
    for of in (
        lambda share: precision(counts, prior=share, threshold=0.5),
        lambda share: f1(counts, prior=share, threshold=0.5),
        lambda share: auc(counts, prior=share),
    ):
        values = [of(share) for share in np.linspace(0, 0.99, 30)]
        assert (np.diff(values) >= -1e-12).all()
        assert 0 <= min(values) <= max(values) <= 1


def test_perfect_scores__have_perfect_metrics():
    score = np.repeat([0.9, 0.9, 0.1], [30, 20, 80])
    counts = count_scores(score, np.arange(130) < 30)
    prior = PriorEstimate(0.2, 0.2, 0.2, True, "dedpul")
    found = positive_metrics(counts, prior, n_resamples=20)
    assert all(metric.value == pytest.approx(1) for metric in found)


def test_useless_scores__have_those_of_a_guess():
    score = np.full(130, 0.7)
    counts = count_scores(score, np.arange(130) < 30)
    prior = PriorEstimate(0.2, 0.1, 0.3, True, "dedpul")
    found = positive_metrics(counts, prior, n_resamples=5)
    assert found.precision == pytest.approx((0.2, 0.1, 0.3))
    assert found.recall == (1, 1, 1)
    assert found.f1.value == pytest.approx(2 * 0.2 / 1.2)
    assert found.auc.value == pytest.approx(0.5)


def test_corners():
    prior = PriorEstimate(0.2, 0.1, 0.3, True, "dedpul")
    none = count_scores(np.zeros(0), np.zeros(0, bool))
    assert all(np.isnan(value) for metric in positive_metrics(none, prior) for value in metric)
    low = count_scores(np.full(5, 0.1), np.arange(5) < 1)
    found = positive_metrics(low, prior, n_resamples=5)
    assert np.isnan(found.precision.value)
    assert (found.recall.value, found.f1.value) == (0, 0)
    all_positive = PriorEstimate(1.0, 1.0, 1.0, True, "dedpul")
    assert np.isnan(positive_metrics(low, all_positive, n_resamples=5).auc.value)


def test_resampling__is_the_same_every_time():
    score, _, labelled = drawn(1, n=300)
    counts, prior = count_scores(score, labelled), PriorEstimate(0.3, 0.2, 0.4, True, "dedpul")
    assert positive_metrics(counts, prior) == positive_metrics(counts, prior)
