"""The confusion of given and believed classes, in the forms that a page can show."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from labelops.confident.latent import Matrix
from pipelines.report import model
from pipelines.report.limits import Limits

# K classes; the joint holds estimated items, row = given class, column = believed class; sparse, as
# of many classes most pairs have no item

SHOWN_FROM = 0.5
"""A confusion of fewer than half an item is none."""


def wrong_only(joint: Matrix) -> sparse.csr_array:
    """Return the joint without its diagonal of right labels."""
    found = sparse.coo_array(joint)
    off = found.coords[0] != found.coords[1]
    coords = tuple(ids[off] for ids in found.coords)
    return sparse.csr_array((found.data[off].astype(np.float64), coords), shape=found.shape)


def _largest_first(wrong: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and items of all pairs, most items first; ties by class ids."""
    found = sparse.coo_array(wrong)
    rows, columns = found.coords
    order = np.lexsort((columns, rows, -found.data))
    return rows[order], columns[order], found.data[order]


def ranked(
    joint: Matrix,
    names: Sequence[str],
    flagged: Mapping[tuple[int, int], int] | None,
    limits: Limits,
) -> tuple[model.Confusion, ...]:
    """Suspected confusions, most estimated items first; ties by class ids."""
    n_given = joint.sum(axis=1)
    pairs = zip(*(part.tolist() for part in _largest_first(wrong_only(joint))), strict=True)
    return tuple(
        model.Confusion(
            given=names[i],
            believed=names[j],
            items=float(items),
            share_of_given=float(items / max(n_given[i], 1e-9)),
            flagged=None if flagged is None else flagged.get((i, j), 0),
        )
        for i, j, items in itertools.islice(pairs, limits.confusions)
        if items >= SHOWN_FROM
    )


def table(joint: Matrix, names: Sequence[str], limits: Limits) -> model.ConfusionTable:
    """All cells, or for many classes those of the most confused ones with the others summed."""
    whole = sparse.csr_array(joint)
    if len(names) <= limits.table_classes:
        return model.ConfusionTable(classes=tuple(names), items=_rows(whole.toarray()))
    picked = _most_confused(wrong_only(joint), limits.part_classes)
    # Classes that are not picked are summed in one row and column at the end.
    place = np.full(len(names), picked.size)
    place[picked] = np.arange(picked.size)
    found = sparse.coo_array(whole)
    part = np.zeros((picked.size + 1, picked.size + 1))
    np.add.at(part, (place[found.coords[0]], place[found.coords[1]]), found.data)
    n_others = len(names) - picked.size
    listed = (*(names[c] for c in picked.tolist()), f"{n_others:,} others")
    return model.ConfusionTable(classes=listed, items=_rows(part), is_part=True)


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.astype(np.float64).tolist())


def _most_confused(wrong: sparse.csr_array, most: int) -> np.ndarray:
    """Classes of the largest confusions, so that what is confused stands in one table."""
    rows, columns, _ = _largest_first(wrong)
    # A few times more pairs than classes always name enough of them; the first classes fill up.
    pairs = np.stack([rows, columns], axis=1)[: most * most].ravel().tolist()
    picked = dict.fromkeys([*pairs, *range(most)])
    return np.array(sorted(list(picked)[:most]), np.int64)


def coarse(joint: Matrix, limits: Limits) -> model.ConfusionMap | None:
    """A picture of all classes in blocks; None where the table shows them all."""
    k = joint.shape[0]
    if k <= limits.table_classes:
        return None
    width = -(-k // limits.map_blocks)
    side = -(-k // width)
    found = sparse.coo_array(wrong_only(joint))
    block = (found.coords[0] // width) * side + found.coords[1] // width
    blocks = np.bincount(block, found.data, minlength=side * side).reshape(side, side)
    return model.ConfusionMap(n_classes=k, classes_per_block=width, wrong=_rows(blocks))
