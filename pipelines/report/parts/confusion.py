"""The confusion of given and believed classes, in the forms that a page can show."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from labelops.confident.latent import Matrix
from pipelines.report.charts import level
from pipelines.report.limits import Limits

# K classes; the joint holds estimated items, row = given class, column = believed class; sparse, as
# of many classes most pairs have no item

SHOWN_FROM = 0.5
"""A confusion of fewer than half an item is none."""


def wrong_only(joint: Matrix) -> sparse.csr_array:
    """Return the joint without its diagonal of right labels."""
    cells = sparse.coo_array(joint)
    off = cells.coords[0] != cells.coords[1]
    coords = tuple(ids[off] for ids in cells.coords)
    return sparse.csr_array((cells.data[off].astype(np.float64), coords), shape=cells.shape)


def _largest_first(wrong: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and items of all pairs, most items first; ties by class ids."""
    cells = sparse.coo_array(wrong)
    rows, columns = cells.coords
    order = np.lexsort((columns, rows, -cells.data))
    return rows[order], columns[order], cells.data[order]


def ranked(joint: Matrix, most: int) -> list[tuple[int, int, float]]:
    """Return suspected confusions: given and believed class, estimated items; most items first."""
    pairs = zip(*(part.tolist() for part in _largest_first(wrong_only(joint))), strict=True)
    return [pair for pair in itertools.islice(pairs, most) if pair[2] >= SHOWN_FROM]


class Heat(NamedTuple):
    """Estimated items per given (row) and believed (column) class, with shades."""

    classes: tuple[str, ...]
    items: tuple[tuple[float, ...], ...]
    levels: tuple[tuple[int, ...], ...]
    is_part: bool
    """Whether only the most confused classes are shown; the last is all others together."""


def table(joint: Matrix, names: Sequence[str], limits: Limits) -> Heat:
    """All cells, or for many classes those of the most confused ones with the others summed."""
    whole = sparse.csr_array(joint)
    if len(names) <= limits.table_classes:
        return _heat(tuple(names), whole.toarray())
    picked = _most_confused(wrong_only(joint), limits.part_classes)
    # Classes that are not picked are summed in one row and column at the end.
    place = np.full(len(names), picked.size)
    place[picked] = np.arange(picked.size)
    cells = sparse.coo_array(whole)
    part = np.zeros((picked.size + 1, picked.size + 1))
    np.add.at(part, (place[cells.coords[0]], place[cells.coords[1]]), cells.data)
    n_others = len(names) - picked.size
    return _heat((*(names[c] for c in picked.tolist()), f"{n_others:,} others"), part, is_part=True)


def _heat(classes: tuple[str, ...], items: np.ndarray, *, is_part: bool = False) -> Heat:
    items = items.astype(np.float64)
    return Heat(
        classes, _rows(items), _rows(shades(items, n_named=len(classes) - is_part)), is_part
    )


def shades(items: np.ndarray, n_named: int) -> np.ndarray:
    """Shade cells by their share of the row's items, compared with the largest such share.

    The diagonal has no shade: right labels outnumber wrong ones so much that they would hide them.
    All classes beyond the named ones together do not count for the comparison either.

    Examples
    --------
    >>> shades(np.array([[90.0, 10.0], [0.2, 99.8]]), 2).tolist()
    [[0, 8], [0, 0]]
    """
    share = items / np.maximum(items.sum(axis=1, keepdims=True), 1.0)
    np.fill_diagonal(share, 0)
    full = share[:n_named, :n_named].max(initial=0.0)
    share[items < SHOWN_FROM] = 0
    return np.asarray(np.vectorize(level, otypes=[int])(share, full))


def _rows(values: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, values.tolist()))


def _most_confused(wrong: sparse.csr_array, most: int) -> np.ndarray:
    """Classes of the largest confusions, so that what is confused stands in one table."""
    rows, columns, _ = _largest_first(wrong)
    # A few times more pairs than classes always name enough of them; the first classes fill up.
    pairs = np.stack([rows, columns], axis=1)[: most * most].ravel().tolist()
    picked = dict.fromkeys([*pairs, *range(most)])
    return np.array(sorted(list(picked)[:most]), np.int64)


class Coarse(NamedTuple):
    """A picture of a large confusion matrix: blocks of neighbouring classes."""

    n_classes: int
    classes_per_block: int
    wrong: tuple[tuple[float, ...], ...]
    """Estimated wrong labels per block of given (row) and believed (column) classes."""
    levels: tuple[tuple[int, ...], ...]


def coarse(joint: Matrix, limits: Limits) -> Coarse | None:
    """A picture of all classes in blocks; None where the table shows them all."""
    k = joint.shape[0]
    if k <= limits.table_classes:
        return None
    width = -(-k // limits.map_blocks)
    side = -(-k // width)
    cells = sparse.coo_array(wrong_only(joint))
    block = (cells.coords[0] // width) * side + cells.coords[1] // width
    blocks = np.bincount(block, cells.data, minlength=side * side).reshape(side, side)
    seen = np.where(blocks < SHOWN_FROM, 0, blocks)
    levels = np.vectorize(level, otypes=[int])(seen, blocks.max(initial=0.0))
    return Coarse(k, width, _rows(blocks), _rows(levels))
