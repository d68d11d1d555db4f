"""From belief to decision: what each item's evidence proposes, before any limit.

Every item is proposed one action by one rule. Limits (shares, review budget, class sizes, the gate)
come afterwards, since they look at all items; what they hold back is not changed but looked at, or
kept with a lower weight.
"""

# N items, K classes

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Action(IntEnum):
    """What happens to an item. SOFTEN keeps it with its label and less weight."""

    KEEP = 0
    RELABEL = 1
    DROP = 2
    REVIEW = 3
    ABSTAIN = 4
    SOFTEN = 5


DECISIONS = ("keep", "relabel", "drop", "review", "abstain", "keep")
"""The word for each action in the product."""

BANDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Changes are judged together with those of like belief; each band is a rule of its own."""


class Policy(NamedTuple):
    """What to do with each kind of suspicion.

    Attributes
    ----------
    relabel_confidence : belief in another class from which on it becomes the label.
    drop_confidence : probability that the given label is wrong from which on, where no other is
        sure enough, the item is dropped.
    label_issue : None repairs (relabel, drop or review by belief); or one action for all.
    duplicate_conflict : for items whose copy has another label, unless the belief in theirs is
    high. near_duplicate : for all members of a set of duplicates but one. outlier : for items
    unlike all others.
    """

    relabel_confidence: float
    drop_confidence: float
    label_issue: Action | None
    duplicate_conflict: Action
    near_duplicate: Action
    outlier: Action


class Rule(NamedTuple):
    """A named reason to do something.

    Attributes
    ----------
    name : as the log and the gate call it.
    text : the reason as people read it.
    """

    name: str
    text: str


FIXED_RULES = (
    Rule("no-issue", "no issue found"),
    Rule("issue", "label issue"),
    Rule("issue-outlier", "label in doubt on an outlier, where the model's belief says little"),
    Rule("issue-improbable", "given label improbable, no other class sure enough"),
    Rule("issue-unsure", "label in doubt, belief undecided"),
    Rule("duplicate-conflict", "a duplicate of this item has another label"),
    Rule("near-duplicate", "duplicate of an item that is kept"),
    Rule("outlier", "unlike all other items"),
    Rule("reviewed", "label set by a reviewer"),
)
NO_ISSUE, ISSUE, ON_OUTLIER, IMPROBABLE, UNSURE, CONFLICT, COPY, OUTLIER, REVIEWED = range(9)


def bands(relabel_confidence: float) -> tuple[float, ...]:
    """Return the lower edges of the bands of belief in which labels are changed.

    Examples
    --------
    >>> bands(0.85)
    (0.85, 0.9, 0.95, 0.99)
    """
    return (relabel_confidence, *(edge for edge in BANDS if edge > relabel_confidence))


def rules(relabel_confidence: float) -> tuple[Rule, ...]:
    """Return all rules; those that change labels come last, one a band."""
    return FIXED_RULES + tuple(
        Rule(f"relabel-{edge:g}", f"another class believed with at least {edge:g}")
        for edge in bands(relabel_confidence)
    )


class Proposals(NamedTuple):
    """What is proposed for N items.

    Attributes
    ----------
    action : `Action`, uint8.
    rule : position in `rules`, uint8.
    new : most believed class, int32.
    p_new, p_given : belief in it and in the given class, float64.
    p_second : belief in the second most believed class, float64.
    """

    action: np.ndarray
    rule: np.ndarray
    new: np.ndarray
    p_new: np.ndarray
    p_given: np.ndarray
    p_second: np.ndarray


def propose(
    belief: np.ndarray,
    given: np.ndarray,
    *,
    is_issue: np.ndarray,
    is_conflict: np.ndarray,
    is_copy: np.ndarray,
    is_outlier: np.ndarray,
    policy: Policy,
) -> Proposals:
    """Propose an action for every item.

    To be repaired are the flagged items and those whose given class is believed less than one half:
    flags are as many as confident learning counts errors, and it counts too few where annotators
    and model err alike. On CIFAR-10N (people's errors; two models, two label sets) the F1 score of
    the flags is 0.68 to 0.92, of the beliefs 0.80 to 0.95.

    Parameters
    ----------
    belief
        From `labelops.belief.believe`, shape (N, K).
    given
        Class ids, shape (N,).
    is_issue, is_conflict, is_copy, is_outlier
        What was found, bool, shape (N,) each.
    policy
        What to do about it. Label issues come first, then conflicts, copies, outliers.

    Examples
    --------
    >>> no, keep = np.zeros(2, bool), Action.KEEP
    >>> found = propose(
    ...     np.array([[0.03, 0.97], [0.4, 0.6]]), np.array([0, 0]), is_issue=~no, is_conflict=no,
    ...     is_copy=no, is_outlier=no,
    ...     policy=Policy(0.9, 0.95, None, Action.REVIEW, keep, keep))
    >>> [Action(a).name for a in found.action], [rules(0.9)[r].name for r in found.rule]
    (['RELABEL', 'REVIEW'], ['relabel-0.95', 'issue-unsure'])
    """
    rows = np.arange(len(given))
    new = belief.argmax(axis=1).astype(np.int32) if len(given) else np.zeros(0, np.int32)
    p_new, p_given = belief[rows, new], belief[rows, given]
    others = belief.copy()
    others[rows, new] = 0.0
    p_second = others.max(axis=1)
    action = np.full(len(given), Action.KEEP, np.uint8)
    rule = np.full(len(given), NO_ISSUE, np.uint8)

    def put(where: np.ndarray, what: Action, why: int) -> None:
        action[where], rule[where] = what, why

    # From the weakest reason to the strongest; later ones overwrite.
    if policy.outlier != Action.KEEP:
        put(is_outlier, policy.outlier, OUTLIER)
    if policy.near_duplicate != Action.KEEP:
        put(is_copy, policy.near_duplicate, COPY)
    if policy.duplicate_conflict != Action.KEEP:
        # Of two copies with different labels one may well be right, and believed so.
        put(
            is_conflict & (p_given < policy.relabel_confidence), policy.duplicate_conflict, CONFLICT
        )
    if policy.label_issue is not None:
        if policy.label_issue != Action.KEEP:
            put(is_issue, policy.label_issue, ISSUE)
        return Proposals(action, rule, new, p_new, p_given, p_second)
    suspect = is_issue | (p_given < 0.5)
    put(suspect, Action.REVIEW, UNSURE)
    put(suspect & (p_given <= 1 - policy.drop_confidence), Action.DROP, IMPROBABLE)
    for band, edge in enumerate(bands(policy.relabel_confidence)):
        put(suspect & (new != given) & (p_new >= edge), Action.RELABEL, len(FIXED_RULES) + band)
    put(suspect & is_outlier, Action.REVIEW, ON_OUTLIER)
    return Proposals(action, rule, new, p_new, p_given, p_second)


def small_classes(sizes: np.ndarray, leaving: np.ndarray, *, min_class_size: int) -> np.ndarray:
    """Return the classes that would become too small; nothing leaves them.

    Parameters
    ----------
    sizes
        Items a class now has, int64, shape (K,).
    leaving
        Items of it that would be dropped or given another label, shape (K,).
    min_class_size
        How many must stay.

    Examples
    --------
    >>> small_classes(np.array([50, 12, 3]), np.array([5, 4, 0]), min_class_size=10).tolist()
    [False, True, True]
    """
    return np.asarray(sizes - leaving < min_class_size)


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
    "not changed: the gate holds this rule back",
    "not changed: max_change_share is reached",
    "not changed: its class would become too small",
    "not dropped: max_drop_share is reached",
    "not reviewed: max_review is reached",
)


def with_reviews(proposals: Proposals, given: np.ndarray, reviewed: np.ndarray) -> Proposals:
    """Replace what was proposed for reviewed items by what their reviewers said.

    Parameters
    ----------
    proposals
        From `propose`.
    given
        Class ids, shape (N,).
    reviewed
        Class ids by reviewers, −1 where nobody looked, shape (N,).

    Returns
    -------
    Proposals; those of reviewed items keep or relabel, are believed with 1, and no limit holds
    them.
    """
    known = reviewed >= 0
    same = known & (reviewed == given)
    action = np.where(known, np.where(same, Action.KEEP, Action.RELABEL), proposals.action)
    return Proposals(
        action=action.astype(np.uint8),
        rule=np.where(known, REVIEWED, proposals.rule).astype(np.uint8),
        new=np.where(known, reviewed, proposals.new).astype(np.int32),
        p_new=np.where(known, 1.0, proposals.p_new),
        p_given=np.where(known, same, proposals.p_given),
        p_second=np.where(known, 0.0, proposals.p_second),
    )


def hold(
    proposals: Proposals, given: np.ndarray, *, shipping: np.ndarray, small: np.ndarray
) -> np.ndarray:
    """Return which proposals the gate or the class sizes hold back, as `Held` codes.

    Parameters
    ----------
    proposals
        From `with_reviews`.
    given
        Class ids, shape (N,).
    shipping
        Whether each rule's changes are made, bool, one a rule.
    small
        From `small_classes`.
    """
    action, rule = proposals.action, proposals.rule
    free = rule != REVIEWED
    held = np.zeros(len(action), np.uint8)
    leaves = (action == Action.RELABEL) | (action == Action.DROP)
    held[leaves & small[given] & free] = Held.CLASS_SIZE
    held[(action == Action.RELABEL) & ~shipping[rule] & free] = Held.GATE
    return held


def competing(proposals: Proposals, held: np.ndarray, action: Action) -> np.ndarray:
    """Return which items compete for the room under an action's limit."""
    mine = (proposals.action == action) & (proposals.rule != REVIEWED)
    return np.asarray(mine & (held == Held.NO))


def doubt(proposals: Proposals, action: Action) -> np.ndarray:
    """Return how doubtful it is to do something to an item; the least doubtful come first.

    For a change: that the new class is wrong. For dropping and reviewing: that the given one is
    right; of two copies with different labels one is surely wrong, so there is no doubt.
    """
    if action == Action.RELABEL:
        return np.asarray(1 - proposals.p_new)
    return np.where(proposals.rule == CONFLICT, 0.0, proposals.p_given)


def for_review(proposals: Proposals, held: np.ndarray) -> np.ndarray:
    """Return which items somebody should look at: proposed so, or held back from something else."""
    wanted = proposals.action == Action.REVIEW
    return np.asarray(wanted | ((held != Held.NO) & (proposals.rule != COPY)))


def settle(proposals: Proposals, held: np.ndarray, in_budget: np.ndarray) -> Proposals:
    """Return what is done in the end.

    Parameters
    ----------
    proposals
        From `with_reviews`.
    held
        `Held` codes after all limits but the review budget; those of items that the budget leaves
        out are set.
    in_budget
        Which of the items for review can be looked at.
    """
    pool = for_review(proposals, held)
    action = np.where(pool, np.where(in_budget, Action.REVIEW, Action.SOFTEN), proposals.action)
    action[(held != Held.NO) & ~pool] = Action.KEEP
    held[pool & ~in_budget & (held == Held.NO)] = Held.MAX_REVIEW
    return proposals._replace(action=action.astype(np.uint8))


def outcome(proposals: Proposals, given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return clean labels, confidences and weights.

    Parameters
    ----------
    proposals
        From `settle`.
    given
        Class ids, shape (N,).

    Returns
    -------
    Class ids (−1 for items set aside), int32; the probability that this label is right (for items
    set aside: that the given one is), float32; the weight in training, float32: by how much the
    label is believed more than any other class, and 0 where another is believed more. A reviewed
    label weighs 1; an item set aside 0.

    Examples
    --------
    >>> found = propose(
    ...     np.array([[0.7, 0.2, 0.1]]), np.array([0]), is_issue=np.array([False]),
    ...     is_conflict=np.array([False]), is_copy=np.array([False]), is_outlier=np.array([False]),
    ...     policy=Policy(0.9, 0.95, None, Action.REVIEW, Action.KEEP, Action.KEEP))
    >>> label, confidence, weight = outcome(found, np.array([0]))
    >>> label.tolist(), confidence.round(2).tolist(), weight.round(2).tolist()
    ([0], [0.7], [0.5])
    """
    action = proposals.action
    aside = (action == Action.DROP) | (action == Action.REVIEW)
    changed = action == Action.RELABEL
    label = np.where(aside, -1, np.where(changed, proposals.new, given)).astype(np.int32)
    confidence = np.where(changed, proposals.p_new, proposals.p_given).astype(np.float32)
    leads = changed | (proposals.new == given)
    weight = np.where(leads, proposals.p_new - proposals.p_second, 0.0)
    return label, confidence, np.where(aside, np.float32(0), weight).astype(np.float32)


def reason(rule: Rule, held: Held, action: Action) -> str:
    """Return in words why an item is treated as it is."""
    parts = [rule.text]
    if held != Held.NO:
        parts.append(HELD_TEXT[held])
    if action == Action.REVIEW:
        parts.append("set aside for review")
    elif action == Action.SOFTEN:
        parts.append("label kept with a lower weight")
    elif action == Action.ABSTAIN:
        parts.append("no position taken, lower weight")
    return "; ".join(parts)
