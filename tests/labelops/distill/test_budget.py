"""Oracles: all purchases tried, a toy whose students' accuracies are known, and identities."""

import numpy as np
import pytest
from scipy.optimize import brentq

from labelops.distill.budget import (
    Buy,
    _best,
    choose_items,
    label_worth,
    plan_budget,
    weak_accuracy,
)
from labelops.distill.learning_curves import Curve, Pilot, Runs, pilot_error
from labelops.hashing import hash_integers
from tests.oracles import toy_labels

SIZES = np.array([16, 32, 64, 128, 256])
NONE = np.zeros(5, int)
Z = 1.959963984540054


def curve(floor, rise, power):
    return Curve(*(np.array([x]) for x in (floor, rise, power)), 16.0)


def runs_of(pilot, factor=4):
    """Return runs that lie on the curves."""
    n_weak = np.concatenate([factor * SIZES, NONE, factor * SIZES])
    n_expert = np.concatenate([NONE, SIZES, SIZES])
    return Runs(n_weak, n_expert, pilot_error(pilot, n_weak[None], n_expert[None])[0])


def plan(runs, budget, price_weak=0.1, price_expert=1.0, n_items=10**6, n_test=1000):
    return plan_budget(
        runs, n_test=n_test, budget=budget, price_weak=price_weak, price_expert=price_expert,
        n_items=n_items, rng=np.random.default_rng(0),
    )  # fmt: skip


USUAL = Pilot(curve(0.15, 0.25, 1.0), curve(0.0, 0.35, 0.45), np.array([0.4]))


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (84, 100), (3, 40), (500, 500)])
def test_weak_accuracy__ends_are_where_the_score_test_changes_its_mind(hits, n):
    found = weak_accuracy(np.arange(n) < hits, np.zeros(n, int), n_groups=1)

    def score(p):
        return (hits / n - p) - sign * Z * np.sqrt(p * (1 - p) / n)

    for sign, end, other in ((1, found.low[0], 1e-12), (-1, found.high[0], 1 - 1e-12)):
        if end not in (0, 1):
            share = np.clip(hits / n, 1e-9, 1 - 1e-9)
            assert end == pytest.approx(brentq(score, *sorted((other, share))), abs=1e-6)
        else:
            assert hits == (0 if sign == 1 else n)


def test_weak_accuracy__of_groups_is_that_of_each():
    rng = np.random.default_rng(0)
    right, group = rng.random(200) < 0.8, rng.integers(0, 3, 200)
    found = weak_accuracy(right, group, n_groups=4)
    for g in range(3):
        part = right[group == g]
        one = weak_accuracy(part, np.zeros(len(part), int), n_groups=1)
        assert [x[g] for x in found] == [x[0] for x in one]
        assert found.low[g] < part.mean() < found.high[g]
    assert [x[3] for x in found] == [0, 0.5, 0, 1]
    assert weak_accuracy(np.zeros(0, bool), np.zeros(0, int), n_groups=1).high.tolist() == [1]
    with pytest.raises(ValueError, match="groups in 0 … 1 were expected, got 0 … 2"):
        weak_accuracy(right, group, n_groups=2)
    with pytest.raises(ValueError, match="as many answers as groups"):
        weak_accuracy(right, group[1:], n_groups=3)


