"""What is done about labels: proposals, what holds them back, and what becomes of items.

A proposal is about one *slot* of an item: its whole label where it has one, or one class where it
may have several. However it came about, what follows is the same: reviewers have the last word, a
gate and limits hold proposals back, what is held back is looked at as far as there is time, and
from its proposals follows what becomes of an item.
"""

# M proposals on N items, R rules, K classes

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

WHOLE = -1
"""Slot of an item's whole label; a class id is the slot of that class."""

ABSENT, UNSAID = -1, -2
"""Before or after, in place of a class: it is not there; and nobody said whether it is."""

NOBODY = -3
"""Truth of a slot that nobody reviewed."""

BANDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Changes are judged together with those of like belief; each band is a rule of its own."""


class Action(IntEnum):
    """What happens to a slot.

    SOFTEN keeps it as it is, with less weight; UNRESOLVED sets its item aside, because it is not
    believed and nobody has the time to look.
    """

    KEEP = 0
    RELABEL = 1
    DROP = 2
    REVIEW = 3
    ABSTAIN = 4
    SOFTEN = 5
    ADD = 6
    REMOVE = 7
    UNRESOLVED = 8


WORDS = np.array([action.name.lower() for action in Action])
"""What the log calls actions."""

_IS_CHANGE = np.isin(np.arange(len(Action)), (Action.RELABEL, Action.ADD, Action.REMOVE))

ASIDE = (Action.DROP, Action.REVIEW, Action.UNRESOLVED)

_LEAVES = np.isin(np.arange(len(Action)), (Action.RELABEL, Action.DROP, Action.REMOVE))


class Decision(IntEnum):
    """What becomes of an item."""

    KEEP = 0
    RELABEL = 1
    DROP = 2
    REVIEW = 3
    ABSTAIN = 4
    UNRESOLVED = 5


SET_ASIDE = (Decision.DROP, Decision.REVIEW, Decision.UNRESOLVED)
"""What is not trained on."""

DECISIONS = np.array([decision.name.lower() for decision in Decision])
"""What the product calls them."""


class Held(IntEnum):
    """Why a proposal was not carried out."""

    NO = 0
    GATE = 1
    MAX_CHANGE = 2
    CLASS_SIZE = 3
    MAX_DROP = 4
    MAX_REVIEW = 5


HELD_TEXT = (
    "",
    "not changed: the gain of this rule is not certain enough",
    "not changed: max_change_share, or what the estimate supports, is reached",
    "not changed: its class would become too small",
    "not dropped: max_drop_share, or what the estimate supports, is reached",
    "not reviewed: max_review is reached",
)


class Rule(NamedTuple):
    """A named reason to do something.

    Attributes
    ----------
    name : as the log and the gate call it.
    text : the reason as people read it.
    changes : whether it changes labels, so that the gate judges it.
    must_be_measured : whether it does so only if reviewed items say that it gains.
    is_worth_a_look : whether somebody should look at what it proposes and limits hold back.
    is_certain : that something is wrong is no question: nothing is looked at sooner.
    is_weak : what is believed is not sure enough to set items aside that nobody looks at.
    stays : nothing is said of an item that could be wrong: it stays as it is where nobody looks.
    """

    name: str
    text: str
    changes: bool = False
    must_be_measured: bool = False
    is_worth_a_look: bool = True
    is_certain: bool = False
    is_weak: bool = False
    stays: bool = False


COMMON = (Rule("no-issue", "no issue found"), Rule("reviewed", "label set by a reviewer"))
"""The first two of all rules, whatever kind of label they are about."""

NO_ISSUE, REVIEWED = range(2)


def bands(confidence: float) -> tuple[float, ...]:
    """Return the lower edges of the bands of belief in which labels are changed.

    Examples
    --------
    >>> bands(0.85)
    (0.85, 0.9, 0.95, 0.99)
    """
    return (confidence, *(edge for edge in BANDS if edge > confidence))


class Proposals(NamedTuple):
    """What is proposed for M slots, ordered by item, then slot.

    Attributes
    ----------
    row : position of the item, int64.
    slot : `WHOLE` or a class id, int64.
    before : class that was given, `ABSENT` or `UNSAID`, int64.
    after : class that is proposed, or `ABSENT`, int64; also where nothing is done about it.
    action : `Action`, uint8.
    rule : position among the rules, uint8.
    p_after, p_before : belief in either, float64; NaN where it is not known.
    p_next : belief in the most believed answer other than `after`, float64.
    """

    row: np.ndarray
    slot: np.ndarray
    before: np.ndarray
    after: np.ndarray
    action: np.ndarray
    rule: np.ndarray
    p_after: np.ndarray
    p_before: np.ndarray
    p_next: np.ndarray

    @property
    def is_change(self) -> np.ndarray:
        """Whether the action changes a label; bool, shape (M,)."""
        return np.asarray(_IS_CHANGE[self.action])

    @property
    def leaves(self) -> np.ndarray:
        """Whether the action takes an item out of the class that was given; bool, shape (M,)."""
        return np.asarray(_LEAVES[self.action] & (self.before >= 0))


def labels(
    belief: np.ndarray, given: np.ndarray, action: np.ndarray, rule: np.ndarray
) -> Proposals:
    """Return proposals about the whole labels of N items; `after` is the most believed answer.

    `belief` is the probability of each answer, shape (N, C), `given` the columns of the given ones.

    Examples
    --------
    >>> proposals = labels(np.array([[0.25, 0.75]]), np.array([0]), np.array([1]), np.array([2]))
    >>> proposals.after.tolist(), proposals.p_after.tolist(), proposals.p_next.tolist()
    ([1], [0.75], [0.25])
    """
    row = np.arange(len(given))
    after = belief.argmax(axis=1) if len(given) else np.zeros(0, np.int64)
    others = belief.copy()
    others[row, after] = 0.0
    return Proposals(
        row=row,
        slot=np.full(len(given), WHOLE),
        before=given.astype(np.int64),
        after=after,
        action=action.astype(np.uint8),
        rule=rule.astype(np.uint8),
        p_after=belief[row, after],
        p_before=belief[row, given],
        p_next=others.max(axis=1),
    )


def cells(
    row: np.ndarray,
    class_id: np.ndarray,
    is_given: np.ndarray,
    action: np.ndarray,
    rule: np.ndarray,
    p: np.ndarray,
) -> Proposals:
    """Return proposals about single classes of items, from the probability p of each not as given.

    All have shape (M,); `is_given` where the class was said to be present.
    """
    class_id, p = class_id.astype(np.int64), np.asarray(p, np.float64)
    return Proposals(
        row=row.astype(np.int64),
        slot=class_id,
        before=np.where(is_given, class_id, ABSENT),
        after=np.where(is_given, ABSENT, class_id),
        action=action.astype(np.uint8),
        rule=rule.astype(np.uint8),
        p_after=p,
        p_before=1 - p,
        p_next=1 - p,
    )


def small_classes(sizes: np.ndarray, leaving: np.ndarray, *, min_class_size: int) -> np.ndarray:
    """Return the classes that would become too small, bool, shape (K,); nothing leaves them.

    Classes now have `sizes` items, of which `leaving` would be taken out, int64, shape (K,) each.

    Examples
    --------
    >>> small_classes(np.array([50, 12, 3]), np.array([5, 4, 0]), min_class_size=10).tolist()
    [False, True, True]
    """
    return np.asarray(sizes - leaving < min_class_size)


def with_reviews(proposals: Proposals, truth: np.ndarray) -> Proposals:
    """Replace what was proposed for reviewed slots by what their reviewers said.

    That is `truth`: the class, or `ABSENT`; `NOBODY` where nobody looked. Shape (M,). Reviewed
    slots keep or change with certainty, and no limit holds them.
    """
    known = truth != NOBODY
    if not known.any():
        return proposals
    was = np.maximum(proposals.before, ABSENT)
    same = known & (truth == was)
    is_class = proposals.slot != WHOLE
    change = np.where(is_class & (proposals.before < 0), Action.ADD, Action.RELABEL)
    change = np.where(is_class & (truth == ABSENT), Action.REMOVE, change)
    action = np.where(same, Action.KEEP, change)
    # Of a class, the answer that is not as given; of a whole label, what is believed.
    after = np.where(is_class & same, proposals.after, truth)
    return proposals._replace(
        after=np.where(known, after, proposals.after),
        action=np.where(known, action, proposals.action).astype(np.uint8),
        rule=np.where(known, REVIEWED, proposals.rule).astype(np.uint8),
        p_after=np.where(known, truth == after, proposals.p_after),
        p_before=np.where(known, same, proposals.p_before),
        p_next=np.where(known, truth != after, proposals.p_next),
    )


def hold(proposals: Proposals, *, shipping: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Return which proposals the gate or the class sizes hold back, as `Held` codes; shape (M,).

    `shipping` says whether each rule's changes are made, bool, shape (R,); `small` is that of
    `small_classes`.
    """
    free = proposals.rule != REVIEWED
    held = np.zeros(len(proposals.row), np.uint8)
    held[proposals.leaves & small[np.maximum(proposals.before, 0)] & free] = Held.CLASS_SIZE
    held[proposals.is_change & ~shipping[proposals.rule] & free] = Held.GATE
    return held


