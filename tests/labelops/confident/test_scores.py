"""Oracle: cleanlab's scores, except where the published limit is meant to differ."""

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores
from hypothesis import given as examples
from hypothesis import settings
from scipy import stats

from labelops.confident.issues import estimate_noise
from labelops.confident.scores import label_scores
from labelops.fast import confident as fast
from tests.labelops.confident.data import problems

IMPLEMENTATIONS = pytest.mark.parametrize("scores", [label_scores, fast.label_scores])
NAMES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


@IMPLEMENTATIONS
@pytest.mark.parametrize("score", NAMES)
@settings(max_examples=40)
@examples(problem=problems())
def test_score__equals_that_of_cleanlab(scores, score, problem):
    probs, given = problem
    wanted = get_label_quality_scores(given, probs, method=score)
    sound = np.ones(len(given), bool)
    if score == "confidence_weighted_entropy":
        # Its limit at s → 0 is wrong.
        share = stats.entropy(probs.astype(float), axis=1) / np.log(probs.shape[1])
        sound = share / np.maximum(probs[np.arange(len(given)), given], 1e-6) > 2e-6
    # It computes in the precision of the probabilities, and takes log(1 + s), which for small s
    # loses digits that log1p keeps.
    tolerance = 1e-9 if probs.dtype == np.float64 else 3e-4
    values = scores(probs, given, score=score)
    assert np.allclose(values[sound], wanted[sound], rtol=tolerance, atol=tolerance)


@IMPLEMENTATIONS
@pytest.mark.parametrize("score", NAMES[:2])
@settings(max_examples=40)
@examples(problem=problems())
def test_score__adjusted_equals_that_of_cleanlab(scores, score, problem):
    probs, given = problem
    thresholds, _ = estimate_noise(probs, given)
    wanted = get_label_quality_scores(given, probs, method=score, adjust_pred_probs=True)
    values = scores(probs, given, score=score, thresholds=thresholds)
    assert np.allclose(values, wanted, atol=1e-12 if probs.dtype == np.float64 else 1e-5)


@IMPLEMENTATIONS
def test_entropy_score__ranks_a_perfect_row_best(scores):
    probs = np.array([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
    values = scores(probs, np.zeros(4, int), score="confidence_weighted_entropy")
    assert values[0] == 1
    assert 1 > values[1] > values[2]
    # A sure and wrong row has no entropy either: this score cannot tell it from a right one.
    assert values[3] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_score__nears_one_where_released_cleanlab_drops_to_zero(dtype):
    tiny = np.array([1e-30, 1e-12, 1e-8], dtype)
    probs = np.stack([1 - tiny, tiny], axis=1)
    values = label_scores(probs, np.zeros(3, int), score="confidence_weighted_entropy")
    assert np.allclose(values, 1, atol=1e-6)
    wanted = get_label_quality_scores(
        np.array([0, 0, 1, 1]),
        np.concatenate([probs[:2], probs[:2, ::-1]]),
        method="confidence_weighted_entropy",
    )
    assert (wanted < 1e-3).any()


@IMPLEMENTATIONS
def test_scores__lie_in_the_unit_interval_at_exact_zero_and_one(scores):
    probs = np.eye(3, dtype=np.float32)
    for score in NAMES:
        values = scores(probs, np.array([0, 0, 2]), score=score)
        assert ((values >= 0) & (values <= 1)).all()


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "confidence_weighted_entropy", "thresholds": np.ones(2)}, "not defined"),
        ({"score": "entropy"}, "unknown score 'entropy'"),
    ],
)
def test_scores__refuse_what_they_cannot_do(scores, settings, message):
    with pytest.raises(ValueError, match=message):
        scores(np.full((1, 2), 0.5), np.zeros(1, int), **settings)
