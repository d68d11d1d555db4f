"""Oracles: the game as a linear program over every choice of the adversary, and exact draws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from labelops.distill.query import ask_about, draw_items, margin_gain, solve_game
from labelops.hashing import hash_integers

GAINS = np.array([1.0, 0.9, 0.8, 0.5, 0.3, 0.1])


def worst(p, gain, m, penalty):
    """Return the gain of a draw when the adversary tries all choices of m items."""
    worth = p * gain
    return min(
        worth.sum() - (1 + penalty) * worth[list(wrong)].sum()
        for wrong in itertools.combinations(range(len(gain)), m)
    )


def played(gain, m, penalty):
    """Return the value of the game: a linear program with a row for every choice of m items."""
    n = len(gain)
    rows = []
    for wrong in itertools.combinations(range(n), m):
        payoff = gain.copy()
        payoff[list(wrong)] *= -penalty
        rows.append([*-payoff, 1.0])
    done = linprog(
        [*np.zeros(n), -1.0], A_ub=rows, b_ub=np.zeros(len(rows)), A_eq=[[*np.ones(n), 0.0]],
        b_eq=[1.0], bounds=[(0, 1)] * n + [(None, None)],
    )  # fmt: skip
    return -done.fun


def hashes(n, seed=0):
    return hash_integers(np.arange(n) + 1000 * seed)


@pytest.mark.parametrize(
    ("penalty", "value", "p"),
    [
        (0, 0.595041, (0.297521, 0.330579, 0.371901, 0, 0, 0)),
        (1, 0.373057, (0.186528, 0.207254, 0.233161, 0.373057, 0, 0)),
    ],
)
def test_game__known_cases(penalty, value, p):
    game = solve_game(GAINS, penalty=penalty)
    assert game.value == pytest.approx(value, abs=5e-7)
    np.testing.assert_allclose(game.probs, p, atol=5e-7)
    assert game.n_support == np.count_nonzero(p)


@settings(max_examples=120, deadline=None)
@given(
    gain=st.lists(st.sampled_from([0.01, 0.2, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=7),
    m=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_game__nobody_plays_better(gain, m, penalty):
    g = np.array(gain)
    game = solve_game(g, n_wrong=m, penalty=penalty)
    assert game.probs.sum() == pytest.approx(1)
    m = min(m, len(g))
    assert worst(game.probs, g, m, penalty) == pytest.approx(game.value, abs=1e-12)
    best = played(g, m, penalty)
    if len(g) >= (1 + penalty) * m:
        assert game.value == pytest.approx(best, abs=1e-9)
    else:
        assert game.value <= best + 1e-9
        assert best <= 1e-9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_game__support_is_worth_the_same_and_the_value_cuts_it_off(seed, penalty):
    g = np.random.default_rng(seed).random(200) ** 3 + 1e-6
    game = solve_game(g, penalty=penalty, n_wrong=2.5)
    drawn = game.probs > 0
    worth = (game.probs * g)[drawn]
    np.testing.assert_allclose(worth, worth[0], rtol=1e-12)
    assert g[drawn].min() >= game.value - 1e-12
    assert g[~drawn].max(initial=0) <= game.value + 1e-12
    assert drawn.sum() == game.n_support


def test_game__gains_that_are_alike_are_drawn_alike():
    for n, penalty in itertools.product((2, 7, 100), (0.0, 1.0)):
        game = solve_game(np.full(n, 0.4), penalty=penalty)
        if n > 1 + penalty:
            np.testing.assert_allclose(game.probs, 1 / n, rtol=1e-12)
        assert game.value == pytest.approx(0.4 * (n - 1 - penalty) / n)
    one = solve_game(np.array([0.4]))
    assert one.probs.tolist() == [1]
    assert one.value == pytest.approx(-0.4)


def test_game__does_not_see_order_or_units():
    g = np.random.default_rng(1).random(50) + 0.01
    order = np.random.default_rng(2).permutation(50)
    there, back = solve_game(g), solve_game(g[order])
    np.testing.assert_array_equal(there.probs[order], back.probs)
    doubled = solve_game(2 * g)
    np.testing.assert_allclose(doubled.probs, there.probs, rtol=1e-12)
    assert doubled.value == pytest.approx(2 * there.value)


def test_game__more_that_may_be_wrong_spreads_further_and_promises_less():
    g = np.sort(np.random.default_rng(3).random(300))
    games = [solve_game(g, n_wrong=m) for m in (0.5, 1, 5, 20, 80)]
    assert (np.diff([game.n_support for game in games]) > 0).all()
    assert (np.diff([game.value for game in games]) < 0).all()
    # What teaches nothing is never drawn, however its inverse explodes.
    tiny = solve_game(np.concatenate([g, np.full(50, 1e-6)]))
    assert not tiny.probs[300:].any()
    np.testing.assert_allclose(tiny.probs[:300], games[1].probs, rtol=1e-12)


@pytest.mark.parametrize(
    ("gain", "settings", "words"),
    [
        ([], {}, "at least one item"),
        ([0.5, 0.0], {}, "row 1 has 0"),
        ([0.0, 0.0], {}, "row 0 has 0"),
        ([0.5, np.nan], {}, "row 1 has nan"),
        ([0.5, np.inf], {}, "row 1 has inf"),
        ([0.5], {"n_wrong": 0}, "n_wrong above 0"),
        ([0.5], {"penalty": -1}, "penalty of at least 0"),
    ],
)
def test_game__that_cannot_be_is_refused(gain, settings, words):
    with pytest.raises(ValueError, match=words):
        solve_game(np.array(gain), **settings)


def test_margin_gain__is_the_gap_of_the_two_first():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 40)
    want = [1 - (sorted(row)[-1] - sorted(row)[-2]) for row in p.tolist()]
    np.testing.assert_allclose(margin_gain(p), want, rtol=1e-12)
    assert margin_gain(np.array([[0.0, 1.0], [0.5, 0.5]])).tolist() == [1e-6, 1.0]
    assert margin_gain(np.ones((2, 1))).tolist() == [1e-6, 1e-6]
    assert margin_gain(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(ValueError, match=r"row 1 has -2 … 3. Were logits passed"):
        margin_gain(np.array([[0.5, 0.5], [-2.0, 3.0]]))
    with pytest.raises(ValueError, match="row 0 has nan"):
        margin_gain(np.array([[np.nan, 0.5]]))
    with pytest.raises(ValueError, match="shape"):
        margin_gain(np.ones(3))


def test_draw__two_of_four_as_probable_as_they_should_be():
    w = np.array([0.0, 1.0, 2.0, 5.0])
    turns = 6000
    counts = np.zeros((4, 4))
    for turn in range(turns):
        counts[tuple(draw_items(w, hashes(4), n=2, turn=turn))] += 1
    p = w / w.sum()
    want = p[:, None] * p[None, :] / (1 - p[:, None])
    np.fill_diagonal(want, 0)
    assert want.sum() == pytest.approx(1)
    error = np.sqrt(want * (1 - want) / turns)
    assert (np.abs(counts / turns - want) <= 4 * error).all()


def test_draw__is_of_the_item_and_not_of_its_place():
    w, h = np.random.default_rng(0).random(300), hashes(300)
    order = np.random.default_rng(1).permutation(300)
    there, back = draw_items(w, h, n=40), draw_items(w[order], h[order], n=40)
    np.testing.assert_array_equal(there, order[back])
    np.testing.assert_array_equal(draw_items(7 * w, h, n=40), there)
    np.testing.assert_array_equal(draw_items(w, h, n=10), there[:10])
    assert len(set(draw_items(w, h, n=40, turn=1)) & set(there)) < 20
    assert len(set(there)) == 40


def test_draw__nothing_and_everything():
    w, h = np.array([0.0, 1e-300, 1e300]), hashes(3)
    assert draw_items(w, h, n=0).tolist() == []
    assert draw_items(w, h, n=9).tolist() == [2, 1]
    assert draw_items(np.zeros(0), hashes(0), n=3).tolist() == []
    assert draw_items(np.zeros(3), h, n=0).tolist() == []
    with pytest.raises(ValueError, match="got 3 weights of 0"):
        draw_items(np.zeros(3), h, n=1)
    with pytest.raises(ValueError, match="row 1 has -1"):
        draw_items(np.array([1.0, -1.0, 0.0]), h, n=1)
    with pytest.raises(ValueError, match="as many weights as hashes"):
        draw_items(np.ones(2), h, n=1)


def test_ask__fills_up_by_gain_and_asks_nobody_twice():
    g = np.concatenate([np.ones(5), np.full(5, 0.1), np.full(5, 0.05)])
    asked = ask_about(g, hashes(15), n=12, n_wrong=1)
    assert asked.game.n_support == 5
    assert set(asked.rows[:5]) == set(range(5))
    assert set(asked.rows[5:10]) == set(range(5, 10))
    assert len(set(asked.rows)) == 12
    order = np.random.default_rng(0).permutation(15)
    again = ask_about(g[order], hashes(15)[order], n=12, n_wrong=1)
    np.testing.assert_array_equal(order[again.rows], asked.rows)
    assert sorted(ask_about(g, hashes(15), n=99, n_wrong=1).rows) == list(range(15))
    assert ask_about(np.zeros(0), hashes(0), n=0, n_wrong=1).rows.tolist() == []
    with pytest.raises(ValueError, match="at least one item"):
        ask_about(np.zeros(0), hashes(0), n=1, n_wrong=1)


def test_ask__a_teacher_wrong_on_the_least_sure_items_is_believed_less_often_than_by_margin():
    wrong, gained = {}, {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        g = margin_gain(rng.dirichlet(np.ones(4), 400))
        is_wrong = g >= np.quantile(g, 0.9)
        drawn = {
            "one wrong": ask_about(g, hashes(400, seed), n=20, n_wrong=1).rows,
            "forty wrong": ask_about(g, hashes(400, seed), n=20, n_wrong=40).rows,
            "margin": np.argsort(-g)[:20],
            "uniform": rng.choice(400, 20, replace=False),
        }
        for name, rows in drawn.items():
            wrong.setdefault(name, []).append(is_wrong[rows].mean())
            gained.setdefault(name, []).append((g * ~is_wrong)[rows].mean())
    wrong, gained = ({name: np.mean(x) for name, x in of.items()} for of in (wrong, gained))
    assert wrong["forty wrong"] + 0.2 < wrong["one wrong"] < wrong["margin"] - 0.2
    assert gained["forty wrong"] > gained["uniform"] + 0.05
    assert gained["margin"] == 0
