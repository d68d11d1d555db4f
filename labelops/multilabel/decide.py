"""From belief to decision where items have several classes: add, remove, or look again.

Every flagged cell (an item and a class) is proposed one action by one rule. Limits come afterwards,
since they look at all items; what they hold back is not changed but looked at, or kept with a lower
weight. What becomes of an item follows from its cells.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from labelops.decide import BANDS, HELD_TEXT, Held, Rule

# M cells, N items

ALLOWANCE = 0.7
"""So much less than expected a rule may gain per change: 0.35 fewer changes may be right than
promised. Where labels were spoiled in known ways that held on scene and yeast, but not always on
emotions (400 items) and corel5k (`benchmarks/multilabel_efficacy.py`): only reviewed items tell. A
rule that promises less than 0.85 never ships unmeasured."""


class LabelAction(IntEnum):
    """What happens to a cell."""

    KEEP = 0
    ADD = 1
    REMOVE = 2
    REVIEW = 3


class LabelPolicy(NamedTuple):
    """From which probability on something is done.

    Attributes
    ----------
    add_confidence : that a class is present which was not given.
    remove_confidence : that a given class is wrong.
    review_confidence : of either, for a person to look at it.
    """

    add_confidence: float
    remove_confidence: float
    review_confidence: float


FIXED_RULES = (
    Rule("no-issue", "no issue found"),
    Rule("missing-improbable", "a class might be missing, improbable"),
    Rule("wrong-improbable", "a given class might be wrong, improbable"),
    Rule("missing-unsure", "a class may be missing"),
    Rule("wrong-unsure", "a given class may be wrong"),
    Rule("reviewed", "labels set by a reviewer"),
)
NO_ISSUE, MISSING_LOW, WRONG_LOW, MISSING_UNSURE, WRONG_UNSURE, REVIEWED = range(6)


def bands(confidence: float) -> tuple[float, ...]:
    """Return the lower edges of the bands of belief in which labels are changed."""
    return (confidence, *(edge for edge in BANDS if edge > confidence))


def rules(policy: LabelPolicy) -> tuple[Rule, ...]:
    """Return all rules; those that change labels come last, one a band: added ones, then removed.

    Examples
    --------
    >>> [rule.name for rule in rules(LabelPolicy(0.95, 0.99, 0.5))[6:]]
    ['add-0.95', 'add-0.99', 'remove-0.99']
    """
    adding = (
        Rule(f"add-{edge:g}", f"a missing class is present with at least {edge:g}")
        for edge in bands(policy.add_confidence)
    )
    removing = (
        Rule(f"remove-{edge:g}", f"a given class is wrong with at least {edge:g}")
        for edge in bands(policy.remove_confidence)
    )
    return (*FIXED_RULES, *adding, *removing)


class LabelProposals(NamedTuple):
    """What is proposed for M cells.

    Attributes
    ----------
    action : `LabelAction`, uint8.
    rule : position in `rules`, uint8.
    p : probability that the cell is not as given, float64.
    """

    action: np.ndarray
    rule: np.ndarray
    p: np.ndarray


def propose(p: np.ndarray, is_given: np.ndarray, *, policy: LabelPolicy) -> LabelProposals:
    """Propose an action for every flagged cell.

    Parameters
    ----------
    p
        Probability that the cell is not as given, shape (M,).
    is_given
        Whether its class was said to be present, shape (M,).
    policy
        What to do about it.

    Examples
    --------
    >>> policy = LabelPolicy(0.9, 0.95, 0.5)
    >>> found = propose(np.array([0.96, 0.92, 0.3]), np.array([False, True, True]), policy=policy)
    >>> [LabelAction(a).name for a in found.action], [rules(policy)[r].name for r in found.rule]
    (['ADD', 'REVIEW', 'KEEP'], ['add-0.95', 'wrong-unsure', 'wrong-improbable'])
    """
    action = np.full(len(p), LabelAction.KEEP, np.uint8)
    rule = np.where(is_given, WRONG_LOW, MISSING_LOW).astype(np.uint8)

    def put(where: np.ndarray, what: LabelAction, why: int) -> None:
        action[where], rule[where] = what, why

    unsure = p >= policy.review_confidence
    put(unsure & ~is_given, LabelAction.REVIEW, MISSING_UNSURE)
    put(unsure & is_given, LabelAction.REVIEW, WRONG_UNSURE)
    adding, removing = bands(policy.add_confidence), bands(policy.remove_confidence)
    first = len(FIXED_RULES)
    for band, edge in enumerate(adding):
        put(~is_given & (p >= edge), LabelAction.ADD, first + band)
    for band, edge in enumerate(removing):
        put(is_given & (p >= edge), LabelAction.REMOVE, first + len(adding) + band)
    return LabelProposals(action, rule, np.asarray(p, np.float64))


def is_change(action: np.ndarray) -> np.ndarray:
    """Return which actions change a label."""
    return np.asarray((action == LabelAction.ADD) | (action == LabelAction.REMOVE))


def with_reviews(
    proposals: LabelProposals, is_given: np.ndarray, truth: np.ndarray
) -> LabelProposals:
    """Replace what was proposed for reviewed cells by what their reviewers said.

    Parameters
    ----------
    proposals
        From `propose`.
    is_given
        Shape (M,).
    truth
        1 where a reviewer said that the class is present, 0 where that it is not, −1 where nobody
        looked, shape (M,).

    Returns
    -------
    Proposals; those of reviewed cells keep, add or remove, with certainty, and no limit holds them.
    """
    known = truth >= 0
    differs = known & (truth != is_given)
    change = np.where(is_given, LabelAction.REMOVE, LabelAction.ADD)
    action = np.where(known, np.where(differs, change, LabelAction.KEEP), proposals.action)
    return LabelProposals(
        action=action.astype(np.uint8),
        rule=np.where(known, REVIEWED, proposals.rule).astype(np.uint8),
        p=np.where(known, differs, proposals.p).astype(np.float64),
    )


def hold(
    proposals: LabelProposals, class_id: np.ndarray, *, shipping: np.ndarray, small: np.ndarray
) -> np.ndarray:
    """Return which changes the gate or the class sizes hold back, as `labelops.decide.Held` codes.

    Parameters
    ----------
    proposals
        From `with_reviews`.
    class_id
        Shape (M,).
    shipping
        Whether each rule's changes are made, bool, one a rule.
    small
        From `labelops.decide.small_classes`: no label of these is removed.
    """
    free = proposals.rule != REVIEWED
    held = np.zeros(len(class_id), np.uint8)
    held[(proposals.action == LabelAction.REMOVE) & small[class_id] & free] = Held.CLASS_SIZE
    held[is_change(proposals.action) & ~shipping[proposals.rule] & free] = Held.GATE
    return held


def competing(proposals: LabelProposals, held: np.ndarray) -> np.ndarray:
    """Return which changes compete for the room under the limit on changes."""
    mine = is_change(proposals.action) & (proposals.rule != REVIEWED)
    return np.asarray(mine & (held == Held.NO))


def is_open(proposals: LabelProposals, held: np.ndarray) -> np.ndarray:
    """Return which cells somebody should look at: proposed so, or held back from a change."""
    return np.asarray((proposals.action == LabelAction.REVIEW) | (held != Held.NO))


def item_doubt(row: np.ndarray, p: np.ndarray, is_open: np.ndarray, n_items: int) -> np.ndarray:
    """Return how doubtful it is that looking at an item is worth it; infinite without open cells.

    One minus the probability that its most suspicious open cell is not as given.
    """
    doubt = np.full(n_items, np.inf)
    np.minimum.at(doubt, row[is_open], 1 - p[is_open])
    return doubt


def settle(
    proposals: LabelProposals, held: np.ndarray, in_budget: np.ndarray
) -> tuple[LabelProposals, np.ndarray]:
    """Return what is done in the end, and why not what was proposed.

    Parameters
    ----------
    proposals
        From `with_reviews`.
    held
        `Held` codes after all limits but the review budget.
    in_budget
        Whether the item of each cell can be looked at, shape (M,).
    """
    pool, held = is_open(proposals, held), held.copy()
    action = np.where(
        pool, np.where(in_budget, LabelAction.REVIEW, LabelAction.KEEP), proposals.action
    )
    held[pool & ~in_budget & (held == Held.NO)] = Held.MAX_REVIEW
    return proposals._replace(action=action.astype(np.uint8)), held


class Outcome(NamedTuple):
    """What becomes of N items.

    Attributes
    ----------
    is_review : waits for a person; bool.
    n_added, n_removed, n_doubted : changed labels, and flagged ones that stay; int64.
    confidence : probability that the least sure of its flagged labels is right as it now stands (of
        an item that waits: as given); 1 without a flagged label. float32.
    weight : by how much that is more probable than not, never below 0; 0 for items that wait.
    cell : position of the cell that decides, −1 without one; int64.
    """

    is_review: np.ndarray
    n_added: np.ndarray
    n_removed: np.ndarray
    n_doubted: np.ndarray
    confidence: np.ndarray
    weight: np.ndarray
    cell: np.ndarray


def outcome(final: LabelProposals, row: np.ndarray, n_items: int) -> Outcome:
    """Return what becomes of items, from their cells.

    Parameters
    ----------
    final
        From `settle`.
    row
        Item of each cell, ascending, shape (M,).
    n_items
        N.

    Examples
    --------
    >>> policy = LabelPolicy(0.9, 0.9, 0.5)
    >>> cells = propose(np.array([0.95, 0.2]), np.array([False, True]), policy=policy)
    >>> found = outcome(cells, np.array([1, 1]), 2)
    >>> found.n_added.tolist(), found.confidence.round(2).tolist(), found.weight.round(2).tolist()
    ([0, 1], [1.0, 0.8], [1.0, 0.6])
    """
    changed = is_change(final.action)

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(row[where], minlength=n_items)

    is_review = count(final.action == LabelAction.REVIEW) > 0
    # Of an item that waits nothing was changed yet.
    right = np.where(changed & ~is_review[row], final.p, 1 - final.p)
    confidence = np.ones(n_items)
    np.minimum.at(confidence, row, right)
    # A change says more of an item than what stays, and the surer the more.
    order = np.lexsort((-final.p, ~changed, row))
    cell = np.full(n_items, -1, np.int64)
    first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    cell[row[first]] = first
    weight = np.where(is_review, 0.0, np.maximum(2 * confidence - 1, 0.0))
    return Outcome(
        is_review=is_review,
        n_added=count(final.action == LabelAction.ADD),
        n_removed=count(final.action == LabelAction.REMOVE),
        n_doubted=count(~changed & (final.p > 0)),
        confidence=confidence.astype(np.float32),
        weight=weight.astype(np.float32),
        cell=cell,
    )


def reason(n_added: int, n_removed: int, n_doubted: int, held: Held, *, is_review: bool) -> str:
    """Return in words why an item is treated as it is.

    Examples
    --------
    >>> reason(2, 0, 1, Held.MAX_REVIEW, is_review=False)
    '2 labels added; 1 label in doubt; not reviewed: max_review is reached'
    """
    parts = [
        f"{n} label{'s' if n != 1 else ''} {what}"
        for n, what in ((n_added, "added"), (n_removed, "removed"), (n_doubted, "in doubt"))
        if n
    ]
    if held != Held.NO:
        parts.append(HELD_TEXT[held])
    if is_review:
        parts.append("set aside for review")
    return "; ".join(parts) or FIXED_RULES[NO_ISSUE].text
