"""Whether labels are a random draw: planted draws and selections, and the odds by counting."""

import numpy as np
import pytest

from labelops.partial.draw import check_draw


def planted(seed: int, n: int = 4000):
    """Return features, scores that separate the classes, and which items are positive."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    x = rng.normal(size=(n, 5))
    x[:, 0] += np.where(positive, 2.0, -2.0)
    return x, 1 / (1 + np.exp(-4 * x[:, 0])), positive, rng


def test_random_draws__are_plausible():
    found = []
    for seed in range(60):
        x, scores, positive, rng = planted(seed)
        found.append(check_draw(x, scores, positive & (rng.random(len(x)) < 0.3)))
    assert sum(not one.is_plausible for one in found) <= 2
    # By score alone, p-values are even but for the half.
    assert 0.3 < np.mean([one.by_score > 0 for one in found]) < 0.7


@pytest.mark.parametrize("seed", range(5))
def test_selection_by_score__is_seen(seed):
    x, scores, positive, rng = planted(seed, n=8000)
    chance = 0.05 * np.exp(1.5 * (x[:, 0] - 2))
    check = check_draw(x[:, 1:], scores, positive & (rng.random(len(x)) < chance))
    assert not check.is_plausible
    assert check.by_score > 2.5


@pytest.mark.parametrize("seed", range(5))
def test_selection_by_a_feature__is_seen_and_named(seed):
    x, scores, positive, rng = planted(seed)
    chance = 1 / (1 + np.exp(-(x[:, 3] - 1)))
    check = check_draw(x, scores, positive & (rng.random(len(x)) < chance))
    assert not check.is_plausible
    assert check.feature == 3


def test_odds__are_those_counted():
    x, scores, positive, rng = planted(3, n=600)
    labelled = positive & (rng.random(600) < 0.4)
    ranked = sorted(scores[labelled])[::-1]
    k = len(ranked)
    first, second = ranked[int(k * 0.2) - 1], ranked[int(k * 0.4) - 1]
    odds = []
    for part in (scores >= first, (scores < first) & (scores >= second)):
        p, u = (part & labelled).sum() + 0.5, (part & ~labelled).sum() + 0.5
        odds.append((np.log(p / u), 1 / p + 1 / u))
    want = (odds[0][0] - odds[1][0]) / np.sqrt(odds[0][1] + odds[1][1])
    assert check_draw(x, scores, labelled).by_score == pytest.approx(want)


def test_order_scale_and_a_copy_of_a_feature__hardly_matter():
    x, scores, positive, rng = planted(1)
    labelled = positive & (rng.random(len(x)) < 0.3)
    check, order = check_draw(x, scores, labelled), rng.permutation(len(x))
    assert check_draw(x[order], scores[order], labelled[order]) == check
    assert check_draw(np.exp(x), scores / 2, labelled) == check
    # A constant feature cannot be cut, and is none more.
    assert check_draw(np.c_[x, np.ones(len(x))], scores, labelled) == check


@pytest.mark.parametrize("n_labelled", [0, 1, 19, 100])
def test_too_little__is_no_alarm(n_labelled):
    n = 100
    x, scores = np.zeros((n, 2)), np.linspace(0, 1, n)
    check = check_draw(x, scores, np.arange(n) < n_labelled)
    assert np.isnan(check.p_value)
    assert check.is_plausible
    assert check.feature == -1


def test_ties_and_no_feature__are_legal():
    tied = check_draw(np.zeros((90, 0)), np.full(90, 0.5), np.arange(90) < 30)
    assert tied.feature == -1
    assert tied.is_plausible
