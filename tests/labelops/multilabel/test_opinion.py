"""Oracles: Bayes' rule by enumeration, planted noise found again."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score

from labelops.multilabel.cooccurrence import evidence, summarize
from labelops.multilabel.labels import from_states, label_sets
from labelops.multilabel.opinion import (
    Opinion,
    believe,
    fit_opinion,
    model_log_odds,
    presence,
)
from tests.labelops.multilabel.data import all_cells


def features(cells, labels, pairs):
    return np.stack([model_log_odds(cells.p), evidence(cells, labels, pairs)[1]], axis=1)


def class_odds(cells, pairs):
    return (pairs.n_yes / np.maximum(pairs.n_no, 1))[cells.class_id]


def spoil(truth: np.ndarray, alpha: float, omega: float, rng: np.random.Generator) -> np.ndarray:
    """Take the share α away, and give so much that the share ω of what is given is wrong."""
    given = truth & (rng.random(truth.shape) >= alpha)
    n_wrong = given.sum(axis=0) * omega / (1 - omega)
    chance = n_wrong / np.maximum((~truth).sum(axis=0), 1)
    return given | (~truth & (rng.random(truth.shape) < chance))


@pytest.mark.parametrize(("alpha", "omega"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.4, 0.1)])
def test_opinion__finds_planted_noise_and_weights_again(alpha, omega):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100_000, 2)) * 3
    truth = rng.random(len(values)) < expit(-1.0 + values @ [1.0, 0.4])
    given = spoil(truth, alpha, omega, rng)
    odds = np.full(len(values), given.sum() / (~given).sum())
    opinion = fit_opinion(values, given, odds, np.ones(len(values)))
    # Some four standard errors.
    assert opinion.missing == pytest.approx(alpha, abs=0.02)
    assert opinion.wrong == pytest.approx(omega, abs=0.02)
    assert opinion.bias == pytest.approx(-1.0, abs=0.15)
    np.testing.assert_allclose(opinion.weight, [1.0, 0.4], atol=0.1)


def test_opinion__does_not_need_noise_where_there_is_only_doubt():
    """A weak feature leaves many cells undecided; none of that is noise."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(50_000, 1))
    given = rng.random(len(values)) < expit(-1.0 + values[:, 0])
    opinion = fit_opinion(values, given, np.ones(len(values)), np.ones(len(values)))
    assert opinion.missing < 0.1
    assert opinion.wrong < 0.1
    assert presence(values, opinion).mean() == pytest.approx(given.mean(), abs=0.03)


def test_opinion__weights_are_as_good_as_repeating():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(500, 2)) * 2
    given = rng.random(500) < expit(values[:, 0])
    times = rng.integers(1, 4, 500)
    odds = np.ones(500)
    weighted = fit_opinion(values, given, odds, times.astype(float))
    many = (np.repeat(x, times, axis=0) for x in (values, given, odds))
    repeated = fit_opinion(*many, np.ones(times.sum()))
    # The weight of the prior differs, as weights are those of the cells that were drawn.
    np.testing.assert_allclose(weighted.weight, repeated.weight, rtol=0.05)


def test_opinion__of_one_state_only_is_that_of_the_model():
    opinion = fit_opinion(np.ones((3, 2)), np.zeros(3, bool), np.ones(3), np.ones(3))
    assert (opinion.bias, opinion.weight.tolist(), *opinion[2:]) == (0.0, [1.0, 0.0], 0.0, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("omega", [0.0, 0.2])
def test_believe__is_bayes_rule(alpha, omega):
    opinion = Opinion(-0.5, np.array([1.0]), alpha, omega)
    for value in (-3.0, 0.0, 4.0):
        # Seven items given, ten not.
        n_absent = 17 - 7 * (1 - omega) / (1 - alpha)
        q, beta = expit(value - 0.5), 7 * omega / n_absent
        joint = {
            (True, True): q * (1 - alpha),
            (True, False): q * alpha,
            (False, True): (1 - q) * beta,
            (False, False): (1 - q) * (1 - beta),
        }
        for given in (True, False):
            got = believe(np.array([[value]]), np.array([given]), np.array([0.7]), opinion)
            want = joint[True, given] / (joint[True, given] + joint[False, given])
            assert got[0] == pytest.approx(want)


def test_believe__certain_and_impossible_states_stay_numbers():
    opinion = Opinion(0.0, np.array([100.0]), 0.0, 0.0)
    values, given = np.array([[16.0], [-16.0]]), np.array([False, True])
    assert np.isfinite(believe(values, given, np.ones(2), opinion)).all()


def test_believe__keeps_its_promise_on_planted_noise():
    """Of cells believed with b to b + 0.1 such a share is present."""
    rng = np.random.default_rng(3)
    score = rng.normal(size=(20_000, 6)) * 3
    truth = rng.random(score.shape) < expit(score - 1)
    table = spoil(truth, 0.3, 0.15, rng).astype(np.int8)
    labels = from_states(table)
    pairs, cells = summarize(labels), all_cells(table, expit(score))
    values = model_log_odds(cells.p)[:, None]
    odds = class_odds(cells, pairs)
    opinion = fit_opinion(values, cells.is_given, odds, np.ones(len(values)))
    belief = believe(values, cells.is_given, odds, opinion)
    is_present = truth[cells.row, cells.class_id]
    for low in np.arange(0, 1, 0.1):
        inside = (belief >= low) & (belief < low + 0.1)
        assert inside.sum() > 300
        # Three standard errors of the smallest group.
        assert is_present[inside].mean() == pytest.approx(belief[inside].mean(), abs=0.06)


@pytest.mark.parametrize("kind", ["missing", "wrong"])
def test_opinion__with_the_other_classes_finds_more_than_the_model_alone(kind):
    """Classes come in two groups that do not mix; the model sees little."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 2000)
    member = (np.arange(8) < 4)[None, :] == (group == 0)[:, None]
    truth = member & (rng.random((2000, 8)) < 0.7)
    probs = expit(np.where(truth, 0.7, -0.7) + rng.normal(size=truth.shape))
    table = spoil(truth, 0.1, 0.1, rng).astype(np.int8)
    labels = from_states(table)
    pairs = summarize(labels)
    cells = all_cells(table, probs)
    values, weight = features(cells, labels, pairs), np.ones(len(cells.row))
    opinion = fit_opinion(values, cells.is_given, class_odds(cells, pairs), weight)
    assert opinion.weight[1] > 0
    asked = cells.choose(cells.is_given == (kind == "wrong"))
    is_present = truth[asked.row, asked.class_id]
    belief = believe(
        features(asked, labels, pairs), asked.is_given, class_odds(asked, pairs), opinion
    )
    if kind == "wrong":
        is_present, belief, alone = ~is_present, 1 - belief, 1 - asked.p
    else:
        alone = asked.p
    after, before = (average_precision_score(is_present, s) for s in (belief, alone))
    assert after > before + 0.1


def test_opinion__of_no_items():
    labels = label_sets([], n_classes=2)
    cells = all_cells(np.zeros((0, 2), np.int8), np.zeros((0, 2)))
    assert features(cells, labels, summarize(labels)).shape == (0, 2)
    assert class_odds(cells, summarize(labels)).shape == (0,)
