"""How many cheap labels and how many of an expert's to buy for a sum of money, and of which items.

A small pilot says how good cheap labels are and how the error of a student falls with either kind.
From that follow the best purchase for every budget, what the next unit of money would bring, and
the price at which cheap labels stop paying. After every purchase the runs made with it belong to
the pilot, and the plan is made again.
"""

# N items, R runs of the pilot, D draws, C purchases, G groups

from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from labelops.distill.learning_curves import Pilot, Runs, check_runs, fit_pilot, pilot_error

Regime = Literal["quantity", "mixed", "quality"]

Z = float(ndtri(0.975))

LEAST_GAIN = 0.002
"""Both kinds of label are bought only if that brings so much accuracy more than one alone."""

N_DRAWS = 200

N_SIZES, N_SHARES = 192, 64
"""Purchases that are compared: sizes in equal ratios, and equal shares of the budget."""

STEP = 0.01
"""Of the budget: what is spent more to see what more would bring."""

CHEAPEST = 1e-4
"""Prices, in an expert's, below which break-even is not looked for."""


class Accuracy(NamedTuple):
    """Share of labels that are right, with a 95 % interval; shape (G,) each.

    Attributes
    ----------
    n : labels checked, int64.
    share : of them right; ½ where none was checked.
    low, high : ends.
    """

    n: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Purchase(NamedTuple):
    """What to buy.

    Attributes
    ----------
    budget : what may be spent.
    n_weak, n_expert : labels of each kind, of different items.
    accuracy : expected of the student.
    """

    budget: float
    n_weak: int
    n_expert: int
    accuracy: float


class Plan(NamedTuple):
    """The best purchase, and how sure that is.

    Attributes
    ----------
    best : what to buy.
    regime : *quantity* (cheap labels only), *mixed* or *quality* (an expert's only).
    low, high : 95 % interval of the accuracy, for chance in the pilot's held-out items and runs.
    support : share of draws of the pilot of which the same regime would follow.
    is_extrapolated : whether more or fewer labels of a kind are bought than any run of the pilot
        had; of how curves go on there, the interval says nothing.
    break_even : highest price of a cheap label, in the same money, at which any are bought, up to
        the price of an expert's; 0 if none is low enough.
    more_weak, more_expert : accuracy per unit of money spent more on either kind.
    frontier : best purchases for smaller budgets, up to this; accuracies never fall.
    pilot : fitted curves.
    """

    best: Purchase
    regime: Regime
    low: float
    high: float
    support: float
    is_extrapolated: bool
    break_even: float
    more_weak: float
    more_expert: float
    frontier: tuple[Purchase, ...]
    pilot: Pilot


class Buy(IntEnum):
    """Label to buy of an item."""

    NONE = 0
    WEAK = 1
    EXPERT = 2


def weak_accuracy(right: np.ndarray, group: np.ndarray, *, n_groups: int) -> Accuracy:
    """Return how many cheap labels are right, by what an expert said of the same items.

    With h right of n, z = 1.96: (h + z² / 2) / (n + z²) ± z √(h (n − h) / n + z² / 4) / (n + z²).

    Parameters
    ----------
    right
        Whether each is, bool, shape (N,).
    group
        Of each, such as a class or a bin of confidence, in 0 … G − 1, shape (N,).
    n_groups
        G; 1 with zeros for all together.

    Raises
    ------
    ValueError
        If shapes differ or a group is not there.

    References
    ----------
    Wilson: Probable inference, the law of succession, and statistical inference. Journal of the
    American Statistical Association 22, 1927.

    Examples
    --------
    >>> found = weak_accuracy(np.arange(100) < 84, np.zeros(100, int), n_groups=1)
    >>> found.share.tolist(), found.low.round(3).tolist(), found.high.round(3).tolist()
    ([0.84], [0.756], [0.899])
    """
    if right.shape != group.shape or right.ndim != 1 or n_groups < 1:
        raise ValueError(
            "weak_accuracy: as many answers as groups, and at least one group were expected, got "
            f"{right.shape}, {group.shape} and {n_groups}"
        )
    if len(group) and not (group.min() >= 0 and group.max() < n_groups):
        raise ValueError(
            f"weak_accuracy: groups in 0 … {n_groups - 1} were expected, got "
            f"{group.min()} … {group.max()}"
        )
    n = np.bincount(group, minlength=n_groups)
    hits = np.bincount(group[right.astype(bool)], minlength=n_groups)
    centre, sized = (hits + Z**2 / 2) / (n + Z**2), np.maximum(n, 1)
    half = Z * np.sqrt(hits * (n - hits) / sized + Z**2 / 4) / (n + Z**2)
    share = np.where(n > 0, hits / sized, 0.5)
    return Accuracy(n, share, np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0))


