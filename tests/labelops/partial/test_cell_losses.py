"""Losses of cells: loops with exponentials and logs, fixtures of the papers, and identities."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from labelops.partial import cell_losses as of
from labelops.partial.recall import recall_mask
from tests.oracles.cell_losses import cell, multi_focal, variational

SIMPLE = {
    "an": of.assume_negative,
    "wan": of.weak_assume_negative,
    "ls": of.smoothed,
    "asl": of.asymmetric,
    "hill": of.hill,
    "splc": of.splc,
    "ll-r": of.rejected,
    "ll-ct": of.corrected,
    "em": of.entropy_maximising,
}
RECALL = {"splc", "ll-r", "ll-ct"}
COUNTS = np.array([1240, 100, 20, 6])


def drawn(n=40, k=4, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.choice([1, 0, -1], (n, k), p=[0.2, 0.2, 0.6])
    return rng.normal(0, 2.5, (n, k)), states, (states == -1) & (rng.random((n, k)) < 0.3)


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_losses__are_those_of_a_loop(name):
    z, states, recalled = drawn()
    more = {"recalled": recalled} if name in RECALL else {}
    found = SIMPLE[name](z, states, **more)
    for i, c in np.ndindex(z.shape):
        wanted = cell(name, z[i, c], states[i, c], 4, bool(more) and bool(recalled[i, c]))
        assert found[i, c] == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_losses__bear_large_logits_and_no_item(name):
    z, states = np.array([[800.0, -800.0, 800.0, -800.0]]), np.array([[1, 1, -1, 0]])
    assert np.isfinite(SIMPLE[name](z, states)).all()
    assert SIMPLE[name](np.zeros((0, 3)), np.zeros((0, 3), int)).shape == (0, 3)


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_losses__follow_a_permutation_of_items_and_classes(name):
    z, states, _ = drawn()
    rows, columns = np.random.default_rng(1).permutation(40), np.array([2, 0, 3, 1])
    a = SIMPLE[name](z, states)[rows][:, columns]
    b = SIMPLE[name](z[rows][:, columns], states[rows][:, columns])
    np.testing.assert_allclose(a, b, rtol=1e-14)


def test_asymmetric__without_focus_and_margin_is_cross_entropy():
    z, states, _ = drawn()
    found = of.asymmetric(z, states, focus_yes=0, focus_no=0, margin=0)
    assert np.array_equal(found, of.assume_negative(z, states))


def test_multi_focal__has_the_published_weights_and_costs():
    np.testing.assert_allclose(
        of.tail_weights(COUNTS), [1, 1.520849, 1.724348, 1.849950], atol=5e-7
    )
    np.testing.assert_allclose(
        of.tail_weights(COUNTS, power=1 / 6), [1, 1.233227, 1.313144, 1.360129], atol=5e-7
    )
    z, states = np.array([[2, -1, 0.5, -3.0]]), np.array([[1, -1, -1, 1]])
    found = of.multi_focal(z, states, n_yes=COUNTS)
    np.testing.assert_allclose(found[0], [0.126928, 0.000391, 0.105050, 5.639733], atol=5e-7)
    assert found.sum() == pytest.approx(5.872102, abs=1e-6)
    assert (found / of.tail_weights(COUNTS)).sum() == pytest.approx(3.236694, abs=1e-6)


def test_multi_focal__is_that_of_a_loop_and_floors_absent_classes():
    z, states, recalled = drawn()
    n = np.array([50, 7, 1, 0])
    found = of.multi_focal(z, states, n_yes=n, recalled=recalled)
    for i, c in np.ndindex(z.shape):
        state = 1 if recalled[i, c] else states[i, c]
        assert found[i, c] == pytest.approx(multi_focal(z[i, c], state, max(n[c], 1), 50))


def test_multi_focal__of_classes_alike_is_asymmetric_and_without_focus_cross_entropy():
    z, states, _ = drawn()
    alike = np.full(4, 9)
    a = of.multi_focal(z, states, n_yes=alike)
    assert np.array_equal(a, of.asymmetric(z, states, focus_yes=0, focus_no=4.0))
    b = of.multi_focal(z, states, n_yes=alike, focus_no=-1, margin=0)
    assert np.array_equal(b, of.assume_negative(z, states))


def test_reflected__has_a_margin_and_counts_given_and_recalled():
    z, states, recalled = drawn()
    found = of.reflected(z, states, n_yes=COUNTS, recalled=recalled)
    lowered = np.where(states == 1, z - 1, z)
    plain = of.multi_focal(lowered, states, n_yes=COUNTS, recalled=recalled, power=1 / 6)
    n = (states == 1).sum() + recalled.sum()
    np.testing.assert_allclose(found, plain * 40 / n)
    unknown = np.full((2, 2), -1)
    assert np.isfinite(of.reflected(np.zeros((2, 2)), unknown, n_yes=np.zeros(2))).all()


def test_comic__is_that_of_a_loop():
    z, states, recalled = drawn()
    n_given, n_recalled = np.array([50, 7, 1, 0]), np.array([0, 60, 2, 3])
    found = of.comic(z, states, n_given=n_given, n_recalled=n_recalled, recalled=recalled)
    n_yes = sum(states[at] == 1 or recalled[at] for at in np.ndindex(z.shape))
    both = n_given + n_recalled
    for i, c in np.ndindex(z.shape):
        given, state = states[i, c] == 1, 1 if recalled[i, c] else states[i, c]
        wanted = multi_focal(z[i, c], states[i, c], max(n_given[c], 1), 50)
        outer = (1 - np.log(max(both[c], 1) / 67)) ** (1 / 6)
        p = expit(z[i, c] - given)
        lowered = max(p - 0.05, 0)
        cost = -np.log(p) if state == 1 else -(lowered ** (3 + outer)) * np.log(1 - lowered)
        wanted += 0.2 * cost * outer * len(z) / n_yes
        assert found[i, c] == pytest.approx(wanted)
    alone = of.comic(z, states, n_given=n_given)
    assert np.array_equal(alone, of.multi_focal(z, states, n_yes=n_given))


def test_large_losses__once_all_that_is_unknown_is_recalled_teach_yes_or_nothing():
    z, states, _ = drawn()
    unknown = states == -1
    assert (of.rejected(z, states, recalled=unknown)[unknown] == 0).all()
    full = np.where(unknown, 1, states)
    assert np.array_equal(of.corrected(z, states, recalled=unknown), of.assume_negative(z, full))


def test_entropy__is_least_where_nothing_is_known_and_pseudo_labels_teach():
    states = np.full((1, 3), -1)
    cost = of.entropy_maximising(np.array([[-3.0, 0, 3]]), states)[0]
    assert cost[1] < cost[0] == pytest.approx(cost[2])
    pseudo = np.array([[0.2, np.nan, 0.7]])
    z = np.array([[0.4, 0.0, -1.0]])
    found = of.entropy_maximising(z, states, pseudo=pseudo)[0]
    p = expit(z[0])
    wanted = 0.2 * (-pseudo[0] * np.log(p) - (1 - pseudo[0]) * np.log(1 - p))
    np.testing.assert_allclose(found[[0, 2]], wanted[[0, 2]])
    assert found[1] == pytest.approx(-0.1 * np.log(2))


def test_least_probable__is_that_of_a_sort_of_every_class():
    rng = np.random.default_rng(3)
    p, free, n = rng.random((50, 4)).round(1), rng.random((50, 4)) < 0.6, np.array([0, 3, 20, 50])
    found = of.least_probable(p, free, n)
    for c in range(4):
        rows = sorted(np.flatnonzero(free[:, c]), key=lambda i: (p[i, c], i))[: n[c]]
        assert np.array_equal(np.flatnonzero(found[:, c]), np.sort(rows))


def test_expected_positives__is_the_loss_of_the_paper():
    z, states, _ = drawn()
    p = expit(z)
    known = states != -1
    wanted = np.where(known, -np.log(np.where(states == 1, p, 1 - p)), 0).mean()
    wanted += (p.sum(axis=1).mean() - 1.7) ** 2 / 16
    assert of.expected_positives(z, states, expected=1.7).mean() == pytest.approx(wanted)


def test_role__of_two_that_agree_is_entropy_and_expected_positives():
    z, states, _ = drawn()
    found = of.role(z, states, estimates=z, expected=1.2)
    p = expit(z)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    np.testing.assert_allclose(found, entropy + of.expected_positives(z, states, expected=1.2))


@pytest.mark.parametrize(("alpha", "wanted"), [(1.0, -0.681588), (0.5, -0.838721)])
def test_positive_unlabelled__has_the_published_sums(alpha, wanted):
    z = np.array([[2, -1], [0.5, -2], [-1, 1], [-2, -3.0]])
    states = np.array([[1, -1], [-1, -1], [-1, 1], [-1, -1]])
    found = of.positive_unlabelled(z, states, temperature=alpha).mean() * 2
    assert found == pytest.approx(wanted, abs=1e-6)


def test_positive_unlabelled__is_that_of_a_loop_and_of_vpu_at_its_limit():
    z, states, _ = drawn()
    states[:, 3] = -1  # a class of which no positive is in the batch still has its first term
    found = of.positive_unlabelled(z * 0.2, states).mean(axis=0)
    limit = of.positive_unlabelled(z, states, temperature=np.inf, balance=0).mean(axis=0)
    for c in range(4):
        yes = states[:, c] == 1
        assert found[c] == pytest.approx(variational(z[:, c] * 0.2, yes, 1.0, 0.55))
        p = expit(z[:, c])
        vpu = np.log(p.mean()) - (np.log(p[yes]).mean() if yes.any() else 0)
        assert limit[c] == pytest.approx(vpu)


def test_positive_unlabelled__knows_no_order_and_no_difference_of_the_others():
    z, states, _ = drawn()
    other = np.where(states == 0, -1, states)
    assert np.array_equal(of.positive_unlabelled(z, states), of.positive_unlabelled(z, other))
    shuffled = z.copy()
    for c in range(4):
        rest = np.flatnonzero(states[:, c] != 1)
        shuffled[rest, c] = z[np.random.default_rng(c).permutation(rest), c]
    a, b = (of.positive_unlabelled(x, states).mean() for x in (z, shuffled))
    assert a == pytest.approx(b)


def test_positive_unlabelled__bears_one_item_and_equal_logits():
    for z in (np.zeros((1, 2)), np.full((5, 2), 0.3)):
        states = np.where(np.arange(2) == 0, 1, -1) * np.ones((len(z), 1), int)
        assert np.isfinite(of.positive_unlabelled(z, states)).all()
    assert of.positive_unlabelled(np.zeros((0, 2)), np.zeros((0, 2), int)).shape == (0, 2)


@pytest.mark.parametrize(("balance", "low", "high"), [(0.0, -0.01, 0.01), (0.85, 0.01, 0.08)])
def test_positive_unlabelled__finds_a_planted_share_only_without_balance(balance, low, high):
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.3
    x = rng.normal(np.where(positive, 2, -2), 1)
    states = np.where(positive & (rng.random(20_000) < 0.5), 1, -1)[:, None]

    def loss(at):
        z = (at[0] * x + at[1])[:, None]
        # The weight has no derivative; so the minimum of the loss is not where training ends.
        m = expit(z).mean()
        unknown = np.log(m) if balance == 0 else m**balance / balance
        yes = np.logaddexp(0, -z[states == 1]).mean()
        if balance == 0:
            found = of.positive_unlabelled(z, states, temperature=np.inf, balance=0).mean()
            assert found == pytest.approx(unknown + yes)
        return unknown + yes

    slope, shift = minimize(loss, [1.0, 0.0], method="Nelder-Mead").x
    p = expit(slope * x + shift)
    error = (p / p.max()).mean() - positive.mean()
    assert low <= error <= high


def test_mixed__is_that_of_a_loop_and_nothing_of_one_opinion():
    z, states, _ = drawn(n=7)
    order, share = np.array([2, 0, 1]), 0.3
    found = of.mixed(z, states, order=order, share=share)
    target = np.where(states == 1, 1, expit(z))
    for j, (a, b) in enumerate(zip(order, (4, 5, 6), strict=True)):
        p = expit(share * z[a] + (1 - share) * z[b])
        wanted = (np.log(share * target[a] + (1 - share) * target[b]) - np.log(p)) ** 2
        np.testing.assert_allclose(found[j], wanted)
    alike = of.mixed(np.ones((6, 2)), np.full((6, 2), -1), order=order, share=share)
    np.testing.assert_allclose(alike, 0, atol=1e-30)


def test_frequency__is_the_likelihood_and_with_all_said_cross_entropy():
    z, states, _ = drawn()
    p = expit(z)
    found = of.frequency(z, states, share=0.3)
    wanted = np.where(states == 1, 0.3 * p, np.where(states == 0, 1 - p, 1 - 0.3 * p))
    np.testing.assert_allclose(found, -np.log(wanted))
    assert np.array_equal(of.frequency(z, states, share=1.0), of.assume_negative(z, states))
    far = of.frequency(np.array([[900.0]]), np.array([[-1]]), share=0.3)
    assert far[0, 0] == pytest.approx(-np.log(0.7))


def test_frequency__is_least_at_planted_share_and_line():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 3, 40_000)
    said = rng.random(40_000) < 0.4 * expit(1.5 * x - 1)
    states = np.where(said, 1, -1)[:, None]

    def loss(at):
        return of.frequency((at[0] * x + at[1])[:, None], states, share=expit(at[2])).mean()

    slope, shift, share = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead").x
    assert (slope, shift, expit(share)) == pytest.approx((1.5, -1, 0.4), abs=0.12)


def test_present__is_bayes_rule_counted_and_no_step_from_the_planted_share():
    rng = np.random.default_rng(2)
    z = np.full((200_000, 1), 0.4)
    truth = rng.random(z.shape) < expit(0.4)
    states = np.where(truth & (rng.random(z.shape) < 0.25), 1, -1)
    found = of.present(z, states, share=0.25)
    assert found[states == -1][0] == pytest.approx(truth[states == -1].mean(), abs=0.005)
    assert (states == 1).sum() / found.sum() == pytest.approx(0.25, abs=0.005)


def test_losses__refuse_what_they_cannot_read():
    z = np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"one shape \(n, K\) were expected, got \(2, 2\)"):
        of.hill(z, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"states 1 \(yes\).*got \[2\]"):
        of.splc(z, np.full((2, 2), 2))
    z[1, 0] = np.nan
    with pytest.raises(ValueError, match="item 1, class 0 has nan"):
        of.role(z, np.ones((2, 2), int), estimates=z, expected=1)


def test_recalled_by_comic__are_those_of_the_published_batch():
    z, states = np.array([[2, -1], [0.9, -2], [3, -0.5]]), np.array([[1, -1], [-1, -1], [-1, -1]])
    p = expit(np.where(states == 1, z - 1, z))
    np.testing.assert_allclose(p.mean(axis=0), [0.7982, 0.2552], atol=5e-5)
    found = recall_mask(p, states, strategy="class", threshold=0.7)
    assert np.argwhere(found).tolist() == [[2, 0]]
