"""Candidate sets: listed posteriors, finite differences, grids, and planted wrong sets."""

import numpy as np
import pytest
from scipy.special import softmax

from labelops.opinions.pool import pool
from labelops.partial.candidates import (
    balance,
    candidate_beliefs,
    candidate_loss,
    candidate_weights,
    count_candidate_votes,
    fit_candidate_pool,
    fit_power,
    is_unbelieved,
    limit_power,
    p_none,
    reweighted_loss,
)
from tests.oracles.candidates import listed_posterior


def some_sets(n: int, n_classes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    is_candidate = rng.random((n, n_classes)) < 0.4
    is_candidate[np.arange(n), rng.integers(0, n_classes, n)] = True
    return is_candidate


def planted(
    n: int, n_classes: int, *, wrong: float, sharpness: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true probabilities, the class drawn from each, and sets of which a share lacks it."""
    rng = np.random.default_rng(seed)
    probs = softmax(sharpness * rng.normal(size=(n, n_classes)), axis=1)
    true = (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    size = rng.integers(1, n_classes - 1, n)
    is_wrong = rng.random(n) < wrong
    rank = rng.random((n, n_classes))
    rank[np.arange(n), true] = np.where(is_wrong, 2.0, -1.0)
    is_candidate = rank.argsort(axis=1).argsort(axis=1) < size[:, None]
    return probs, true, is_candidate


@pytest.mark.parametrize("wrong", [0.0, 0.07, 0.5, 1.0])
def test_beliefs__are_those_of_listing_all_sets(wrong: float) -> None:
    rng = np.random.default_rng(0)
    for n_classes in (2, 3, 5):
        is_candidate = some_sets(6, n_classes, n_classes)
        probs = softmax(2 * rng.normal(size=(6, n_classes)), axis=1)
        belief, none = candidate_beliefs(probs, is_candidate, wrong=wrong)
        for i in range(6):
            listed = listed_posterior(probs[i], set(np.flatnonzero(is_candidate[i])), wrong)
            np.testing.assert_allclose([*belief[i], none[i]], listed, atol=1e-12)


def test_weights_and_losses__at_exact_zeros_and_ones() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 5e-324, 1.0]])
    is_candidate = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]], bool)
    weights = candidate_weights(probs, is_candidate)
    assert weights.tolist() == [[1, 0, 0], [0, 0.5, 0.5], [0, 1, 0]]
    losses = candidate_loss(probs, is_candidate)
    assert losses[0] == 0
    assert np.isfinite(losses).all()
    assert np.isfinite(reweighted_loss(probs, weights)).all()
    belief, none = candidate_beliefs(probs, is_candidate, wrong=0.0)
    assert none.tolist() == [0, 0, 0]
    assert belief.tolist() == weights.tolist()


def test_cc__descends_as_rc_does_with_a_models_present_weights() -> None:
    """The gradients by differences: ∂(−log Σ_C p)/∂z = ∂(−Σ w log p)/∂z at w = w(p), held fixed."""
    rng = np.random.default_rng(1)
    logits, is_candidate = rng.normal(size=(4, 5)), some_sets(4, 5, 2)
    weights = candidate_weights(softmax(logits, axis=1), is_candidate)
    for k in range(5):
        step = np.zeros(5)
        step[k] = 1e-5
        slopes = []
        for loss in (
            lambda p: candidate_loss(p, is_candidate),
            lambda p: reweighted_loss(p, weights),
        ):
            up, down = (loss(softmax(logits + s * step, axis=1)) for s in (1, -1))
            slopes.append((up - down) / 2e-5)
        np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-8)


def test_balance__gives_classes_the_sizes_of_sets_and_keeps_odds_within_pairs_of_items() -> None:
    """At strength 1 sums over items are those of candidates alike; cross ratios never change."""
    rng = np.random.default_rng(0)
    is_candidate = some_sets(400, 5, 1)
    is_candidate[:2, :2] = True
    weights = candidate_weights(rng.dirichlet(np.ones(5), 400), is_candidate)
    whole = balance(weights, is_candidate, strength=1.0)
    alike = sum(row / row.sum() for row in is_candidate)
    np.testing.assert_allclose(whole.sum(axis=0), alike, rtol=1e-3)
    for strength in (0.0, 0.5, 1.0):
        moved = balance(weights, is_candidate, strength=strength)
        np.testing.assert_allclose(moved.sum(axis=1), 1)
        assert ((moved > 0) == is_candidate).all()
        ratio = [w[0, 0] * w[1, 1] / (w[0, 1] * w[1, 0]) for w in (weights, moved)]
        assert ratio[0] == pytest.approx(ratio[1])
    half = balance(weights, is_candidate)
    change = [np.log(w[0, 0] / w[0, 1]) for w in (weights, half, whole)]
    assert change[1] == pytest.approx((change[0] + change[2]) / 2)


def test_balance__at_exact_zeros_of_classes_in_no_set_and_of_no_item() -> None:
    is_candidate = np.array([[1, 1, 0], [1, 1, 0]], bool)
    sure = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert balance(sure, is_candidate).tolist() == sure.tolist()
    assert balance(np.empty((0, 3)), np.empty((0, 3), bool)).shape == (0, 3)


@pytest.mark.parametrize("wrong", [0.0, 0.05, 0.2])
def test_pool__finds_how_many_sets_are_wrong_and_the_temperature(wrong: float) -> None:
    probs, true, is_candidate = planted(6000, 6, wrong=wrong, sharpness=3)
    too_sure = softmax(2 * np.log(probs), axis=1)
    found = fit_candidate_pool(too_sure[None], is_candidate)
    assert found.wrong == pytest.approx(wrong, abs=0.02)
    assert found.weights[0] == pytest.approx(0.5, abs=0.06)
    said = pool(too_sure[None], found.weights)
    belief, none = candidate_beliefs(said, is_candidate, wrong=found.wrong)
    # Beliefs are kept: of what is promised to be right, so many are.
    right = is_candidate[np.arange(6000), true] & (belief.argmax(axis=1) == true)
    assert belief.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.02)
    assert none.mean() == pytest.approx(1 - is_candidate[np.arange(6000), true].mean(), abs=0.02)


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9])
def test_power__is_that_at_which_lent_sets_are_chosen_from_as_often_rightly(share: float) -> None:
    """Of labels to which {0, 1} is lent a share is 0: p^t / (p^t + q^t) is that share."""
    n = round(200 * share)
    probs = np.tile([0.94, 0.05, 0.01], (300, 1))
    is_candidate = np.zeros((300, 3), bool)
    is_candidate[:n, 0], is_candidate[n:200, 1] = True, True
    is_candidate[200:, :2] = True
    t = fit_power(probs, is_candidate)
    assert t == pytest.approx(np.log(share / (1 - share)) / np.log(0.94 / 0.05), abs=1e-3)
    belief, none = candidate_beliefs(probs, is_candidate, power=t)
    assert belief[250, 0] == pytest.approx(share, abs=1e-3)
    assert none[250] == 0


def test_power__is_1_where_nothing_is_too_sure_or_nothing_can_be_checked() -> None:
    probs, _, is_candidate = planted(3000, 6, wrong=0.0, sharpness=2)
    assert fit_power(probs, is_candidate) == pytest.approx(1, abs=0.1)
    few = is_candidate.sum(axis=1) > 1
    few[np.flatnonzero(~few)[:19]] = True
    assert fit_power(softmax(9 * probs, axis=1)[few], is_candidate[few]) == 1
    assert fit_power(np.full((30, 2), 0.5), np.eye(2, dtype=bool)[np.arange(30) % 2]) == 1
    assert fit_power(np.empty((0, 3)), np.empty((0, 3), bool)) == 1


def test_pool__is_no_worse_than_any_point_of_a_grid() -> None:
    probs, _, is_candidate = planted(400, 4, wrong=0.1, sharpness=2)
    other = softmax(np.random.default_rng(5).normal(size=(400, 4)), axis=1)
    both = np.stack([probs, other])
    found = fit_candidate_pool(both, is_candidate)
    size = is_candidate.sum(axis=1)
    for a in (0.0, 0.5, 1.0, 1.5):
        for b in (0.0, 0.3, 0.6):
            for wrong in (0.01, 0.1, 0.3):
                m = np.where(is_candidate, pool(both, np.array([a, b])), 0).sum(axis=1)
                likely = (1 - wrong) * m + wrong * (1 - m) * size / (4 - size)
                assert found.loss <= -np.log(likely).mean() + 1e-6
    assert found.weights[1] < 0.2


def test_unbelieved__is_where_sets_are_rather_wrong_than_on_average() -> None:
    rng = np.random.default_rng(2)
    mass, size = rng.random(300), rng.integers(1, 6, 300)
    by_odds = p_none(mass, size, wrong=0.07, n_classes=6) > 0.07
    assert is_unbelieved(mass, size, n_classes=6).tolist() == by_odds.tolist()
    assert not is_unbelieved(np.array([1.0]), np.array([6]), n_classes=6).any()


def test_sets_of_all_classes__say_nothing() -> None:
    probs, _, is_candidate = planted(300, 4, wrong=0.1, sharpness=2)
    more = np.concatenate([is_candidate, np.ones((50, 4), bool)])
    padded = np.concatenate([probs, np.full((50, 4), 0.25)])
    a, b = fit_candidate_pool(probs[None], is_candidate), fit_candidate_pool(padded[None], more)
    assert (a.weights.tolist(), a.wrong) == (b.weights.tolist(), b.wrong)
    none = fit_candidate_pool(np.full((2, 3, 2), 0.5), np.ones((3, 2), bool))
    assert (none.weights.tolist(), none.wrong) == ([0.5, 0.5], 0.0)
    assert fit_candidate_pool(np.empty((2, 0, 3)), np.empty((0, 3), bool)).wrong == 0
    assert p_none(np.array([0.3]), np.array([4]), wrong=0.5, n_classes=4).tolist() == [0]


def test_order_of_items_and_classes__changes_nothing() -> None:
    probs, _, is_candidate = planted(200, 5, wrong=0.1, sharpness=2)
    rng = np.random.default_rng(0)
    rows, classes = rng.permutation(200), rng.permutation(5)
    a = fit_candidate_pool(probs[None], is_candidate)
    b = fit_candidate_pool(probs[rows][:, classes][None], is_candidate[rows][:, classes])
    assert a.wrong == pytest.approx(b.wrong, abs=1e-4)
    np.testing.assert_allclose(a.weights, b.weights, atol=1e-3)
    one, _ = candidate_beliefs(probs, is_candidate, wrong=0.1)
    two, _ = candidate_beliefs(probs[rows][:, classes], is_candidate[rows][:, classes], wrong=0.1)
    np.testing.assert_allclose(one[rows][:, classes], two, atol=1e-15)


def test_votes__are_counted_one_by_one() -> None:
    rng = np.random.default_rng(3)
    is_candidate, indices = some_sets(9, 4, 4), rng.integers(-1, 9, (5, 3))
    votes = count_candidate_votes(indices, is_candidate)
    for i in range(5):
        total, n = np.full(4, 0.25), 1
        for j in indices[i]:
            if j >= 0:
                total += is_candidate[j] / is_candidate[j].sum()
                n += 1
        np.testing.assert_allclose(votes[i], total / n, rtol=1e-6)


def test_empty_sets__are_refused() -> None:
    is_candidate = np.array([[True, False], [False, False]])
    probs = np.full((2, 2), 0.5)
    for call in (
        lambda: candidate_weights(probs, is_candidate),
        lambda: candidate_loss(probs, is_candidate),
        lambda: fit_candidate_pool(probs[None], is_candidate),
    ):
        with pytest.raises(ValueError, match="at least one, 1 have none, the first is item 1"):
            call()
    assert candidate_weights(np.empty((0, 3)), np.empty((0, 3), bool)).shape == (0, 3)


def test_set_of_all_classes__is_believed_whatever_its_probabilities_are_rounded_to():
    probs = np.random.default_rng(0).dirichlet(np.ones(10), 500)
    mass, all_of_them = probs.sum(axis=1), np.full(500, 10)
    assert (mass < 1).any()
    assert not is_unbelieved(mass, all_of_them, n_classes=10).any()
    assert is_unbelieved(np.array([0.2]), np.array([3]), n_classes=10).all()


def test_limited_power__is_the_first_at_which_no_more_is_expected_than_agrees() -> None:
    probs, _, is_candidate = planted(300, 5, wrong=0.0, sharpness=3.0)
    rng = np.random.default_rng(0)
    for share in (0.6, 0.8, 0.95):
        agrees = rng.random(300) < share
        found = limit_power(probs, is_candidate, agrees, power=0.9)
        for j in range(61):
            tops, same = [], []
            for p, members, agreed in zip(probs, is_candidate, agrees, strict=True):
                if members.sum() > 1:
                    raised = np.maximum(p[members], 1e-6) ** (0.9 * 0.9**j)
                    tops.append(raised.max() / raised.sum())
                    same.append(agreed)
            sure = [(t, s) for t, s in zip(tops, same, strict=True) if t >= 0.9]
            if sum(tops) <= sum(same) and sum(t - s for t, s in sure) <= 0:
                break
        assert found == pytest.approx(0.9 * 0.9**j)
    several = is_candidate.sum(axis=1) > 1
    assert limit_power(probs, is_candidate, several, power=0.7) == 0.7
    # Even where all candidates are alike, more is expected.
    assert limit_power(probs, is_candidate, ~several, power=1.0) == 0.0
    sole, none = np.eye(5, dtype=bool)[:3], np.zeros(3, bool)
    assert limit_power(probs[:3], sole, none, power=0.4) == 0.4
    assert limit_power(probs[:0], sole[:0], none[:0], power=0.4) == 0.4
