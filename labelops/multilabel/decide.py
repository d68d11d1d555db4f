"""What is proposed about items with several classes: add, remove, or look again, cell by cell."""

from typing import NamedTuple

import numpy as np

from labelops.decisions import COMMON, Action, Rule, bands

# M cells

ALLOWANCE = 0.7
"""So much less than expected a rule may gain per change: 0.35 fewer changes may be right than
promised. Where labels were spoiled in known ways that held on scene and yeast, but not always on
emotions (400 items) and corel5k (`benchmarks/multilabel_efficacy.py`): only reviewed items tell. A
rule that promises less than 0.85 never ships unmeasured."""


LEAST_CHANGES = 10
"""Fewer in all are not made unmeasured. With no label wrong, or too weak a model, a few of the
surest cells are the model's own errors: five were in `benchmarks/harm_lists.py`, twice of 90."""


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
    *COMMON,
    Rule("missing-improbable", "a class may be missing, but with low probability"),
    Rule("wrong-improbable", "a given class may be wrong, but with low probability"),
    Rule("missing-unsure", "a class may be missing"),
    Rule("wrong-unsure", "a given class may be wrong"),
)
MISSING_LOW, WRONG_LOW, MISSING_UNSURE, WRONG_UNSURE = range(2, 6)


def rules(policy: LabelPolicy) -> tuple[Rule, ...]:
    """Return all rules; those that change labels come last, one a band: added ones, then removed.

    Examples
    --------
    >>> [rule.name for rule in rules(LabelPolicy(0.95, 0.99, 0.5)) if rule.changes]
    ['add-0.95', 'add-0.99', 'remove-0.99']
    """
    adding = (
        Rule(
            f"add-{edge:g}", f"a missing class has a probability of at least {edge:g}", changes=True
        )
        for edge in bands(policy.add_confidence)
    )
    removing = (
        Rule(
            f"remove-{edge:g}",
            f"a given class is wrong with a probability of at least {edge:g}",
            changes=True,
        )
        for edge in bands(policy.remove_confidence)
    )
    return (*FIXED_RULES, *adding, *removing)


def propose(
    p: np.ndarray, is_given: np.ndarray, *, policy: LabelPolicy
) -> tuple[np.ndarray, np.ndarray]:
    """Propose an action for every flagged cell.

    Parameters
    ----------
    p
        Probability that the cell is not as given, shape (M,).
    is_given
        Whether its class was said to be present, shape (M,).
    policy
        What to do about it.

    Returns
    -------
    Actions and positions in `rules`, uint8, shape (M,) each.

    Examples
    --------
    >>> policy = LabelPolicy(0.9, 0.95, 0.5)
    >>> action, rule = propose(
    ...     np.array([0.96, 0.92, 0.3]), np.array([False, True, True]), policy=policy)
    >>> [Action(a).name for a in action], [rules(policy)[r].name for r in rule]
    (['ADD', 'REVIEW', 'KEEP'], ['add-0.95', 'wrong-unsure', 'wrong-improbable'])
    """
    action = np.full(len(p), Action.KEEP, np.uint8)
    rule = np.where(is_given, WRONG_LOW, MISSING_LOW).astype(np.uint8)

    def put(where: np.ndarray, what: Action, why: int) -> None:
        action[where], rule[where] = what, why

    unsure = p >= policy.review_confidence
    put(unsure & ~is_given, Action.REVIEW, MISSING_UNSURE)
    put(unsure & is_given, Action.REVIEW, WRONG_UNSURE)
    adding, removing = bands(policy.add_confidence), bands(policy.remove_confidence)
    first = len(FIXED_RULES)
    for band, edge in enumerate(adding):
        put(~is_given & (p >= edge), Action.ADD, first + band)
    for band, edge in enumerate(removing):
        put(is_given & (p >= edge), Action.REMOVE, first + len(adding) + band)
    return action, rule
