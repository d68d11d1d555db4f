"""The confusion of given and believed classes, in the forms that a page can show."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.report import model
from pipelines.report.limits import Limits

# K classes; joint_KK holds estimated items, row = given class, column = believed class

SHOWN_FROM = 0.5
"""A confusion of fewer than half an item is none."""


def wrong_only(joint: np.ndarray) -> np.ndarray:
    """Return the joint without its diagonal of right labels."""
    wrong = np.array(joint, np.float64)
    np.fill_diagonal(wrong, 0.0)
    return wrong


def ranked(
    joint: np.ndarray,
    names: Sequence[str],
    flagged: Mapping[tuple[int, int], int] | None,
    limits: Limits,
) -> tuple[model.Confusion, ...]:
    """Suspected confusions, most estimated items first; ties by class ids."""
    wrong, n_given = wrong_only(joint), joint.sum(axis=1)
    rows, columns = np.nonzero(wrong >= SHOWN_FROM)
    items = wrong[rows, columns]
    order = np.lexsort((columns, rows, -items))[: limits.confusions]
    return tuple(
        model.Confusion(
            given=names[i],
            believed=names[j],
            items=float(wrong[i, j]),
            share_of_given=float(wrong[i, j] / max(n_given[i], 1e-9)),
            flagged=None if flagged is None else flagged.get((int(i), int(j)), 0),
        )
        for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    )


def table(joint: np.ndarray, names: Sequence[str], limits: Limits) -> model.ConfusionTable:
    """All cells, or for many classes those of the most confused ones with the others summed."""
    if len(names) <= limits.table_classes:
        return model.ConfusionTable(classes=tuple(names), items=_rows(joint))
    picked = _most_confused(wrong_only(joint), limits.part_classes)
    rest = np.setdiff1d(np.arange(len(names)), picked)
    part = np.zeros((picked.size + 1, picked.size + 1))
    part[:-1, :-1] = joint[np.ix_(picked, picked)]
    part[:-1, -1] = joint[np.ix_(picked, rest)].sum(axis=1)
    part[-1, :-1] = joint[np.ix_(rest, picked)].sum(axis=0)
    part[-1, -1] = joint[np.ix_(rest, rest)].sum()
    listed = (*(names[c] for c in picked.tolist()), f"{rest.size:,} others")
    return model.ConfusionTable(classes=listed, items=_rows(part), is_part=True)


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.astype(np.float64).tolist())


def _most_confused(wrong: np.ndarray, most: int) -> np.ndarray:
    """Classes of the largest confusions, so that what is confused stands in one table."""
    k = len(wrong)
    # Largest pairs first; a few times more pairs than classes always name enough of them.
    order = np.lexsort((np.arange(k * k), -wrong.ravel()))[: most * most]
    picked: dict[int, None] = {}
    for pair in order.tolist():
        for c in divmod(pair, k):
            if len(picked) < most:
                picked.setdefault(c)
    return np.array(sorted(picked), np.int64)


def coarse(joint: np.ndarray, limits: Limits) -> model.ConfusionMap | None:
    """A picture of all classes in blocks; None where the table shows them all."""
    k = len(joint)
    if k <= limits.table_classes:
        return None
    width = -(-k // limits.map_blocks)
    starts = np.arange(0, k, width)
    blocks = np.add.reduceat(np.add.reduceat(wrong_only(joint), starts, 0), starts, 1)
    return model.ConfusionMap(n_classes=k, classes_per_block=width, wrong=_rows(blocks))
