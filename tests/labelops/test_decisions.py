"""Oracles: each decision by hand, and slow loops over slots and items."""

import numpy as np
import pytest

from labelops.decisions import (
    ABSENT,
    COMMON,
    DECISIONS,
    NO_ISSUE,
    NOBODY,
    REVIEWED,
    UNSAID,
    WHOLE,
    Action,
    Held,
    Proposals,
    Rule,
    cells,
    competing,
    doubt,
    for_review,
    hold,
    item_doubt,
    labels,
    outcome,
    p_right,
    reason,
    reasons,
    settle,
    small_classes,
    with_reviews,
)

K = 4
UNSURE, CHANGE, OTHER_CHANGE, COPY, CERTAIN, WEAK, STAYS = range(2, 9)
RULES = (
    *COMMON,
    Rule("unsure", "in doubt"),
    Rule("change-0.9", "sure", changes=True),
    Rule("change-0.99", "surer", changes=True),
    Rule("copy", "a copy", is_worth_a_look=False),
    Rule("conflict", "contradicts", is_certain=True),
    Rule("weak", "too weak to tell", is_weak=True),
    Rule("stays", "nothing is said of it", changes=True, stays=True),
)
NO_CLASS_IS_SMALL = np.zeros(K, bool)
KEEP, RELABEL, DROP, REVIEW, ABSTAIN, SOFTEN, ADD, REMOVE, UNRESOLVED = Action


def whole(action, rule, *, before=None, after=None, p_after=0.9, p_before=0.1):
    n = len(action)
    return Proposals(
        row=np.arange(n),
        slot=np.full(n, WHOLE),
        before=np.full(n, 3) if before is None else np.array(before),
        after=np.zeros(n, np.int64) if after is None else np.array(after),
        action=np.array(action, np.uint8),
        rule=np.array(rule, np.uint8),
        p_after=np.full(n, p_after),
        p_before=np.full(n, p_before),
        p_next=np.full(n, p_before),
    )


