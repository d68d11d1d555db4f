"""What is proposed about items with one label each, by belief and by what was found of them."""

# N items, C classes that are looked at

from typing import NamedTuple

import numpy as np

from labelops.decisions import COMMON, NO_ISSUE, Action, Proposals, Rule, bands, labels


class Policy(NamedTuple):
    """What to do with each kind of suspicion.

    Attributes
    ----------
    relabel_confidence : cautious belief in another class from which on it becomes the label.
    drop_confidence : likewise, that the given label is wrong, from which on the item is dropped
        where no other class is sure enough.
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


FIXED_RULES = (
    *COMMON,
    Rule("issue", "label issue"),
    Rule(
        "issue-outlier",
        "label in doubt, but the item is an outlier, where predictions are unreliable",
    ),
    Rule("issue-improbable", "given label improbable, no other class probable enough"),
    Rule("issue-unsure", "label in doubt, no class probable enough to decide"),
    Rule("duplicate-conflict", "a duplicate of this item has another label", is_certain=True),
    Rule("near-duplicate", "duplicate of an item that is kept", is_worth_a_look=False),
    Rule("outlier", "outlier: far from all other items"),
    Rule("issue-weak", "label in doubt, but the model is too weak to tell", is_weak=True),
)
ISSUE, ON_OUTLIER, IMPROBABLE, UNSURE, CONFLICT, COPY, OUTLIER, WEAK, ON_REVIEWS = range(2, 11)

FLAG_WEIGHT = 0.2
"""Of the flag in `p_wrong`; chosen on CIFAR-10N and tables with planted noise. With less of it the
probability misses errors that hit hard items, with more it is little else."""


def p_wrong(belief_in_given: np.ndarray, is_issue: np.ndarray) -> np.ndarray:
    """Return the probability that given labels are wrong: ⅘ (1 − belief) + ⅕ flagged.

    Flags of confident learning and beliefs err in different places: a belief depends on how much
    noise there is, a flag on how classes compare.

    Parameters
    ----------
    belief_in_given
        Belief in the given class, in [0, 1], shape (N,).
    is_issue
        Flags, bool, shape (N,).

    Examples
    --------
    >>> p_wrong(np.array([0.5, 0.5]), np.array([True, False])).round(2).tolist()
    [0.6, 0.4]
    """
    return np.asarray((1 - FLAG_WEIGHT) * (1 - belief_in_given) + FLAG_WEIGHT * is_issue)


def rules(relabel_confidence: float) -> tuple[Rule, ...]:
    """Return all rules; those that change labels come last, one a band.

    Examples
    --------
    >>> [rule.name for rule in rules(0.95) if rule.changes]
    ['relabel-unsure', 'relabel-0.95', 'relabel-0.99']
    """
    unsure = Rule(
        "relabel-unsure",
        f"another class has a probability of at least {relabel_confidence:g}, unless labels are "
        "wrong at random",
        changes=True,
        must_be_measured=True,
    )
    bands_of_belief = (
        Rule(
            f"relabel-{edge:g}",
            f"another class has a probability of at least {edge:g}",
            changes=True,
        )
        for edge in bands(relabel_confidence)
    )
    return (*FIXED_RULES, unsure, *bands_of_belief)


def propose(
    belief: np.ndarray,
    cautious: np.ndarray,
    given: np.ndarray,
    *,
    is_issue: np.ndarray,
    is_conflict: np.ndarray,
    is_copy: np.ndarray,
    is_outlier: np.ndarray,
    is_weak: bool = False,
    policy: Policy,
) -> Proposals:
    """Propose an action for every item.

    To be repaired are the flagged items and those whose given class is believed less than one half:
    flags are as many as confident learning counts errors, and it counts too few where annotators
    and model err alike. On CIFAR-10N (people's errors; two models, two label sets) the F1 score of
    the flags is 0.68 to 0.92, of the beliefs 0.80 to 0.95.

    Parameters
    ----------
    belief, cautious
        From `labelops.belief.believe`, shape (N, C) each. Labels are changed and items dropped
        where the cautious one says so; where only the other does, people have the last word.
    given
        Columns of the given classes in it, shape (N,).
    is_issue, is_conflict, is_copy, is_outlier
        What was found, bool, shape (N,) each.
    is_weak
        Whether the model is too weak to be believed: then people have the last word everywhere.
    policy
        What to do about it. Label issues come first, then conflicts, copies, outliers.

    Returns
    -------
    N proposals; `before` and `after` (the most believed answer) are columns of `belief`.

    Examples
    --------
    >>> no, keep = np.zeros(2, bool), Action.KEEP
    >>> proposals = propose(
    ...     np.array([[0.03, 0.97], [0.4, 0.6]]), np.array([[0.03, 0.97], [0.4, 0.6]]),
    ...     np.array([0, 0]), is_issue=~no, is_conflict=no, is_copy=no, is_outlier=no,
    ...     policy=Policy(0.9, 0.95, None, Action.REVIEW, keep, keep))
    >>> [Action(a).name for a in proposals.action], [rules(0.9)[r].name for r in proposals.rule]
    (['RELABEL', 'REVIEW'], ['relabel-0.95', 'issue-unsure'])
    """
    action = np.full(len(given), Action.KEEP, np.uint8)
    rule = np.full(len(given), NO_ISSUE, np.uint8)
    proposals = labels(belief, given, action, rule)
    new, p_new, p_given = proposals.after, proposals.p_after, proposals.p_before
    c_new, c_given = cautious[proposals.row, new], cautious[proposals.row, given]

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
    if policy.label_issue is None:
        suspect = is_issue | (p_given < 0.5)
        put(suspect, Action.REVIEW, WEAK if is_weak else UNSURE)
        put(suspect & (c_given <= 1 - policy.drop_confidence), Action.DROP, IMPROBABLE)
        other = suspect & (new != given)
        if not is_weak:
            put(other & (p_new >= policy.relabel_confidence), Action.RELABEL, ON_REVIEWS)
        for band, edge in enumerate(bands(policy.relabel_confidence)):
            put(other & (c_new >= edge), Action.RELABEL, ON_REVIEWS + 1 + band)
        put(suspect & is_outlier, Action.REVIEW, WEAK if is_weak else ON_OUTLIER)
        # What is promised of a change that nobody measures is what the cautious belief promises.
        sure = rule > ON_REVIEWS
        p_new[sure], p_given[sure] = c_new[sure], c_given[sure]
    elif policy.label_issue != Action.KEEP:
        put(is_issue, policy.label_issue, ISSUE)
    return proposals._replace(action=action, rule=rule)
