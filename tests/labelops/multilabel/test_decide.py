"""Oracle: each decision by hand."""

import numpy as np
import pytest

from labelops.decisions import COMMON, Action
from labelops.multilabel.decide import LabelPolicy, propose, rules

POLICY = LabelPolicy(0.9, 0.95, 0.5)
NAMES = [rule.name for rule in rules(POLICY)]
KEEP, ADD, REMOVE, REVIEW = Action.KEEP, Action.ADD, Action.REMOVE, Action.REVIEW


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
    p: float, is_given: bool, expected: tuple[Action, str]
) -> None:
    action, rule = propose(np.array([p]), np.array([is_given]), policy=POLICY)
    assert (Action(action[0]), NAMES[rule[0]]) == expected


def test_rules__that_change_labels_come_last() -> None:
    listed = rules(POLICY)
    assert listed[:2] == COMMON
    changes = [rule.changes for rule in listed]
    assert changes == sorted(changes)


def test_nothing_flagged__proposes_nothing() -> None:
    action, rule = propose(np.empty(0), np.empty(0, bool), policy=POLICY)
    assert len(action) == len(rule) == 0