def random_cells(seed: int, n: int = 60, *, unknown: bool = False):
    """Return proposals about single classes of 20 items, each cell once."""
    rng = np.random.default_rng(seed)
    key = np.sort(rng.choice(20 * K, n, replace=False))
    is_given, p = rng.random(n) < 0.5, rng.random(n) ** 0.3
    if unknown:
        p[rng.random(n) < 0.2] = np.nan
    sure = np.nan_to_num(p) >= 0.9
    action = np.where(sure, np.where(is_given, REMOVE, ADD), np.where(p > 0.5, REVIEW, KEEP))
    return cells(key // K, key % K, is_given, action, np.where(sure, CHANGE, UNSURE), p)


# -- reviews ---------------------------------------------------------------------------------------


def test_reviews__of_whole_labels_keep_or_relabel_with_certainty():
    reviewed = with_reviews(
        whole([DROP] * 3, [UNSURE] * 3, before=[2, 2, 2]), np.array([NOBODY, 2, 1])
    )
    assert [Action(a) for a in reviewed.action] == [DROP, KEEP, RELABEL]
    assert reviewed.rule.tolist() == [UNSURE, REVIEWED, REVIEWED]
    assert reviewed.after.tolist() == [0, 2, 1]
    assert reviewed.p_after.tolist() == [0.9, 1, 1]
    assert reviewed.p_before.tolist() == [0.1, 1, 0]
    assert reviewed.p_next.tolist() == [0.1, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_reviews__of_classes_settle_them_whatever_was_proposed(seed):
    proposals = random_cells(seed)
    rng = np.random.default_rng([seed, 1])
    truth = np.where(rng.random(60) < 0.5, proposals.slot, ABSENT)
    truth[rng.random(60) < 0.3] = NOBODY
    after = with_reviews(proposals, truth)
    for i, said in enumerate(truth.tolist()):
        if said == NOBODY:
            assert all(column[i] == old[i] for column, old in zip(after, proposals, strict=True))
            continue
        given = proposals.before[i] >= 0
        expected = KEEP if (said >= 0) == given else REMOVE if given else ADD
        assert (after.action[i], after.rule[i]) == (expected, REVIEWED)
        assert (after.p_after[i], after.p_before[i]) == (expected != KEEP, expected == KEEP)
        assert after.p_next[i] == after.p_before[i]


def test_reviews__that_rule_out_what_nobody_said_change_nothing():
    one = random_cells(0, n=1)._replace(before=np.array([UNSAID]), slot=np.array([2]))
    reviewed = with_reviews(one, np.array([ABSENT]))
    assert reviewed.action.tolist() == [KEEP]
    assert with_reviews(one, np.array([2])).action.tolist() == [ADD]


# -- limits ----------------------------------------------------------------------------------------


def test_hold__gate_and_small_classes_stop_what_leaves_a_class_and_nothing_else():
    proposals = whole(
        [RELABEL, RELABEL, DROP, REVIEW, KEEP, RELABEL],
        [CHANGE, OTHER_CHANGE, UNSURE, UNSURE, NO_ISSUE, REVIEWED],
        before=[0, 0, 1, 1, 1, 1],
    )
    ships = np.array([rule.name != "change-0.99" for rule in RULES])
    held = hold(proposals, shipping=ships, small=np.array([False, True, False, False]))
    assert held.tolist() == [Held.NO, Held.GATE, Held.CLASS_SIZE, Held.NO, Held.NO, Held.NO]
    changes, drops = competing(proposals, held)
    assert np.flatnonzero(changes).tolist() == [0]
    assert not drops.any()


def test_hold__a_small_class_may_gain_but_not_lose():
    is_given = np.array([False, True, True])
    proposals = cells(
        np.arange(3), np.array([0, 0, 1]), is_given, np.where(is_given, REMOVE, ADD),
        np.full(3, CHANGE), np.full(3, 0.97),
    )  # fmt: skip
    every = np.ones(len(RULES), bool)
    held = hold(proposals, shipping=every, small=np.array([True, False, False, False]))
    assert held.tolist() == [Held.NO, Held.CLASS_SIZE, Held.NO]


def test_hold__nothing_of_one_class_goes_out_of_range():
    proposals = cells(
        np.zeros(1, int), np.zeros(1, int), np.array([False]), np.array([ADD]), np.array([CHANGE]),
        np.ones(1),
    )._replace(before=np.array([UNSAID]))  # fmt: skip
    held = hold(proposals, shipping=np.ones(len(RULES), bool), small=np.array([True]))
    assert held.tolist() == [Held.NO]


def test_doubt__is_that_of_what_would_be_done():
    slots = whole([RELABEL, DROP, REVIEW], [CHANGE, UNSURE, UNSURE], p_after=0.75, p_before=0.125)
    assert doubt(slots).tolist() == [0.25, 0.125, 0.125]


def test_item_doubt__is_that_of_the_most_suspicious_slot_in_the_pool():
    row, p = np.array([0, 0, 2, 2, 3]), np.array([0.6, 0.8, 0.9, 0.7, np.nan])
    rule = np.array([UNSURE] * 4 + [CERTAIN])
    proposals = cells(row, np.arange(5), np.zeros(5, bool), np.full(5, REVIEW), rule, p)
    pool = np.array([True, True, False, True, True])
    got = item_doubt(proposals, pool, RULES, 5)
    np.testing.assert_allclose(got, [0.2, np.inf, 0.3, 0, np.inf])
    unknown = item_doubt(proposals._replace(rule=np.full(5, UNSURE)), pool, RULES, 5)
    assert unknown[3] == 1


@pytest.mark.parametrize("leaving", [0, 41, 45])
def test_small_classes__counts_what_would_stay(leaving):
    small = small_classes(np.array([50]), np.array([leaving]), min_class_size=10)
    assert small.tolist() == [50 - leaving < 10]


# -- what is done, and what becomes of items -------------------------------------------------------


def settled(proposals, held, pool, in_budget, small=NO_CLASS_IS_SMALL):
    return settle(proposals, held, pool, in_budget, rules=RULES, small=small)


def test_settle__what_is_held_back_is_looked_at_or_kept_with_less_weight():
    proposals = whole(
        [RELABEL, RELABEL, REVIEW, DROP, DROP, KEEP, ABSTAIN],
        [CHANGE, CHANGE, WEAK, WEAK, COPY, NO_ISSUE, UNSURE],
    )
    held = np.array([Held.NO, Held.GATE, Held.NO, Held.MAX_DROP, Held.MAX_DROP, 0, 0], np.uint8)
    pool = for_review(proposals, held, RULES)
    final, why = settled(proposals, held, pool, np.array([0, 1, 0, 0, 0, 0, 0], bool))
    assert [Action(a) for a in final.action] == [
        *(RELABEL, REVIEW, SOFTEN, SOFTEN, KEEP, KEEP, ABSTAIN),
    ]
    assert why.tolist() == [0, Held.GATE, Held.MAX_REVIEW, Held.MAX_DROP, Held.MAX_DROP, 0, 0]
    items = outcome(final, 7)
    assert DECISIONS[items.decision].tolist() == [
        *("relabel", "review", "keep", "keep", "keep", "keep", "abstain"),
    ]
    np.testing.assert_allclose(items.confidence, [0.9, *[0.1] * 6])
    # Believed to be 0 with 0.9, and 3 with 0.1: only the changed label leads.
    np.testing.assert_allclose(items.weight, [0.8, 0, 0, 0, 0, 0, 0], atol=1e-9)


def test_settle__a_label_that_is_believed_less_than_another_is_set_aside_as_unresolved():
    """Nobody has time for any of them; of class 1 nothing may leave."""
    proposals = whole([REVIEW] * 5, [UNSURE, UNSURE, UNSURE, WEAK, UNSURE], before=[3, 1, 3, 3, 0])
    p = {"p_after": np.array([0.6, 0.6, 0.4, 0.6, 0.9]), "p_before": np.array([0.4] * 4 + [0.9])}
    proposals = proposals._replace(**p, after=np.array([0, 0, 0, 0, 0]))
    held, nobody = np.zeros(5, np.uint8), np.zeros(5, bool)
    pool = for_review(proposals, held, RULES)
    final, why = settled(proposals, held, pool, nobody, np.arange(K) == 1)
    # As much belief in either is not less.
    assert [Action(a) for a in final.action] == [UNRESOLVED, SOFTEN, SOFTEN, SOFTEN, SOFTEN]
    assert why.tolist() == [Held.MAX_REVIEW] * 5
    items = outcome(final, 5)
    assert DECISIONS[items.decision].tolist() == ["unresolved", *["keep"] * 4]
    assert items.is_aside.tolist() == [True, *[False] * 4]
    assert items.weight[0] == 0.0
    assert items.confidence[0] == 0.4
    texts, of_item = reasons(final, why, items, RULES)
    assert texts[of_item[0]] == (
        "in doubt; not reviewed: max_review is reached; set aside as unresolved: another class is "
        "believed more"
    )


def test_settle__what_nobody_said_anything_of_stays_or_is_set_aside_as_the_rule_says():
    proposals = whole(
        [RELABEL, REVIEW, REVIEW, REVIEW], [STAYS] * 3 + [UNSURE], before=[UNSAID] * 4
    )
    held = np.array([Held.GATE, Held.NO, Held.NO, Held.NO], np.uint8)
    pool = for_review(proposals, held, RULES)
    final, why = settled(proposals, held, pool, np.array([False, False, True, False]))
    assert [Action(a) for a in final.action] == [KEEP, KEEP, REVIEW, UNRESOLVED]
    assert why.tolist() == [Held.GATE, Held.MAX_REVIEW, Held.NO, Held.MAX_REVIEW]
    items = outcome(final, 4)
    assert DECISIONS[items.decision].tolist() == ["keep", "keep", "review", "unresolved"]
    assert items.confidence.tolist()[:2] == items.weight.tolist()[:2] == [1.0, 1.0]


def test_weight__of_a_kept_label_is_its_lead_over_all_others():
    proposals = whole([KEEP, KEEP], [NO_ISSUE] * 2, before=[0, 3], after=[0, 0], p_before=0.7)
    proposals = proposals._replace(p_after=np.array([0.7, 0.8]), p_next=np.array([0.2, 0.7]))
    np.testing.assert_allclose(outcome(proposals, 2).weight, [0.5, 0.0])


def one_by_one(proposals, held, chosen, n_items):
    """Settle and judge items in plain loops."""
    rows = {i: np.flatnonzero(proposals.row == i).tolist() for i in range(n_items)}
    done, items = {}, {}
    for i, mine in rows.items():
        pool = [m for m in mine if proposals.action[m] == REVIEW or held[m] != Held.NO]
        waits = bool(pool) and bool(chosen[i])
        for m in mine:
            done[m] = Action(proposals.action[m])
            if m in pool:
                done[m] = REVIEW if waits else SOFTEN
        changed = [m for m in mine if done[m] in (ADD, REMOVE)]
        confidence, weight = 1.0, 1.0
        for m in mine:
            p = proposals.p_after[m] if m in changed and not waits else 1 - proposals.p_after[m]
            if np.isnan(p) and m in changed and not waits:
                confidence, weight = np.nan, 1.0
                break
            if not np.isnan(p):
                confidence = min(confidence, p)
                weight = min(weight, max(2 * p - 1, 0))
        items[i] = (waits, changed, confidence, 0.0 if waits else weight)
    return done, items


@pytest.mark.parametrize(("seed", "unknown"), [(seed, seed % 2 == 1) for seed in range(12)])
def test_settle_and_outcome__follow_from_the_slots_of_an_item(seed, unknown):
    proposals = random_cells(seed, unknown=unknown)
    rng = np.random.default_rng([seed, 1])
    held = np.where((proposals.action == ADD) & (rng.random(60) < 0.3), Held.MAX_CHANGE, Held.NO)
    held, chosen = held.astype(np.uint8), rng.random(20) < 0.5
    final, why = settled(proposals, held, for_review(proposals, held, RULES), chosen)
    items = outcome(final, 20)
    done, expected = one_by_one(proposals, held, chosen, 20)
    assert [Action(a) for a in final.action] == [done[m] for m in range(60)]
    softened = (final.action == SOFTEN) & (held == Held.NO)
    assert why.tolist() == np.where(softened, Held.MAX_REVIEW, held).tolist()
    for i, (waits, changed, confidence, weight) in expected.items():
        mine = np.flatnonzero(proposals.row == i)
        word = "review" if waits else "relabel" if changed else "keep"
        assert DECISIONS[items.decision[i]] == word
        assert items.n_added[i] + items.n_removed[i] == len(changed)
        assert items.n_doubted[i] == len(mine) - len(changed)
        np.testing.assert_allclose(items.confidence[i], confidence)
        np.testing.assert_allclose(items.weight[i], weight, atol=1e-9)
        sure = np.nan_to_num(proposals.p_after, nan=-1)
        assert items.first[i] == max(changed or mine.tolist(), key=lambda m: sure[m], default=-1)


def test_p_right__claims_nothing_of_what_nobody_said():
    proposals = random_cells(1)._replace(before=np.full(60, UNSAID))
    kept = ~proposals.is_change
    assert np.isnan(p_right(proposals)[kept]).all()
    assert p_right(proposals)[~kept].tolist() == proposals.p_after[~kept].tolist()
    assert (outcome(proposals._replace(action=np.zeros(60, np.uint8)), 20).confidence == 1).all()


def test_no_proposal__keeps_everything_with_full_weight():
    items = outcome(random_cells(0, n=0), 2)
    assert items.confidence.tolist() == items.weight.tolist() == [1.0, 1.0]
    assert items.first.tolist() == [-1, -1]
    texts, of_item = reasons(random_cells(0, n=0), np.empty(0, np.uint8), items, RULES)
    assert [texts[i] for i in of_item] == ["no issue found"] * 2
    nothing = outcome(random_cells(0, n=0), 0)
    assert reasons(random_cells(0, n=0), np.empty(0, np.uint8), nothing, RULES)[0] == []


def test_outcome__does_not_depend_on_the_order_of_slots_within_an_item():
    slots = random_cells(3)
    order = np.lexsort((np.random.default_rng(0).random(60), slots.row))
    straight, turned = outcome(slots, 20), outcome(Proposals(*(x[order] for x in slots)), 20)
    for name in ("decision", "n_added", "n_removed", "n_doubted", "confidence", "weight"):
        assert np.array_equal(getattr(straight, name), getattr(turned, name))


# -- words -----------------------------------------------------------------------------------------


def test_reason__says_what_was_held_back_and_why():
    said = reason(RULES[UNSURE], Held.MAX_REVIEW, SOFTEN)
    assert said == ("in doubt; not reviewed: max_review is reached; label kept with a lower weight")
    assert reason(RULES[UNSURE], Held.NO, REVIEW, removed=1) == (
        "1 label removed; set aside for review"
    )
    unresolved = "in doubt; set aside as unresolved: "
    assert reason(RULES[UNSURE], Held.NO, Action.UNRESOLVED) == (
        f"{unresolved}another class is believed more"
    )
    assert reason(RULES[UNSURE], Held.NO, Action.UNRESOLVED, is_unsaid=True) == (
        f"{unresolved}nobody said which class it has"
    )


def test_reasons__of_a_label_that_nobody_gave_compare_it_with_none():
    given = labels(np.tile([0.3, 0.7], (2, 1)), np.array([0, 0]), *np.zeros((2, 2), np.uint8))
    action = np.full(2, Action.UNRESOLVED, np.uint8)
    final = given._replace(before=np.array([0, UNSAID]), action=action)
    texts, of_item = reasons(final, np.zeros(2, np.uint8), outcome(final, 2), COMMON)
    assert [texts[i].split(": ")[1] for i in of_item] == [
        "another class is believed more",
        "nobody said which class it has",
    ]


def test_reasons__are_those_of_every_item_worded_once():
    proposals = random_cells(5)
    held = np.where(proposals.action == ADD, Held.GATE, Held.NO).astype(np.uint8)
    final, why = settled(
        proposals, held, for_review(proposals, held, RULES), np.arange(20) % 2 == 0
    )
    items = outcome(final, 20)
    texts, of_item = reasons(final, why, items, RULES)
    assert len(set(texts)) == len(texts)
    for i in range(20):
        first = items.first[i]
        waits = DECISIONS[items.decision[i]] == "review"
        expected = reason(
            RULES[final.rule[first]] if first >= 0 else RULES[NO_ISSUE],
            Held(why[first]) if first >= 0 else Held.NO,
            REVIEW if waits else KEEP,
            added=items.n_added[i],
            removed=items.n_removed[i],
            doubted=items.n_doubted[i],
        )
        assert texts[of_item[i]] == expected