@pytest.mark.parametrize("error", [0.0, 0.1, 0.37, 0.5])
def test_label_worth__is_a_ratio_of_fisher_informations(error):
    def information(flipped):
        def p(z):
            s = 1 / (1 + np.exp(-z))
            return (1 - flipped) * s + flipped * (1 - s)

        slope = (p(1e-4) - p(-1e-4)) / 2e-4
        return slope**2 / (p(0) * (1 - p(0)))

    assert label_worth(np.array([error]))[0] == pytest.approx(
        information(error) / information(0.0), abs=1e-7
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_items", [60, 10_000])
def test_best__of_all_purchases(seed, n_items):
    rng = np.random.default_rng(seed)
    pilot = Pilot(
        curve(rng.uniform(0, 0.2), rng.uniform(0, 0.3), rng.uniform(0.2, 1.5)),
        curve(rng.uniform(0, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.2, 1.0)),
        rng.uniform(0, 1, 1),
    )
    price, money = rng.uniform(0.02, 0.9), rng.uniform(1, 150)
    w, o = np.meshgrid(np.arange(money / price + 1), np.arange(money + 1), indexing="ij")
    can = (price * w + o <= money) & (w + o <= n_items)
    accuracy = 1 - pilot_error(pilot, w[can][None], o[can][None])[0]
    of_one = accuracy[(w[can] == 0) | (o[can] == 0)].max()
    best, regime = _best(pilot, money, price, n_items)
    assert price * best.n_weak + best.n_expert <= money * (1 + 1e-9)
    assert best.n_weak + best.n_expert <= n_items
    if regime == "mixed":
        assert best.accuracy == pytest.approx(accuracy.max(), abs=1e-5)
        assert best.accuracy > of_one + 0.002
        assert min(best.n_weak, best.n_expert) > 0
    else:
        assert best.accuracy == pytest.approx(of_one, abs=1e-12)
        assert accuracy.max() <= of_one + 0.002 + 1e-5
        assert (best.n_expert if regime == "quantity" else best.n_weak) == 0


@pytest.mark.parametrize("budget", [1, 5, 64, 1000])
def test_plan__at_one_price_only_an_expert_is_asked(budget):
    found = plan(runs_of(USUAL), budget, price_weak=1.0)
    assert found.regime == "quality"
    assert (found.best.n_weak, found.best.n_expert) == (0, budget)


@pytest.mark.parametrize(("price", "budget"), [(0.1, 1), (0.5, 5), (0.1, 64), (0.99, 1000)])
def test_plan__cheap_labels_that_are_never_wrong_are_all_that_is_bought(budget, price):
    same = USUAL._replace(weak=USUAL.expert)
    found = plan(runs_of(same, factor=1), budget, price_weak=price)
    assert found.regime == "quantity"
    assert found.best.n_weak == int(budget / price)
    # The highest price at which there is one more of them.
    assert found.break_even == pytest.approx(budget / (budget + 1), rel=1e-3)


def test_plan__frontier_does_not_fall_and_ends_at_the_plan():
    for budget in (0.1, 3, 50, 700):
        found = plan(runs_of(USUAL), budget)
        accuracies = [p.accuracy for p in found.frontier]
        assert (np.diff(accuracies) >= 0).all()
        assert found.frontier[-1].budget == pytest.approx(budget)
        assert accuracies[-1] == pytest.approx(found.best.accuracy, abs=0.002)
        for p in found.frontier:
            assert 0.1 * p.n_weak + p.n_expert <= p.budget * (1 + 1e-9)
        assert found.low <= found.best.accuracy <= found.high


@pytest.mark.parametrize("unit", [100.0, 0.37, 1 / 3])
def test_plan__does_not_see_the_currency(unit):
    here = plan(runs_of(USUAL), 90.0, price_weak=0.07)
    there = plan(runs_of(USUAL), 90.0 * unit, price_weak=0.07 * unit, price_expert=unit)
    assert there.best[1:] == pytest.approx(here.best[1:])
    assert there.regime == here.regime
    assert (there.low, there.high, there.support) == pytest.approx(
        (here.low, here.high, here.support)
    )
    assert there.break_even == pytest.approx(here.break_even * unit)
    assert there.more_expert == pytest.approx(here.more_expert / unit)
    assert there.more_weak == pytest.approx(here.more_weak / unit)


def test_plan__more_money_brings_what_was_said():
    for budget, kind in ((16, "more_weak"), (2000, "more_expert")):
        here, there = (plan(runs_of(USUAL), b) for b in (budget, 17 / 16 * budget))
        assert here.regime == there.regime == ("quantity" if kind == "more_weak" else "quality")
        gained = (there.best.accuracy - here.best.accuracy) / (budget / 16)
        assert getattr(here, kind) == pytest.approx(gained, rel=0.15)
    everything = plan(runs_of(USUAL), 10**6, n_items=50)
    assert (everything.more_weak, everything.more_expert) == (0, 0)
    assert everything.best.n_weak + everything.best.n_expert == 50


@pytest.mark.parametrize("budget", [16, 100, 400])
def test_plan__break_even_is_where_cheap_labels_stop_being_bought(budget):
    price = plan(runs_of(USUAL), budget).break_even
    assert 0 < price < 1
    assert plan(runs_of(USUAL), budget, price_weak=0.98 * price).regime != "quality"
    assert plan(runs_of(USUAL), budget, price_weak=1.02 * price).regime == "quality"


def test_plan__without_mixed_runs_promises_nothing_of_mixing():
    runs = runs_of(USUAL)
    pure = Runs(*(x[:10] for x in runs))
    for budget in (16, 90, 130, 400):
        assert plan(pure, budget).regime != "mixed"
    assert plan(runs, 130, price_weak=0.02).regime == "mixed"


def test_plan__is_less_sure_with_fewer_held_out_items():
    few, many = (plan(runs_of(USUAL), 100, n_test=n) for n in (100, 10_000))
    assert few.high - few.low > 2 * (many.high - many.low)
    assert few.support <= many.support
    assert not few.is_extrapolated
    assert plan(runs_of(USUAL), 300).is_extrapolated
    assert plan(runs_of(USUAL), 3).is_extrapolated


def test_plan__toy_switches_where_the_students_do():
    sizes = [(w, 0) for w in (40, 80, 160, 320, 640)] + [(0, o) for o in (16, 32, 64, 128)]
    sizes += [(160, 16), (320, 32), (320, 64), (640, 64)]
    table = [(w, o, toy_labels.error(w, o, seed)) for w, o in sizes for seed in range(100, 108)]
    runs = Runs(*(np.array(column) for column in zip(*table, strict=True)))
    regimes = {
        (price, budget): plan(runs, budget, price_weak=price, n_test=2000)
        for price, budget in ((0.1, 16), (0.1, 64), (0.1, 256), (0.5, 16), (0.5, 64))
    }
    assert [p.regime for p in regimes.values()] == [
        "quantity", "quantity", "quality", "quantity", "quality",
    ]  # fmt: skip
    # What these purchases really bring, of other students.
    for p in regimes.values():
        real = np.mean([toy_labels.error(p.best.n_weak, p.best.n_expert, s) for s in range(20)])
        assert p.low - 0.005 <= 1 - real <= p.high + 0.005
    assert regimes[0.1, 16].pilot.weak.floor[0] == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": 0.05}, "budget for at least one label was expected, got 0.05"),
        ({"budget": np.inf}, "budget"),
        ({"budget": 5, "price_weak": 0.0}, "positive prices"),
        ({"budget": 5, "n_items": 0}, "at least one item"),
        ({"budget": 5, "n_test": 0}, "held-out item"),
    ],
)
def test_plan__that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        plan(runs_of(USUAL), **settings)


