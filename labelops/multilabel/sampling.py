"""A sample of cells to learn from, chosen by hashes: the same however the data is cut.

Three kinds of cells, each with a share of its own: those given, those ruled out though the model
says otherwise, and the many that are ruled out with its consent.
"""

from typing import NamedTuple

import numpy as np

from labelops.hashing import hash_integers, is_drawn
from labelops.multilabel.cells import Cells, concatenate
from labelops.multilabel.labels import LabelSets, states
from labelops.ragged import owners

# M cells, n items, K classes

GIVEN, CONTRADICTED, AGREED = range(3)

_ODD = np.uint64(0x9E3779B97F4A7C15)


class Shares(NamedTuple):
    """What share of each kind of cells is drawn, in [0, 1]."""

    given: float
    contradicted: float
    agreed: float


def shares_of(n_given: int, n_contradicted: int, n_ruled_out: int, *, wanted: int) -> Shares:
    """Return the shares at which about `wanted` cells of each kind are drawn, or all.

    Examples
    --------
    >>> shares_of(100, 50, 1050, wanted=100)
    Shares(given=1.0, contradicted=1.0, agreed=0.1)
    """
    counts = n_given, n_contradicted, n_ruled_out - n_contradicted
    return Shares(*(min(1.0, wanted / max(n, 1)) for n in counts))


def cell_hash(item_hash: np.ndarray, class_id: np.ndarray) -> np.ndarray:
    """Return hashes of cells from those of their items; uint64, shape (M,)."""
    mixed = item_hash ^ ((class_id.astype(np.uint64) + np.uint64(1)) * _ODD)
    return hash_integers(mixed.view(np.int64))


def draw(
    probs: np.ndarray, labels: LabelSets, hashes: np.ndarray, disagreeing: Cells, shares: Shares
) -> tuple[Cells, np.ndarray]:
    """Return the drawn cells of a block, and of which kind each is.

    Parameters
    ----------
    probs, labels, hashes
        Of the items of the block; hashes uint64, shape (n,).
    disagreeing
        Cells of the block that the model contradicts.
    shares
        From `shares_of`, of all items.

    Returns
    -------
    Cells by kind, and the kinds, shape (M,).

    Notes
    -----
    O(labels + drawn cells): cells that are agreed upon are drawn class by class for an item, some
    of them twice, and those that turn out to be another kind are put back.
    """
    row, class_id = owners(labels.start), labels.ids.astype(np.int64)
    mine = is_drawn(cell_hash(hashes[row], class_id), share=shares.given)
    row, class_id = row[mine], class_id[mine]
    given = Cells(row, class_id, np.ones(len(row), bool), np.asarray(probs[row, class_id]))
    against = disagreeing.choose(~disagreeing.is_given)
    key = cell_hash(hashes[against.row], against.class_id)
    contradicted = against.choose(is_drawn(key, share=shares.contradicted))
    agreed = _draw_agreed(probs, labels, hashes, against, shares.agreed)
    parts = given, contradicted, agreed
    kind = np.repeat([GIVEN, CONTRADICTED, AGREED], [len(part.row) for part in parts])
    return concatenate(parts), kind


def _draw_agreed(
    probs: np.ndarray, labels: LabelSets, hashes: np.ndarray, against: Cells, share: float
) -> Cells:
    n_classes = labels.n_classes
    if labels.negative_ids is not None and labels.negative_start is not None:
        row, class_id = owners(labels.negative_start), labels.negative_ids.astype(np.int64)
        mine = is_drawn(cell_hash(hashes[row], class_id), share=share)
        row, class_id = row[mine], class_id[mine]
    elif share >= 1.0:
        row, class_id = np.nonzero(states(labels) == 0)
    else:
        # Each draw takes one of the K cells of an item; together they take the share of them.
        n_draws = max(1, int(np.ceil(share * n_classes)))
        row = np.repeat(np.arange(len(hashes)), n_draws)
        turn = np.tile(np.arange(n_draws), len(hashes)) + n_classes
        key = cell_hash(hashes[row], turn)
        mine = is_drawn(key, share=share * n_classes / n_draws)
        low = (key[mine] & np.uint64(0xFFFFFFFF)) * np.uint64(n_classes)
        row, class_id = row[mine], (low >> np.uint64(32)).astype(np.int64)
    cell = row * n_classes + class_id
    known = np.concatenate(
        [owners(labels.start) * n_classes + labels.ids, against.row * n_classes + against.class_id]
    )
    free = ~np.isin(cell, known)
    row, class_id = row[free], class_id[free]
    return Cells(row, class_id, np.zeros(len(row), bool), np.asarray(probs[row, class_id]))