def competing(proposals: Proposals, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which proposals compete for the room under the limits on changes, and on drops."""
    free = (proposals.rule != REVIEWED) & (held == Held.NO)
    return free & proposals.is_change, free & (proposals.action == Action.DROP)


def doubt(proposals: Proposals) -> np.ndarray:
    """Return how doubtful proposals are; the least doubtful come first. Shape (M,).

    Of a change, the probability that the new answer is wrong; of all else, that the given one is
    right.
    """
    return np.where(proposals.is_change, 1 - proposals.p_after, proposals.p_before)


def for_review(proposals: Proposals, held: np.ndarray, rules: Sequence[Rule]) -> np.ndarray:
    """Return which slots somebody should look at: proposed so, or held back from something else."""
    is_worth_it = np.array([rule.is_worth_a_look for rule in rules])[proposals.rule]
    return np.asarray((proposals.action == Action.REVIEW) | ((held != Held.NO) & is_worth_it))


def item_doubt(
    proposals: Proposals, pool: np.ndarray, rules: Sequence[Rule], n_items: int
) -> np.ndarray:
    """Return how doubtful it is that looking at an item is worth it; shape (N,).

    That its most suspicious slot in the pool is right as given; 0 where it is certain that it is
    not (of two copies with different labels one is surely wrong), infinite without such a slot.
    """
    is_certain = np.array([rule.is_certain for rule in rules])[proposals.rule[pool]]
    # What is not known is looked at last.
    p = np.where(is_certain, 0.0, np.nan_to_num(proposals.p_before[pool], nan=1.0))
    lowest = np.full(n_items, np.inf)
    np.minimum.at(lowest, proposals.row[pool], p)
    return lowest


def settle(
    proposals: Proposals,
    held: np.ndarray,
    pool: np.ndarray,
    in_budget: np.ndarray,
    *,
    rules: Sequence[Rule],
    small: np.ndarray,
) -> tuple[Proposals, np.ndarray]:
    """Return what is done in the end, and why not what was proposed.

    A whole label that is believed less than another class, or that nobody gave, is not trained on:
    where nobody can look at it, its item is set aside as unresolved, unless its class is too small
    to lose any, or the rule says that nothing wrong is said of it as it is.

    Parameters
    ----------
    proposals
        From `with_reviews`.
    held
        `Held` codes after all limits but the review budget, shape (M,).
    pool
        From `for_review`.
    in_budget
        Which items can be looked at, bool, shape (N,).
    rules
        All of them.
    small
        From `small_classes`, bool, shape (K,).
    """
    is_in = in_budget[proposals.row]
    is_weak = np.array([rule.is_weak for rule in rules])[proposals.rule]
    is_less = (proposals.p_after > proposals.p_before) | (proposals.before == UNSAID)
    is_disbelieved = (proposals.slot == WHOLE) & is_less
    stands_aside = is_disbelieved & ~is_weak & ~small[np.maximum(proposals.before, 0)]
    unseen = np.where(stands_aside, Action.UNRESOLVED, Action.SOFTEN)
    stays = np.array([rule.stays for rule in rules])[proposals.rule]
    unseen = np.where(stays, Action.KEEP, unseen)
    looked_at = np.where(is_in, Action.REVIEW, unseen)
    action = np.where(pool, looked_at, np.where(held != Held.NO, Action.KEEP, proposals.action))
    why = np.where(pool & ~is_in & (held == Held.NO), Held.MAX_REVIEW, held)
    return proposals._replace(action=action.astype(np.uint8)), why.astype(np.uint8)


class Outcome(NamedTuple):
    """What becomes of N items.

    Attributes
    ----------
    decision : `Decision`, uint8.
    first : position of the proposal that says most of an item, −1 without one; int64.
    n_added, n_removed, n_doubted : classes that are changed, and others that were proposed about;
        int64. 0 for items with a whole label.
    confidence : probability that the least sure of an item's slots is right as it now stands (of an
        item that is set aside: as given); 1 without a proposal, NaN where a label was changed and
        it is not known how probable it is. float64.
    weight : by how much that is more probable than any other answer, never below 0; 1 where it is
        not known, 0 for items set aside. float64.
    """

    decision: np.ndarray
    first: np.ndarray
    n_added: np.ndarray
    n_removed: np.ndarray
    n_doubted: np.ndarray
    confidence: np.ndarray
    weight: np.ndarray

    @property
    def is_aside(self) -> np.ndarray:
        """Whether an item is not trained on; bool, shape (N,)."""
        return np.isin(self.decision, SET_ASIDE)


def p_right(final: Proposals) -> np.ndarray:
    """Return how probable slots are right as they now stand; NaN where it is not known.

    Of a class that nobody said anything of, and of which nothing is done, nothing is claimed.
    """
    right = np.where(final.is_change, final.p_after, final.p_before)
    return np.where(~final.is_change & (final.before == UNSAID), np.nan, right)


def outcome(final: Proposals, n_items: int) -> Outcome:
    """Return what becomes of items, from what is done to their slots in the end (`settle`).

    Examples
    --------
    >>> action = np.array([Action.ADD, Action.KEEP])
    >>> p, is_given = np.array([0.95, 0.2]), np.array([False, True])
    >>> final = outcome(cells(np.array([1, 1]), np.array([0, 2]), is_given, action, action, p), 2)
    >>> DECISIONS[final.decision].tolist(), final.confidence.round(2).tolist()
    (['keep', 'relabel'], [1.0, 0.8])
    >>> final.weight.round(2).tolist()
    [1.0, 0.6]
    """
    row, action, changed = final.row, final.action, final.is_change

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(row[where], minlength=n_items)

    decision = np.full(n_items, Decision.KEEP, np.uint8)
    decision[row[action == Action.ABSTAIN]] = Decision.ABSTAIN
    decision[row[changed]] = Decision.RELABEL
    decision[row[action == Action.UNRESOLVED]] = Decision.UNRESOLVED
    decision[row[action == Action.DROP]] = Decision.DROP
    decision[row[action == Action.REVIEW]] = Decision.REVIEW
    is_aside = np.isin(decision, SET_ASIDE)

    # Of an item that is set aside nothing was changed yet.
    applied = changed & ~is_aside[row]
    right = np.where(applied, final.p_after, np.where(changed, final.p_before, p_right(final)))
    leads = applied | (final.after == final.before)
    margin = right - np.where(leads, final.p_next, final.p_after)
    confidence, weight = np.ones(n_items), np.ones(n_items)
    known = ~np.isnan(right)
    np.minimum.at(confidence, row[known], right[known])
    np.minimum.at(weight, row[known], np.maximum(margin[known], 0.0))
    confidence[row[applied & ~known]] = np.nan
    weight[row[applied & ~known]] = 1.0
    weight[is_aside] = 0.0

    first = np.full(n_items, -1, np.int64)
    if len(row) == n_items and np.array_equal(row, np.arange(n_items)):
        first = row
    else:
        # A change says more of an item than what stays, and the surer the more.
        order = np.lexsort((-final.p_after, ~changed, row))
        at = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
        first[row[at]] = at
    is_class = final.slot != WHOLE
    return Outcome(
        decision=decision,
        first=first,
        n_added=count(is_class & (action == Action.ADD)),
        n_removed=count(is_class & (action == Action.REMOVE)),
        n_doubted=count(is_class & ~changed & ~(final.p_after == 0)),
        confidence=confidence,
        weight=weight,
    )


def reason(
    rule: Rule,
    held: Held,
    action: Action,
    *,
    is_unsaid: bool = False,
    added: int = 0,
    removed: int = 0,
    doubted: int = 0,
) -> str:
    """Return in words why an item is treated as it is; `is_unsaid`: nobody gave it a class.

    Examples
    --------
    >>> reason(COMMON[0], Held.MAX_REVIEW, Action.KEEP, added=2, doubted=1)
    '2 labels added; 1 label in doubt; not reviewed: max_review is reached'
    """
    parts = [
        f"{n} label{'s' if n != 1 else ''} {what}"
        for n, what in ((added, "added"), (removed, "removed"), (doubted, "in doubt"))
        if n
    ]
    parts = parts or [rule.text]
    if held != Held.NO:
        parts.append(HELD_TEXT[held])
    if action == Action.REVIEW:
        parts.append("set aside for review")
    elif action == Action.UNRESOLVED:
        why = "nobody said which class it has" if is_unsaid else "another class is believed more"
        parts.append(f"set aside as unresolved: {why}")
    elif action == Action.SOFTEN:
        parts.append("label kept with a lower weight")
    elif action == Action.ABSTAIN:
        parts.append("undecided; label kept with a lower weight")
    return "; ".join(parts)


def reasons(
    final: Proposals, held: np.ndarray, items: Outcome, rules: Sequence[Rule]
) -> tuple[list[str], np.ndarray]:
    """Return all different reasons (of `settle` and `outcome`), and which one each item has."""
    is_whole = of_first(final.slot, items, fill=0) == WHOLE
    waits = np.where(items.decision == Decision.REVIEW, Action.REVIEW, Action.KEEP)
    codes = np.stack(
        [
            of_first(final.rule, items, fill=NO_ISSUE),
            of_first(held, items, fill=Held.NO),
            np.where(is_whole, of_first(final.action, items, fill=0), waits),
            of_first(final.before == UNSAID, items, fill=False),
            items.n_added,
            items.n_removed,
            items.n_doubted,
        ]
    ).astype(np.int64)
    # There are few different ones, so each is worded once.
    code = np.ravel_multi_index(tuple(codes), tuple(codes.max(axis=1, initial=0) + 1))
    _, at, of_item = np.unique(code, return_index=True, return_inverse=True)
    texts = [
        reason(
            rules[r],
            Held(h),
            Action(a),
            is_unsaid=bool(unsaid),
            added=add,
            removed=remove,
            doubted=doubt_,
        )
        for r, h, a, unsaid, add, remove, doubt_ in codes[:, at].T.tolist()
    ]
    return texts, of_item


def of_first(values: np.ndarray, items: Outcome, *, fill: int) -> np.ndarray:
    """Return a value of each item's first proposal; `fill` without one. Shape (N,)."""
    return np.asarray(np.append(values, np.array(fill, values.dtype))[items.first])