def label_worth(error: np.ndarray) -> np.ndarray:
    """Return how much of an expert's label a cheap one is worth that is wrong by chance alone.

    (1 − 2ε)²: labels of two classes that are flipped at random at a rate of ε have so much of the
    information. Cheap ones win if that is more than the ratio of prices. Labels that are wrong
    systematically have a floor, which only a pilot shows.

    Examples
    --------
    >>> label_worth(np.array([0.0, 0.16, 0.5])).round(4).tolist()
    [1.0, 0.4624, 0.0]
    """
    return np.asarray((1 - 2 * np.asarray(error, np.float64)) ** 2)


def plan_budget(
    runs: Runs,
    *,
    n_test: int,
    budget: float,
    price_weak: float,
    price_expert: float,
    n_items: int,
    rng: np.random.Generator,
) -> Plan:
    """Return what to buy so that the student is expected to be best.

    Parameters
    ----------
    runs
        Trainings with cheap labels only, with an expert's only, of at least three sizes each, and
        some with both, cheap ones first, as the final one will be; of those R.
    n_test
        Held-out items with an expert's labels on which errors were counted, ≥ 1.
    budget
        What may be spent on labels. Labels of the pilot and of held-out items are paid already.
    price_weak, price_expert
        Of a label, > 0.
    n_items
        Items that may be labelled; each is labelled once.
    rng
        For the interval.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        As `check_runs`; or if a price is not positive, there is no item, or the budget buys none.

    Notes
    -----
    Both kinds are bought only if that is better by 0.002 than one kind. The interval is of 200
    fits to errors drawn about the fitted ones, with the variance of n_test answers, or that of the
    runs about the curves if it is greater. It is a little too narrow: in `benchmarks/budget.py` it
    held 88 ± 7 % of what students reached, where plans went beyond the runs, too.

    References
    ----------
    Mallen, Belrose: Balancing label quantity and quality for scalable elicitation.
    arXiv:2410.13215, 2024 (regimes, and the protocol of the runs). The curves are ours.

    Examples
    --------
    >>> n = np.array([16, 64, 256, 1024])
    >>> none = np.zeros(4, int)
    >>> error = np.concatenate([0.15 + n**-0.5 / 2, 1.4 * n**-0.5])
    >>> runs = Runs(np.append(n, none), np.append(none, n), error)
    >>> money = {"price_weak": 0.1, "price_expert": 1.0}
    >>> known = {"n_test": 10_000, "n_items": 10_000, "rng": np.random.default_rng(0)}
    >>> plans = [plan_budget(runs, budget=b, **money, **known) for b in (16, 1024)]
    >>> [(plan.regime, plan.best.n_weak, plan.best.n_expert) for plan in plans]
    [('quantity', 160, 0), ('quality', 0, 1024)]
    """
    runs = check_runs(runs, n_test=n_test)
    if not (0 < price_weak < np.inf and 0 < price_expert < np.inf and n_items >= 1):
        raise ValueError(
            "plan_budget: positive prices and at least one item were expected, got "
            f"{price_weak:g}, {price_expert:g} and {n_items}"
        )
    cheapest = min(price_weak, price_expert)
    if not cheapest <= budget < np.inf:
        raise ValueError(
            f"plan_budget: a budget for at least one label was expected, got {budget:g}, where "
            f"labels cost {price_weak:g} and {price_expert:g}"
        )
    # In prices of an expert's label, so that the currency does not matter.
    price, money = price_weak / price_expert, budget / price_expert
    smoothed = (runs.error * n_test + 1) / (n_test + 2)
    weight = n_test / (smoothed * (1 - smoothed))
    pilot = fit_pilot(runs, runs.error[None], weight)
    best, regime = _best(pilot, money, price, n_items)
    drawn = fit_pilot(runs, _draws(runs, pilot, weight, n_test, rng), weight)
    at = np.array([[best.n_weak]]), np.array([[best.n_expert]])
    low, high = np.quantile(1 - pilot_error(drawn, *at), (0.025, 0.975))
    same = [_best(_one(drawn, d), money, price, n_items)[1] == regime for d in range(N_DRAWS)]
    more_weak, more_expert = _more(pilot, best, money, price, n_items) / price_expert
    budgets = np.geomspace(max(money / 256, min(price, 1.0)), money, 17)
    return Plan(
        best._replace(budget=float(budget)),
        regime,
        float(low),
        float(high),
        float(np.mean(same)),
        _is_beyond(best.n_weak, runs.n_weak) or _is_beyond(best.n_expert, runs.n_expert),
        _break_even(pilot, money, n_items) * price_expert,
        float(more_weak),
        float(more_expert),
        _frontier(pilot, budgets, price, price_expert, n_items),
        pilot,
    )