def test_plan__students_that_learn_nothing_or_everything_at_once():
    for error in (0.0, 0.5, 1.0):
        runs = Runs(np.append(SIZES, NONE), np.append(NONE, SIZES), np.full(10, error))
        found = plan(runs, 100)
        assert found.best.accuracy == pytest.approx(1 - error)
        assert found.more_weak == pytest.approx(0, abs=1e-12)


def test_choose_items__an_expert_gets_the_least_sure_and_nobody_gets_two():
    rng = np.random.default_rng(0)
    u, h = rng.integers(0, 20, 200).astype(float), hash_integers(np.arange(200))
    buy = choose_items(u, h, n_weak=50, n_expert=30)
    assert np.bincount(buy, minlength=3).tolist() == [120, 50, 30]
    assert u[buy == Buy.EXPERT].min() >= u[buy != Buy.EXPERT].max()
    order = rng.permutation(200)
    np.testing.assert_array_equal(
        choose_items(u[order], h[order], n_weak=50, n_expert=30), buy[order]
    )
    assert (choose_items(u, h, n_weak=999, n_expert=150) > 0).all()
    assert choose_items(u, h, n_weak=0, n_expert=0).max() == 0
    assert choose_items(np.zeros(0), h[:0], n_weak=1, n_expert=1).tolist() == []
    with pytest.raises(ValueError, match="NaN"):
        choose_items(np.full(2, np.nan), h[:2], n_weak=1, n_expert=1)
    with pytest.raises(ValueError, match="at least 0"):
        choose_items(u, h, n_weak=-1, n_expert=1)
