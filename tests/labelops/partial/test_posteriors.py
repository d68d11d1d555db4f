"""Posteriors: pool adjacent violators written out, the prior as their mean, normal densities."""

import numpy as np
import pytest
from scipy.stats import norm

from labelops.partial.posteriors import posteriors
from labelops.partial.scores import BINS, ScoreCounts, count_scores, score_bins


def slow(counts: ScoreCounts, share: float) -> np.ndarray:
    """Return what the docstring says, block by block, with the factor found by bisection."""
    blocks = [[p, p + u, 1] for p, u in zip(*(c.tolist() for c in counts), strict=True) if p + u]
    pooled: list[list[int]] = []
    for block in blocks:
        pooled.append(block)
        while len(pooled) > 1 and pooled[-2][0] * pooled[-1][1] > pooled[-1][0] * pooled[-2][1]:
            last = pooled.pop()
            pooled[-1] = [a + b for a, b in zip(pooled[-1], last, strict=True)]
    labelled = np.repeat([p / n for p, n, _ in pooled], [size for *_, size in pooled])
    ratio = np.minimum(labelled, 1 - 1e-9) / (1 - np.minimum(labelled, 1 - 1e-9))
    used = np.flatnonzero(counts.labelled + counts.unlabelled)
    weight = counts.unlabelled[used] / counts.n_unlabelled
    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        mean = float(weight @ np.minimum(1, middle * ratio))
        low, high = (middle, high) if mean < share else (low, middle)
    return np.minimum(1, high * ratio)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_posteriors__are_those_of_the_loop(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.beta(2, 3, 300), 2)
    is_labelled = rng.random(300) < scores
    counts = count_scores(scores, is_labelled)
    found = posteriors(counts, share=share)
    used = np.flatnonzero(counts.labelled + counts.unlabelled)
    np.testing.assert_allclose(found[used], slow(counts, share), atol=1e-9)
    assert (np.diff(found) >= 0).all()
    mean = counts.unlabelled @ found / counts.n_unlabelled
    assert mean == pytest.approx(share, abs=1e-12)


def test_posteriors__of_two_normal_densities_are_bayes_rule() -> None:
    rng, share = np.random.default_rng(0), 0.3
    is_positive = rng.random(200_000) < share
    x = np.concatenate([rng.normal(1, 1, 100_000), rng.normal(np.where(is_positive, 1, -1), 1)])
    scores, is_labelled = 1 / (1 + np.exp(-x)), np.arange(300_000) < 100_000
    found = posteriors(count_scores(scores, is_labelled), share=share)
    for at in (-1.0, 0.0, 1.0, 2.0):
        p = share * norm.pdf(at, 1) / (share * norm.pdf(at, 1) + (1 - share) * norm.pdf(at, -1))
        assert found[score_bins(np.array([1 / (1 + np.exp(-at))]))[0]] == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything__are_positive_where_the_prior_says_so(share: float) -> None:
    counts = count_scores(np.array([0.2, 0.8, 0.9, 0.9]), np.array([False, False, True, False]))
    unlabelled = np.flatnonzero(counts.unlabelled)
    assert posteriors(counts, share=share)[unlabelled].tolist() == [0.0, 0.0, share]


def test_one_kind_alone__says_nothing() -> None:
    none = np.zeros(BINS, np.int64)
    some = np.bincount([3, 9], minlength=BINS)
    assert np.isnan(posteriors(ScoreCounts(some, none), share=0.5)).all()
    assert np.isnan(posteriors(ScoreCounts(none, some), share=0.5)).all()


def test_share_outside__is_refused() -> None:
    counts = count_scores(np.array([0.2, 0.8]), np.array([False, True]))
    with pytest.raises(ValueError, match=r"a share in \[0, 1\] was expected, got 1.5"):
        posteriors(counts, share=1.5)
