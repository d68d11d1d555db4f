"""Oracles: each decision by hand, and the slow loop over cells."""

import numpy as np
import pytest

from labelops.decide import Held
from labelops.multilabel.decide import (
    REVIEWED,
    LabelAction,
    LabelPolicy,
    LabelProposals,
    competing,
    hold,
    is_open,
    item_doubt,
    outcome,
    propose,
    reason,
    rules,
    settle,
    with_reviews,
)

POLICY = LabelPolicy(0.9, 0.95, 0.5)
NAMES = [rule.name for rule in rules(POLICY)]
KEEP, ADD, REMOVE, REVIEW = LabelAction


def one(p: float, is_given: bool) -> tuple[LabelAction, str]:
    found = propose(np.array([p]), np.array([is_given]), policy=POLICY)
    return LabelAction(found.action[0]), NAMES[found.rule[0]]


@pytest.mark.parametrize(
    ("p", "is_given", "expected"),
    [
        (0.0, False, (KEEP, "missing-improbable")),
        (0.4999, True, (KEEP, "wrong-improbable")),
        (0.5, False, (REVIEW, "missing-unsure")),
        (0.8999, False, (REVIEW, "missing-unsure")),
        (0.9, False, (ADD, "add-0.9")),
        (0.95, False, (ADD, "add-0.95")),
        (1.0, False, (ADD, "add-0.99")),
        (0.9, True, (REVIEW, "wrong-unsure")),
        (0.95, True, (REMOVE, "remove-0.95")),
        (1.0, True, (REMOVE, "remove-0.99")),
    ],
)
def test_propose__each_kind_by_its_confidence(
    p: float, is_given: bool, expected: tuple[LabelAction, str]
) -> None:
    assert one(p, is_given) == expected


def random_cells(seed: int, n: int = 60) -> tuple[LabelProposals, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_given = rng.random(n) < 0.5
    row = np.sort(rng.integers(0, 20, n))
    return propose(rng.random(n) ** 0.3, is_given, policy=POLICY), is_given, row


def test_reviews__settle_their_cells_whatever_was_proposed() -> None:
    found, is_given, _ = random_cells(0)
    truth = np.random.default_rng(1).integers(-1, 2, len(is_given)).astype(np.int8)
    after = with_reviews(found, is_given, truth)
    for i, said in enumerate(truth.tolist()):
        if said < 0:
            assert after.action[i] == found.action[i]
            assert (after.rule[i], after.p[i]) == (found.rule[i], found.p[i])
        else:
            expected = KEEP if bool(said) == is_given[i] else REMOVE if is_given[i] else ADD
            assert after.action[i] == expected
            assert (after.rule[i], after.p[i]) == (REVIEWED, float(expected != KEEP))


def test_hold__gate_first_and_small_classes_lose_nothing_but_may_gain() -> None:
    found = propose(np.full(3, 0.97), np.array([False, True, True]), policy=POLICY)
    small = np.array([True, False])
    ships = np.array([name != "remove-0.95" for name in NAMES])
    class_id = np.array([0, 0, 1])
    assert hold(found, class_id, shipping=np.ones(len(NAMES), bool), small=small).tolist() == [
        Held.NO,
        Held.CLASS_SIZE,
        Held.NO,
    ]
    held = hold(found, class_id, shipping=ships, small=small)
    assert held.tolist() == [Held.NO, Held.GATE, Held.GATE]
    assert competing(found, held).tolist() == [True, False, False]
    assert is_open(found, held).tolist() == [False, True, True]


def test_hold__reviewed_cells_are_held_by_nothing() -> None:
    found = propose(np.array([0.97]), np.array([True]), policy=POLICY)
    after = with_reviews(found, np.array([True]), np.array([0], np.int8))
    none = np.zeros(len(NAMES), bool)
    assert not hold(after, np.array([0]), shipping=none, small=np.array([True])).any()
    assert not competing(after, np.zeros(1, np.uint8)).any()


@pytest.mark.parametrize("seed", range(5))
def test_settle_and_outcome__follow_from_the_cells_of_an_item(seed: int) -> None:
    found, _, row = random_cells(seed)
    rng = np.random.default_rng([seed, 1])
    held = np.where((found.action == ADD) & (rng.random(len(row)) < 0.3), Held.MAX_CHANGE, Held.NO)
    chosen = rng.random(20) < 0.5
    final, why = settle(found, held.astype(np.uint8), chosen[row])
    items = outcome(final, row, 20)
    for i in range(20):
        mine = np.flatnonzero(row == i)
        opened = [m for m in mine if found.action[m] == REVIEW or held[m] != Held.NO]
        waits = bool(opened) and chosen[i]
        assert items.is_review[i] == waits
        for m in mine:
            if m in opened:
                assert final.action[m] == (REVIEW if waits else KEEP)
                expected = held[m] if held[m] != Held.NO or waits else Held.MAX_REVIEW
                assert why[m] == expected
            else:
                assert (final.action[m], why[m]) == (found.action[m], Held.NO)
        changed = [m for m in mine if final.action[m] in (ADD, REMOVE)]
        assert items.n_added[i] + items.n_removed[i] == len(changed)
        assert items.n_doubted[i] == len(mine) - len(changed)
        right = [found.p[m] if m in changed and not waits else 1 - found.p[m] for m in mine]
        confidence = min(right, default=1.0)
        np.testing.assert_allclose(items.confidence[i], confidence, rtol=1e-6)
        weight = 0.0 if waits else max(2 * confidence - 1, 0)
        np.testing.assert_allclose(items.weight[i], weight, atol=1e-6)
        best = max(changed or list(mine), key=lambda m: found.p[m], default=-1)
        assert items.cell[i] == best


def test_item_doubt__is_that_of_the_most_suspicious_open_cell() -> None:
    row, p = np.array([0, 0, 2, 2]), np.array([0.6, 0.8, 0.9, 0.7])
    doubt = item_doubt(row, p, np.array([True, True, False, True]), 3)
    np.testing.assert_allclose(doubt, [0.2, np.inf, 0.3])


def test_nothing_flagged__keeps_everything_with_full_weight() -> None:
    none = propose(np.empty(0), np.empty(0, bool), policy=POLICY)
    items = outcome(none, np.empty(0, np.int64), 2)
    assert items.confidence.tolist() == items.weight.tolist() == [1.0, 1.0]
    assert items.cell.tolist() == [-1, -1]
    assert reason(0, 0, 0, Held.NO, is_review=False) == "no issue found"


def test_outcome__does_not_depend_on_the_order_of_cells_within_an_item() -> None:
    found, _, row = random_cells(3)
    order = np.lexsort((np.random.default_rng(0).random(len(row)), row))
    straight = outcome(found, row, 20)
    turned = outcome(LabelProposals(*(x[order] for x in found)), row, 20)
    for name in ("is_review", "n_added", "n_removed", "n_doubted", "confidence", "weight"):
        assert np.array_equal(getattr(straight, name), getattr(turned, name))
