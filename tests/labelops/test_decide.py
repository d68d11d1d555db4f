"""Oracle: the policy written as one `if` after another for a single item."""

import numpy as np
from hypothesis import given as having
from hypothesis import settings
from hypothesis import strategies as st

from labelops.decide import FIXED_RULES, Policy, propose, rules
from labelops.decisions import BANDS, COMMON, WHOLE, Action, bands

ACTIONS = [Action.KEEP, Action.REVIEW, Action.DROP, Action.SOFTEN, Action.ABSTAIN]


def decide_one(belief, cautious, y, issue, conflict, copy, outlier, policy):
    best = max(range(len(belief)), key=lambda c: (belief[c], -c))
    if (issue or belief[y] < 0.5) and policy.label_issue is None:
        if outlier:
            return Action.REVIEW, "issue-outlier"
        if best != y and cautious[best] >= policy.relabel_confidence:
            edges = sorted({policy.relabel_confidence, *BANDS})
            edge = max(e for e in edges if policy.relabel_confidence <= e <= cautious[best])
            return Action.RELABEL, f"relabel-{edge:g}"
        if best != y and belief[best] >= policy.relabel_confidence:
            return Action.RELABEL, "relabel-unsure"
        if cautious[y] <= 1 - policy.drop_confidence:
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
    belief, cautious = rng.dirichlet(np.full(4, 0.15), (2, 40))
    cautious = np.where(rng.random((40, 1)) < 0.5, belief, cautious)
    y = rng.integers(0, 4, 40)
    flags = rng.random((4, 40)) < 0.5
    policy = Policy(relabel, drop, label_issue, *others)
    got = propose(
        belief,
        cautious,
        y,
        is_issue=flags[0],
        is_conflict=flags[1],
        is_copy=flags[2],
        is_outlier=flags[3],
        policy=policy,
    )
    names = [rule.name for rule in rules(relabel)]
    for i in range(40):
        want = decide_one(belief[i], cautious[i], y[i], *flags[:, i], policy)
        assert (Action(got.action[i]), names[got.rule[i]]) == want
        promised = cautious[i] if want[1].startswith("relabel-0") else belief[i]
        assert (got.before[i], got.p_before[i]) == (y[i], promised[y[i]])
        assert got.p_after[i] == promised[got.after[i]]
        assert got.after[i] == belief[i].argmax()
        assert got.p_next[i] == np.sort(belief[i])[-2]
    assert (got.slot == WHOLE).all()
    assert got.row.tolist() == list(range(40))


def test_rules__are_named_once_and_change_labels_last():
    listed = rules(0.9)
    assert len({rule.name for rule in listed}) == len(listed)
    assert listed[:2] == COMMON
    assert [rule.changes for rule in listed] == [False] * len(FIXED_RULES) + [True] * 4
    assert bands(0.95) == (0.95, 0.99)
