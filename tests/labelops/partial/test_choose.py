"""Proxies of accuracy and AUC: other programs, and what they stand for when the truth is known."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from labelops.partial.choose import proxy_accuracy, proxy_auc, shares_above
from labelops.partial.scores import LOGITS, ScoreCounts, count_scores


def drawn(seed: int, n: int = 4000, frequency: float = 0.4):
    """Return scores, the truth, and which are labelled."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    score = 1 / (1 + np.exp(-rng.normal(np.where(positive, 1.0, -1.0))))
    return score, positive, positive & (rng.random(n) < frequency)


@pytest.mark.parametrize("seed", range(3))
def test_auc__is_that_of_labelled_against_unlabelled_with_ties(seed):
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-LOGITS[rng.integers(2000, 2030, 300)]))
    labelled = rng.random(300) < 0.3
    want = roc_auc_score(labelled, score)
    assert proxy_auc(count_scores(score, labelled)) == pytest.approx(want)


def test_proxies__are_those_of_the_truth_on_average():
    auc, accuracy = [], []
    for seed in range(40):
        score, positive, labelled = drawn(seed)
        counts, rest = count_scores(score, labelled), ~labelled
        prior = positive[rest].mean()
        true = roc_auc_score(positive[rest], score[rest])
        auc.append(proxy_auc(counts) - (prior / 2 + (1 - prior) * true))
        true = accuracy_score(positive[rest], score[rest] >= 0.5)
        accuracy.append(proxy_accuracy(counts, prior=prior) - true)
    for off in (auc, accuracy):
        assert abs(np.mean(off)) < 3 * np.std(off) / np.sqrt(len(off)) + 1e-4
        assert np.std(off) < 0.02


def test_accuracy__prefers_what_plain_accuracy_does_not():
    """A tenth of the positives labelled: to call nothing positive is "right" for 96 %."""
    score, positive, labelled = drawn(0, frequency=0.1)
    prior = positive[~labelled].mean()
    none, good = (count_scores(s, labelled) for s in (np.zeros(len(score)), score))
    assert proxy_accuracy(good, prior=prior) > proxy_accuracy(none, prior=prior) + 0.1
    plain = [np.mean((s >= 0.5) == labelled) for s in (np.zeros(len(score)), score)]
    assert plain[0] > plain[1]


def test_corners():
    none = count_scores(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(proxy_auc(none))
    assert np.isnan(proxy_accuracy(none, prior=0.5))
    tied = count_scores(np.full(6, 0.3), np.arange(6) < 2)
    assert proxy_auc(tied) == 0.5
    assert proxy_accuracy(tied, prior=0.2) == 0.8
    ends = count_scores(np.array([1.0, 1.0, 0.0]), np.array([True, False, False]))
    assert (proxy_auc(ends), proxy_accuracy(ends, prior=0.5)) == (0.75, 1.0)
    assert shares_above(ends, threshold=0.0) == (1.0, 1.0)


def test_counts__of_more_pairs_than_64_bits_hold():
    many = np.zeros(4096, np.int64)
    many[2000] = 10**11
    assert proxy_auc(ScoreCounts(many, many)) == 0.5
