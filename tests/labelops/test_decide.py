"""Oracle: the policy written as one `if` after another for a single item."""

import numpy as np
import pytest
from hypothesis import given as having
from hypothesis import settings
from hypothesis import strategies as st

from labelops.decide import (
    BANDS,
    COPY,
    FIXED_RULES,
    IMPROBABLE,
    REVIEWED,
    UNSURE,
    Action,
    Held,
    Policy,
    Proposals,
    bands,
    hold,
    outcome,
    propose,
    reason,
    rules,
    settle,
    small_classes,
    with_reviews,
)

ACTIONS = [Action.KEEP, Action.REVIEW, Action.DROP, Action.SOFTEN, Action.ABSTAIN]


def decide_one(belief, y, issue, conflict, copy, outlier, policy):
    best = max(range(len(belief)), key=lambda c: (belief[c], -c))
    if (issue or belief[y] < 0.5) and policy.label_issue is None:
        if outlier:
            return Action.REVIEW, "issue-outlier"
        if best != y and belief[best] >= policy.relabel_confidence:
            edges = sorted({policy.relabel_confidence, *BANDS})
            edge = max(e for e in edges if policy.relabel_confidence <= e <= belief[best])
            return Action.RELABEL, f"relabel-{edge:g}"
        if belief[y] <= 1 - policy.drop_confidence:
            return Action.DROP, "issue-improbable"
        return Action.REVIEW, "issue-unsure"
    if issue and policy.label_issue not in (None, Action.KEEP):
        return policy.label_issue, "issue"
    doubtful = belief[y] < policy.relabel_confidence
    if conflict and doubtful and policy.duplicate_conflict != Action.KEEP:
        return policy.duplicate_conflict, "duplicate-conflict"
    if copy and policy.near_duplicate != Action.KEEP:
        return policy.near_duplicate, "near-duplicate"
    if outlier and policy.outlier != Action.KEEP:
        return policy.outlier, "outlier"
    return Action.KEEP, "no-issue"


@settings(max_examples=80)
@having(
    seed=st.integers(0, 10**6),
    label_issue=st.sampled_from([None, *ACTIONS]),
    others=st.tuples(*[st.sampled_from(ACTIONS)] * 3),
    relabel=st.sampled_from([0.5, 0.75, 0.9, 0.95]),
    drop=st.sampled_from([0.5, 0.9]),
)
def test_propose__equals_the_policy_item_by_item(seed, label_issue, others, relabel, drop):
    rng = np.random.default_rng(seed)
    belief = rng.dirichlet(np.full(4, 0.15), 40)
    y = rng.integers(0, 4, 40)
    flags = rng.random((4, 40)) < 0.5
    policy = Policy(relabel, drop, label_issue, *others)
    got = propose(
        belief,
        y,
        is_issue=flags[0],
        is_conflict=flags[1],
        is_copy=flags[2],
        is_outlier=flags[3],
        policy=policy,
    )
    names = [rule.name for rule in rules(relabel)]
    for i in range(40):
        want = decide_one(belief[i], y[i], *flags[:, i], policy)
        assert (Action(got.action[i]), names[got.rule[i]]) == want
        assert got.p_given[i] == belief[i, y[i]]
        assert got.p_new[i] == belief[i].max()


def test_rules__are_named_once_and_change_labels_last():
    names = [rule.name for rule in rules(0.9)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("relabel-") for name in names[len(FIXED_RULES) :])
    assert bands(0.95) == (0.95, 0.99)


def proposals(action, rule, p_new=0.9, p_given=0.1):
    n = len(action)
    return Proposals(
        np.array(action, np.uint8),
        np.array(rule, np.uint8),
        np.zeros(n, np.int32),
        np.full(n, p_new),
        np.full(n, p_given),
        np.full(n, p_given),
    )


def test_hold__gate_and_small_classes_stop_what_leaves_a_class_and_nothing_else():
    found = proposals(
        [Action.RELABEL, Action.RELABEL, Action.DROP, Action.REVIEW, Action.KEEP, Action.RELABEL],
        [0, 1, 0, 0, 0, REVIEWED],
    )
    held = hold(
        found,
        np.array([0, 0, 1, 1, 1, 1]),
        shipping=np.array([True, False] + [False] * 10),
        small=np.array([False, True]),
    )
    assert held.tolist() == [Held.NO, Held.GATE, Held.CLASS_SIZE, Held.NO, Held.NO, Held.NO]


def test_settle__what_is_held_back_is_looked_at_or_kept_with_less_weight():
    found = proposals(
        [Action.RELABEL, Action.RELABEL, Action.REVIEW, Action.DROP, Action.DROP, Action.KEEP],
        [9, 9, UNSURE, IMPROBABLE, COPY, 0],
    )
    held = np.array([Held.NO, Held.GATE, Held.NO, Held.MAX_DROP, Held.MAX_DROP, Held.NO], np.uint8)
    final = settle(found, held, in_budget=np.array([0, 1, 0, 0, 0, 0], bool))
    assert [Action(a).name for a in final.action] == [
        "RELABEL",
        "REVIEW",
        "SOFTEN",
        "SOFTEN",
        "KEEP",
        "KEEP",
    ]
    assert held.tolist() == [Held.NO, Held.GATE, Held.MAX_REVIEW, Held.MAX_DROP, Held.MAX_DROP, 0]
    label, confidence, weight = outcome(final, np.full(6, 3))
    assert label.tolist() == [0, -1, 3, 3, 3, 3]
    np.testing.assert_allclose(confidence, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    # Believed to be 0 with 0.9, and 3 with 0.1: only the changed label leads.
    np.testing.assert_allclose(weight, [0.8, 0, 0, 0, 0, 0], atol=1e-6)


def test_with_reviews__reviewers_have_the_last_word():
    given = np.array([2, 2, 2])
    found = with_reviews(
        proposals([Action.DROP] * 3, [IMPROBABLE] * 3), given, np.array([-1, 2, 1])
    )
    assert [Action(a).name for a in found.action] == ["DROP", "KEEP", "RELABEL"]
    assert found.p_new[1:].tolist() == [1, 1]
    assert found.p_given.tolist() == [0.1, 1, 0]
    assert found.new.tolist() == [0, 2, 1]


def test_reason__says_what_was_held_back_and_why():
    said = reason(FIXED_RULES[UNSURE], Held.MAX_REVIEW, Action.SOFTEN)
    assert said == (
        "label in doubt, belief undecided; not reviewed: max_review is reached; label kept with a "
        "lower weight"
    )


@pytest.mark.parametrize("leaving", [0, 41, 45])
def test_small_classes__counts_what_would_stay(leaving):
    small = small_classes(np.array([50]), np.array([leaving]), min_class_size=10)
    assert small.tolist() == [50 - leaving < 10]
