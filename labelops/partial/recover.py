"""What is proposed about unlabelled items: to be positive, or to be looked at."""

# N items, R rules

from typing import NamedTuple

import numpy as np

from labelops.decisions import COMMON, NO_ISSUE, UNSAID, WHOLE, Action, Proposals, Rule, bands

NEGATIVE, POSITIVE = 0, 1


class RecoverPolicy(NamedTuple):
    """From which probability on something is done about unlabelled items.

    Attributes
    ----------
    recover_confidence : cautious probability of being positive, from which the item is labelled so.
    review_confidence : probability of it, from which people should look.
    """

    recover_confidence: float
    review_confidence: float


FIXED_RULES = (
    *COMMON,
    Rule("positive-unsure", "unlabelled, and perhaps positive", stays=True),
    Rule(
        "positive-weak",
        "unlabelled, and perhaps positive, but labelled positives are no random draw",
        stays=True,
    ),
)
UNSURE, WEAK, ON_REVIEWS = range(2, 5)


def rules(policy: RecoverPolicy) -> tuple[Rule, ...]:
    """Return all rules; those that label items come last, one a band.

    Examples
    --------
    >>> [rule.name for rule in rules(RecoverPolicy(0.95, 0.5)) if rule.changes]
    ['recover-unsure', 'recover-0.95', 'recover-0.99']
    """
    unsure = Rule(
        "recover-unsure",
        f"unlabelled, and positive with a probability of at least {policy.recover_confidence:g}, "
        "if there are positives only where scores are highest",
        changes=True,
        must_be_measured=True,
        stays=True,
    )
    recovering = (
        Rule(
            f"recover-{edge:g}",
            f"unlabelled, and positive with a probability of at least {edge:g}, by the lower end "
            "of the class prior",
            changes=True,
            stays=True,
        )
        for edge in bands(policy.recover_confidence)
    )
    return (*FIXED_RULES, unsure, *recovering)


def propose(
    p: np.ndarray,
    cautious: np.ndarray,
    state: np.ndarray,
    *,
    is_weak: bool,
    policy: RecoverPolicy,
) -> Proposals:
    """Propose an action for every unlabelled item that may be positive.

    Parameters
    ----------
    p, cautious
        Probability of being positive, by the class prior and by its lower end, shape (N,).
    state
        1 labelled positive, 0 known not to be, −1 unlabelled, shape (N,).
    is_weak
        Whether probabilities are not to be believed: then people have the last word everywhere.
    policy
        What to do about it.

    Returns
    -------
    One proposal an item: that it is positive, if it is unlabelled; others stay as they are.

    Examples
    --------
    >>> found = propose(
    ...     np.array([0.97, 0.6, 0.1, 1.0]), np.array([0.93, 0.5, 0.0, 1.0]),
    ...     np.array([-1, -1, -1, 1]), is_weak=False, policy=RecoverPolicy(0.9, 0.5))
    >>> [Action(a).name for a in found.action], found.row.tolist()
    (['RELABEL', 'REVIEW', 'KEEP', 'KEEP'], [0, 1, 2, 3])
    """
    row, is_open = np.arange(len(state)), np.asarray(state) < 0
    p, cautious = p.astype(np.float64), cautious.astype(np.float64)
    action = np.full(len(row), Action.KEEP, np.uint8)
    rule = np.full(len(row), NO_ISSUE, np.uint8)
    unsure = is_open & (p >= policy.review_confidence)
    action[unsure], rule[unsure] = Action.REVIEW, WEAK if is_weak else UNSURE
    if not is_weak:
        likely = is_open & (p >= policy.recover_confidence)
        action[likely], rule[likely] = Action.RELABEL, ON_REVIEWS
        for band, edge in enumerate(bands(policy.recover_confidence)):
            sure = is_open & (cautious >= edge)
            action[sure], rule[sure] = Action.RELABEL, ON_REVIEWS + 1 + band
    # What is promised unmeasured is what the lower end of the prior promises.
    promised = np.where(rule > ON_REVIEWS, cautious, p)
    return Proposals(
        row=row,
        slot=np.full(len(row), WHOLE),
        before=np.where(is_open, UNSAID, state).astype(np.int64),
        after=np.where(is_open, POSITIVE, state).astype(np.int64),
        action=action,
        rule=rule,
        p_after=np.where(is_open, promised, 1.0),
        p_before=np.where(is_open, 1 - promised, 1.0),
        p_next=np.where(is_open, 1 - promised, 0.0),
    )