def _is_beyond(n: int, of_runs: np.ndarray) -> bool:
    return n > 0 and not of_runs[of_runs > 0].min() <= n <= of_runs.max()


def _one(pilot: Pilot, d: int) -> Pilot:
    """Return one of the draws."""
    weak, expert = (
        curve._replace(**{key: getattr(curve, key)[d : d + 1] for key in curve._fields[:3]})
        for curve in pilot[:2]
    )
    return Pilot(weak, expert, pilot.lasting[d : d + 1])


def _draws(
    runs: Runs, pilot: Pilot, weight: np.ndarray, n_test: int, rng: np.random.Generator
) -> np.ndarray:
    """Return errors that the runs might have had; shape (D, R)."""
    said = pilot_error(pilot, runs.n_weak[None], runs.n_expert[None])[0]
    is_mixed = (runs.n_weak > 0) & (runs.n_expert > 0)
    freedom = len(said) - 6 - int(is_mixed.any())
    excess = (weight * (said - runs.error) ** 2).sum() / freedom if freedom > 0 else 1.0
    std = np.sqrt(max(float(excess), 1.0) * said * (1 - said) / n_test)
    return np.asarray(np.clip(said + std * rng.standard_normal((N_DRAWS, len(said))), 0.0, 1.0))


def _counts(money: np.ndarray, price: float, n_items: np.ndarray | int) -> np.ndarray:
    """Return how many labels that buys; a sum that is short by rounding is enough."""
    return np.asarray(np.floor(np.minimum(money / price * (1 + 1e-12) + 1e-12, n_items)))


def _best(pilot: Pilot, money: float, price: float, n_items: int) -> tuple[Purchase, Regime]:
    """Return the best purchase, prices in those of an expert's label."""
    most, most_expert = (float(_counts(np.array(money), c, n_items)) for c in (price, 1.0))
    sizes = np.concatenate(
        [np.geomspace(1, max(most, 1), N_SIZES), most * np.linspace(0, 1, N_SHARES + 1)]
    )
    n_weak = np.unique(np.minimum(np.floor(sizes), most))
    # Once more between the neighbours of the best.
    for _ in range(2):
        n_expert = _counts(np.maximum(money - price * n_weak, 0.0), 1.0, n_items - n_weak)
        accuracy = 1 - pilot_error(pilot, n_weak[None], n_expert[None])[0]
        i = int(accuracy.argmax())
        best = _purchase(money, n_weak[i], n_expert[i], accuracy[i])
        n_weak = np.linspace(n_weak[max(i - 1, 0)], n_weak[min(i + 1, len(n_weak) - 1)], N_SIZES)
        n_weak = np.unique(np.append(np.round(n_weak), best.n_weak))
    only = np.array([[0.0, most]]), np.array([[most_expert, 0.0]])
    of_one = 1 - pilot_error(pilot, *only)[0]
    j = int(of_one.argmax())
    if best.accuracy > of_one[j] + LEAST_GAIN:
        return best, "mixed"
    regime: Regime = "quantity" if j else "quality"
    return _purchase(money, only[0][0, j], only[1][0, j], of_one[j]), regime


