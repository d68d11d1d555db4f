"""What reviewers said, brought to the slots that a model proposes something about."""

import numpy as np

from labelops.decisions import ABSENT, NO_ISSUE, NOBODY, WHOLE, Action, Proposals, cells
from labelops.ragged import owners
from pipelines.core.stage import Context, Reduce
from pipelines.labels.reference import ONE, TRUE, match_reference, reference_sets
from pipelines.labels.space import LabelSpace, given_sets
from pipelines.storage.frame import Frame

SETTING = "reviewed"


def _wanted(space: LabelSpace) -> str:
    return ONE if space.is_whole else TRUE


def match(space: LabelSpace) -> Reduce:
    """Return the step that counts how many reviewed items the data has, and says so."""
    return match_reference(SETTING, "reviewed ids", wanted=_wanted(space))


def reviewed_classes(frame: Frame, ctx: Context) -> np.ndarray:
    """Return the class that a reviewer gave each item, of which each has one; −1 without one.

    Its settings must have `reviewed`, which may be None.
    """
    classes = np.full(frame.n, -1, np.int64)
    if getattr(ctx.config, SETTING) is not None:
        known, reviews = reference_sets(SETTING, frame["item_id"], ctx, wanted=ONE)
        classes[known] = reviews.ids
    return classes


def bring_in(
    proposals: Proposals, space: LabelSpace, frame: Frame, ctx: Context
) -> tuple[Proposals, np.ndarray]:
    """Return proposals and what reviewers said of them, with slots in which they said otherwise.

    Parameters
    ----------
    proposals
        What the model proposes for a shard.
    space
        The kind of label that is decided about.

    Returns
    -------
    Proposals, ordered by item and slot; and the truth of each, as for
    `labelops.decisions.with_reviews`.
    """
    if _wanted(space) == ONE:
        truth = reviewed_classes(frame, ctx)
        return proposals, np.where(truth < 0, NOBODY, truth)[proposals.row]
    known, reviews = reference_sets(SETTING, frame["item_id"], ctx, wanted=_wanted(space))
    n_classes, given = ctx.n_classes, given_sets(frame, ctx)
    yes = _keys(reviews.ids, reviews.start, known, n_classes)
    listed = _keys(given.ids, given.start, np.arange(frame.n), n_classes)
    proposed = proposals.row * n_classes + proposals.slot
    if reviews.negative_ids is None or reviews.negative_start is None:
        # A class that is not listed is not there.
        mine = np.isin(listed // n_classes, known)
        no = np.setdiff1d(np.union1d(listed[mine], proposed), yes)
        no = no[np.isin(no // n_classes, known)]
    else:
        no = _keys(reviews.negative_ids, reviews.negative_start, known, n_classes)
    more = np.concatenate([np.setdiff1d(yes, listed), np.intersect1d(no, listed)])
    more = np.setdiff1d(more, proposed)
    merged = _with(proposals, more, np.isin(more, listed), n_classes)
    key = merged.row * n_classes + merged.slot
    truth = np.where(np.isin(key, no), ABSENT, NOBODY)
    return merged, np.where(np.isin(key, yes), merged.slot, truth)


def _keys(ids: np.ndarray, start: np.ndarray, row: np.ndarray, n_classes: int) -> np.ndarray:
    return np.asarray(row[owners(start)] * n_classes + ids.astype(np.int64))


def _with(proposals: Proposals, key: np.ndarray, is_given: np.ndarray, n_classes: int) -> Proposals:
    """Return proposals with some more, of which the model proposes nothing."""
    keep, rule = np.full(len(key), Action.KEEP), np.full(len(key), NO_ISSUE)
    more = cells(key // n_classes, key % n_classes, is_given, keep, rule, np.zeros(len(key)))
    both = Proposals(*(np.concatenate(pair) for pair in zip(proposals, more, strict=True)))
    assert not (both.slot == WHOLE).any()
    order = np.lexsort((both.slot, both.row))
    return Proposals(*(column[order] for column in both))
