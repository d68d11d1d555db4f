"""Which classes an item was said to have, said not to have, and which nobody looked for.

Lists of class ids, item after item, so that memory is that of what was said and not that of N × K.
"Nobody looked" and "no" are two things: a class that is unknown takes part in no threshold, no
count and no flag.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from labelops.ragged import offsets, owners, spans
from labelops.soft.labels import id_type

# N items, K classes, M ids

YES, NO, UNKNOWN = 1, 0, -1


class LabelSets(NamedTuple):
    """Given classes of N items.

    Attributes
    ----------
    ids : classes said to be present, item after item, ascending within an item; uint16 up to
        65 536 classes, else uint32.
    start : item i has ``ids[start[i]:start[i + 1]]``; int64, shape (N + 1,).
    negative_ids, negative_start : classes ruled out, likewise. None, both: every class that is not
        said to be present is ruled out. Otherwise classes in neither list are unknown.
    n_classes : K.
    """

    ids: np.ndarray
    start: np.ndarray
    negative_ids: np.ndarray | None
    negative_start: np.ndarray | None
    n_classes: int

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.start) - 1


def label_sets(
    present: Sequence[Sequence[int]],
    absent: Sequence[Sequence[int]] | None = None,
    *,
    n_classes: int,
) -> LabelSets:
    """Return given classes from lists of ids.

    Parameters
    ----------
    present
        Classes that each item was said to have; empty lists are legal.
    absent
        Classes that were ruled out; None if that is all others.
    n_classes
        K.

    Returns
    -------
    Sets: ids sorted, repeated ones once.

    Raises
    ------
    ValueError
        If an id is out of range, lists differ in number, or a class is in both lists of an item.

    Examples
    --------
    >>> states(label_sets([[2, 0], []], n_classes=3)).tolist()
    [[1, 0, 1], [0, 0, 0]]
    >>> states(label_sets([[2, 0], []], [[1], [2]], n_classes=3)).tolist()
    [[1, 0, 1], [-1, -1, 0]]
    """
    ids, start = _flatten(present)
    if absent is None:
        return from_flat(ids, start, n_classes=n_classes)
    return from_flat(ids, start, *_flatten(absent), n_classes=n_classes)


def _flatten(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    start = offsets(np.array([len(one) for one in lists], np.int64))
    ids = np.fromiter((c for one in lists for c in one), np.int64, count=int(start[-1]))
    return ids, start


def from_flat(
    ids: np.ndarray,
    start: np.ndarray,
    negative_ids: np.ndarray | None = None,
    negative_start: np.ndarray | None = None,
    *,
    n_classes: int,
) -> LabelSets:
    """Return given classes from flat arrays, as columns of lists hold them.

    Parameters
    ----------
    ids, start, negative_ids, negative_start
        As in `LabelSets`, but in any order within an item, repeated or not, integers of any type.
    n_classes
        K.

    Raises
    ------
    ValueError
        As `label_sets`; and if offsets do not fit the ids.

    Notes
    -----
    O(M log M) where ids are not sorted yet, O(M) where they are.

    Examples
    --------
    >>> from_flat(np.array([1, 0, 2]), np.array([0, 2, 3]), n_classes=3).ids.tolist()
    [0, 1, 2]
    """
    if n_classes < 1:
        raise ValueError(f"label sets: at least one class was expected, got n_classes={n_classes}")
    ids, start = _sorted_sets(ids, start, n_classes, "present")
    if negative_ids is None or negative_start is None:
        return LabelSets(ids, start, None, None, n_classes)
    negative_ids, negative_start = _sorted_sets(negative_ids, negative_start, n_classes, "absent")
    if len(start) != len(negative_start):
        raise ValueError(
            f"label sets: as many lists of absent classes as of present ones were expected, got "
            f"{len(negative_start) - 1} and {len(start) - 1}"
        )
    both = np.intersect1d(
        _cells(ids, start, n_classes), _cells(negative_ids, negative_start, n_classes)
    )
    if both.size:
        item, class_id = divmod(int(both[0]), n_classes)
        raise ValueError(
            f"label sets: a class is present or absent, not both; item {item} has class {class_id} "
            "in both lists. Leave it out of both if annotators disagree"
        )
    return LabelSets(ids, start, negative_ids, negative_start, n_classes)


def _cells(ids: np.ndarray, start: np.ndarray, n_classes: int) -> np.ndarray:
    return owners(start) * n_classes + ids.astype(np.int64)


def _sorted_sets(
    ids: np.ndarray, start: np.ndarray, n_classes: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    start = np.asarray(start, np.int64)
    if len(start) < 1 or start[0] != 0 or start[-1] != len(ids) or (np.diff(start) < 0).any():
        raise ValueError(
            f"label sets: offsets of {what} classes must rise from 0 to {len(ids)}, their number; "
            f"got {start[:3].tolist()} … {start[-1:].tolist()}"
        )
    if len(ids) and np.asarray(ids).dtype.kind not in "iu":
        raise ValueError(f"label sets: ids must be integers, got {np.asarray(ids).dtype}")
    ids = np.asarray(ids)
    out = np.flatnonzero((ids < 0) | (ids >= n_classes))
    if out.size:
        item = int(np.searchsorted(start, out[0], side="right")) - 1
        raise ValueError(
            f"label sets: classes must lie in 0…{n_classes - 1}; item {item} has {what} class "
            f"{ids[out[0]]}"
        )
    cells = _cells(ids, start, n_classes)
    if (cells[1:] <= cells[:-1]).any():
        cells = np.unique(cells)
        start = np.searchsorted(cells, np.arange(len(start)) * n_classes).astype(np.int64)
    return (cells % n_classes).astype(id_type(n_classes)), start


def from_states(table: np.ndarray) -> LabelSets:
    """Return given classes from a table of 1 (yes), 0 (no) and −1 (unknown), shape (N, K).

    Raises
    ------
    ValueError
        If the table holds anything else.

    Examples
    --------
    >>> from_states(np.array([[1, 0, -1]])).negative_ids.tolist()
    [1]
    """
    if table.ndim != 2 or not np.isin(table, (YES, NO, UNKNOWN)).all():
        raise ValueError(
            f"from_states: a table (N, K) of 1, 0 and −1 was expected, got shape {table.shape} "
            f"with values {np.unique(table)[:5].tolist()}"
        )
    lists = []
    for state in (YES, NO):
        item, ids = np.nonzero(table == state)
        lists += [ids, np.searchsorted(item, np.arange(len(table) + 1))]
    if not (table == UNKNOWN).any():
        lists = lists[:2]
    return from_flat(*lists, n_classes=table.shape[1])


def states(labels: LabelSets) -> np.ndarray:
    """Return a table of 1 (yes), 0 (no) and −1 (unknown); int8, shape (N, K).

    For blocks of rows: dense, one byte a cell.
    """
    base = NO if labels.negative_ids is None else UNKNOWN
    table = np.full((labels.n_items, labels.n_classes), base, np.int8)
    if labels.negative_ids is not None and labels.negative_start is not None:
        table[owners(labels.negative_start), labels.negative_ids] = NO
    table[owners(labels.start), labels.ids] = YES
    return table


def take_rows(labels: LabelSets, rows: slice) -> LabelSets:
    """Return the given classes of consecutive items, without copying ids.

    Examples
    --------
    >>> take_rows(label_sets([[0], [1, 2], [2]], n_classes=3), slice(1, 3)).start.tolist()
    [0, 2, 3]
    """
    first, last, _ = rows.indices(labels.n_items)

    def cut(ids: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = start[first : max(first, last) + 1]
        return ids[part[0] : part[-1]], part - part[0]

    return _of_both(labels, cut)


def choose_rows(labels: LabelSets, rows: np.ndarray) -> LabelSets:
    """Return the given classes of some items, in the order of `rows`.

    Examples
    --------
    >>> choose_rows(label_sets([[0], [1, 2], [2]], n_classes=3), np.array([1, 0])).ids.tolist()
    [1, 2, 0]
    """

    def choose(ids: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = start[rows + 1] - start[rows]
        return ids[spans(start[rows], sizes)[1]], offsets(sizes)

    return _of_both(labels, choose)


def _of_both(
    labels: LabelSets, take: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> LabelSets:
    """Take from the classes that are present, and from those that are ruled out, if there are."""
    ids, start = take(labels.ids, labels.start)
    if labels.negative_ids is None or labels.negative_start is None:
        return LabelSets(ids, start, None, None, labels.n_classes)
    return LabelSets(
        ids, start, *take(labels.negative_ids, labels.negative_start), labels.n_classes
    )


def with_changes(
    labels: LabelSets, row: np.ndarray, class_id: np.ndarray, is_present: np.ndarray
) -> LabelSets:
    """Return given classes with some cells changed.

    Parameters
    ----------
    labels
        Given classes.
    row, class_id
        Which cells, each one once, shape (M,).
    is_present
        Whether the class is present now; otherwise it is ruled out. Shape (M,).

    Examples
    --------
    >>> given = label_sets([[0], [1]], [[1], []], n_classes=2)
    >>> states(with_changes(given, np.array([0, 1]), np.array([1, 1]), np.array([True, False])))
    array([[ 1,  1],
           [-1,  0]], dtype=int8)
    """
    cells = row.astype(np.int64) * labels.n_classes + class_id
    parts: list[np.ndarray] = []
    for ids, start, joins in (
        (labels.ids, labels.start, is_present),
        (labels.negative_ids, labels.negative_start, ~is_present),
    ):
        if ids is None or start is None:
            break
        now = np.setdiff1d(_cells(ids, start, labels.n_classes), cells[~joins])
        now = np.union1d(now, cells[joins])
        parts.append((now % labels.n_classes).astype(ids.dtype))
        parts.append(np.searchsorted(now, np.arange(labels.n_items + 1) * labels.n_classes))
    ids, start, *negative = parts
    no_ids, no_start = negative if negative else (None, None)
    return LabelSets(ids, start, no_ids, no_start, labels.n_classes)


def with_unknown_absent(labels: LabelSets, is_counted: np.ndarray) -> LabelSets:
    """Return given classes in which unknown cells of some classes are ruled out.

    Parameters
    ----------
    labels
        Given classes.
    is_counted
        Of which classes, bool, shape (K,).

    Examples
    --------
    >>> given = label_sets([[0], []], [[], []], n_classes=2)
    >>> states(with_unknown_absent(given, np.array([True, False]))).tolist()
    [[1, -1], [0, -1]]
    """
    if is_counted.all():
        return labels._replace(negative_ids=None, negative_start=None)
    table = states(labels)
    table[(table == UNKNOWN) & is_counted] = NO
    return from_states(table)


def n_yes(labels: LabelSets) -> np.ndarray:
    """Return how many items were said to have each class; int64, shape (K,)."""
    return np.bincount(labels.ids, minlength=labels.n_classes).astype(np.int64)


def n_no(labels: LabelSets) -> np.ndarray:
    """Return for how many items each class was ruled out; int64, shape (K,)."""
    if labels.negative_ids is None:
        return labels.n_items - n_yes(labels)
    return np.bincount(labels.negative_ids, minlength=labels.n_classes).astype(np.int64)