def _purchase(budget: float, n_weak: float, n_expert: float, accuracy: float) -> Purchase:
    return Purchase(float(budget), int(n_weak), int(n_expert), float(accuracy))


def _more(pilot: Pilot, best: Purchase, money: float, price: float, n_items: int) -> np.ndarray:
    """Return accuracy per an expert's price, spent more on cheap labels and on an expert's."""
    if best.n_weak + best.n_expert >= n_items:
        return np.zeros(2)
    more = STEP * money
    n_weak = best.n_weak + np.array([0.0, more / price, 0.0])
    n_expert = best.n_expert + np.array([0.0, 0.0, more])
    error = pilot_error(pilot, n_weak[None], n_expert[None])[0]
    return np.asarray((error[0] - error[1:]) / more)


def _break_even(pilot: Pilot, money: float, n_items: int) -> float:
    """Return up to which price cheap labels are bought; the cheaper, the more they bring."""
    low, high = CHEAPEST, 1.0
    if _best(pilot, money, high, n_items)[1] != "quality":
        return high
    if _best(pilot, money, low, n_items)[1] == "quality":
        return 0.0
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        if _best(pilot, money, middle, n_items)[1] == "quality":
            high = middle
        else:
            low = middle
    return low


def _frontier(
    pilot: Pilot, budgets: np.ndarray, price: float, price_expert: float, n_items: int
) -> tuple[Purchase, ...]:
    """Return best purchases; what a smaller sum bought can still be bought."""
    found: list[Purchase] = []
    for money in budgets:
        best = _best(pilot, float(money), price, n_items)[0]
        if found and best.accuracy < found[-1].accuracy:
            best = found[-1]
        found.append(best._replace(budget=float(money * price_expert)))
    return tuple(found)


def choose_items(
    uncertainty: np.ndarray, hashes: np.ndarray, *, n_weak: int, n_expert: int
) -> np.ndarray:
    """Return which label to buy of which item.

    An expert's of those that the student, or a check of labels, is least sure of; cheap ones of
    others, drawn by hash, so that they are a fair sample of what the student is surer of.

    Parameters
    ----------
    uncertainty
        High where unsure, such as the entropy of predictions; shape (N,).
    hashes
        Of the items' ids, uint64, shape (N,); they break ties.
    n_weak, n_expert
        How many; a plan's. Fewer cheap ones where there are fewer items.

    Returns
    -------
    `Buy`, uint8, shape (N,).

    Raises
    ------
    ValueError
        If shapes differ, a number is negative, or a value is not a number.

    Examples
    --------
    >>> hashes = np.array([7, 1, 5, 3], np.uint64)
    >>> choose_items(np.array([0.1, 0.9, 0.5, 0.2]), hashes, n_weak=1, n_expert=2).tolist()
    [0, 2, 2, 1]
    """
    u = np.asarray(uncertainty, np.float64)
    if u.ndim != 1 or u.shape != hashes.shape or n_weak < 0 or n_expert < 0 or np.isnan(u).any():
        raise ValueError(
            "choose_items: as many numbers of how unsure as hashes, none of them NaN, and numbers "
            f"of labels of at least 0 were expected, got {u.shape}, {hashes.shape}, {n_weak} and "
            f"{n_expert}"
        )
    buy = np.full(len(u), Buy.NONE, np.uint8)
    buy[np.lexsort((hashes, -u))[:n_expert]] = Buy.EXPERT
    others = np.flatnonzero(buy == Buy.NONE)
    buy[others[np.argsort(hashes[others], kind="stable")[:n_weak]]] = Buy.WEAK
    return buy
