"""Lists of labels as they follow from the source and the log of decisions.

The log has a row for every label of an item that something was decided about; `pipelines.ledger`
says the same of items with one label each.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.label_sets import RULED_OUT, flat
from pipelines.ledger import left_out


def decided_fields(label: pa.DataType, columns: frozenset[str]) -> list[tuple[str, pa.DataType]]:
    """Return the columns that every stage writes which decides about lists of labels."""
    clean = [("labels_clean", pa.list_(label))]
    if RULED_OUT in columns:
        clean.append(("labels_negative_clean", pa.list_(label)))
    return [
        ("decision", pa.string()),
        *clean,
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("confidence", pa.float32()),
        ("weight", pa.float32()),
    ]


class Items(NamedTuple):
    """What becomes of N items.

    Attributes
    ----------
    waits : for a person; bool.
    n_added, n_removed, n_doubted : changed labels, and others that were decided about; int64.
    confidence : probability that the least sure of these labels is right as it now stands (of an
        item that waits: as given); 1 where there are none, NaN where a label was changed and it is
        not known how probable it is.
    weight : by how much that is more probable than not, never below 0; 1 where it is not known, 0
        for items that wait.
    decision : keep, relabel or review.
    """

    waits: np.ndarray
    n_added: np.ndarray
    n_removed: np.ndarray
    n_doubted: np.ndarray
    confidence: np.ndarray
    weight: np.ndarray
    decision: np.ndarray

    def confidences(self) -> pa.Array:
        """Return the confidence as a column; null where it is not known."""
        return pa.array(self.confidence, pa.float32(), from_pandas=True)


def items_of(row: np.ndarray, action: np.ndarray, p_correct: np.ndarray, n_items: int) -> Items:
    """Return what becomes of items, from the rows of the log that count.

    Parameters
    ----------
    row
        Item of each label, shape (M,).
    action
        Words of the log, shape (M,).
    p_correct
        Of each; NaN where it is not known, shape (M,).
    n_items
        N.

    Examples
    --------
    >>> found = items_of(np.array([1, 1, 2]), np.array(["add", "keep", "add"]),
    ...                  np.array([0.9, 0.8, np.nan]), 3)
    >>> found.decision.tolist(), found.confidence.tolist(), found.weight.round(2).tolist()
    (['keep', 'relabel', 'relabel'], [1.0, 0.8, nan], [1.0, 0.6, 1.0])
    """

    def count(word: str) -> np.ndarray:
        return np.bincount(row[action == word], minlength=n_items)

    n_added, n_removed, n_review = count("add"), count("remove"), count("review")
    waits = n_review > 0
    changed = (action == "add") | (action == "remove")
    # Of an item that waits, the given labels count, not the changed ones.
    right = np.where(changed & waits[row], 1 - p_correct, p_correct)
    confidence = np.ones(n_items)
    is_known = ~np.isnan(right)
    np.minimum.at(confidence, row[is_known], right[is_known])
    confidence[row[changed & ~is_known]] = np.nan
    weight = np.where(np.isnan(confidence), 1.0, np.maximum(2 * confidence - 1, 0.0))
    return Items(
        waits=waits,
        n_added=n_added,
        n_removed=n_removed,
        n_doubted=n_review + count("keep"),
        confidence=confidence,
        weight=np.where(waits, 0.0, weight),
        decision=np.where(waits, "review", np.where(n_added + n_removed > 0, "relabel", "keep")),
    )


def last_rows(log: pa.Table, keep: np.ndarray) -> np.ndarray:
    """Return the rows that count: of several for a label of an item the one written last."""
    ids = log["item_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    item = ids.indices.to_numpy(zero_copy_only=False)[keep]
    label = log["label_id"].to_numpy()[keep].astype(np.int64)
    order = np.lexsort((keep, label, item))
    is_last = np.append(
        (item[order][1:] != item[order][:-1]) | (label[order][1:] != label[order][:-1]),
        np.ones(min(len(order), 1), bool),
    )
    return np.sort(keep[order[is_last]])


def derive_sets(
    source: pa.Table,
    log: pa.Table,
    *,
    leave_out_rules: Collection[str] = (),
    leave_out_items: Collection[str] = (),
) -> pa.Table:
    """Return decisions and clean lists as they follow from the source and the log.

    Parameters
    ----------
    source
        `item_id`, `labels`, perhaps `labels_negative`; or `item_id` and `label`, one an item, which
        counts as a list. Any number of items.
    log
        Rows in the order they were written; those of other items are ignored.
    leave_out_rules, leave_out_items
        Rules and item ids whose rows are taken as not written.

    Returns
    -------
    `item_id`, `decision`, `labels_clean` (null for items that wait; given labels in their order,
    then added ones), `labels_negative_clean` where the source has such lists.

    Examples
    --------
    >>> source = pa.table({"item_id": ["a", "b"], "labels": [["cat"], ["dog", "cat"]]})
    >>> log = pa.table({
    ...     "item_id": ["a", "b"], "label_id": [1, 0], "action": ["add", "remove"],
    ...     "before": pa.array([None, "cat"]), "after": pa.array(["dog", None]),
    ...     "rule": ["r", "s"]})
    >>> derive_sets(source, log)["labels_clean"].to_pylist()
    [['cat', 'dog'], ['dog']]
    >>> derive_sets(source, log, leave_out_rules=["s"])["labels_clean"].to_pylist()
    [['cat', 'dog'], ['dog', 'cat']]
    """
    if "labels" not in source.column_names:
        one = source["label"].combine_chunks()
        lists = pa.ListArray.from_arrays(pa.array(np.arange(len(one) + 1), pa.int32()), one)
        source = source.append_column("labels", lists)
    keep = np.flatnonzero(~left_out(log, rules=leave_out_rules, items=leave_out_items))
    rows = log.take(pa.array(last_rows(log, keep)))
    position = pc.index_in(
        rows["item_id"].combine_chunks(), value_set=source["item_id"].combine_chunks()
    )
    changes: dict[int, list[tuple[str, object]]] = {}
    waits: set[int] = set()
    columns = (rows[name].to_pylist() for name in ("action", "before", "after"))
    for item, action, before, after in zip(position.to_pylist(), *columns, strict=True):
        if item is None:
            continue
        if action == "review":
            waits.add(item)
        elif action in ("add", "remove"):
            changes.setdefault(item, []).append((action, after if action == "add" else before))
    n = source.num_rows
    decision = ["review" if i in waits else "relabel" if i in changes else "keep" for i in range(n)]
    found = {"item_id": source["item_id"], "decision": pa.array(decision, pa.string())}
    for name, joins in (("labels", "add"), ("labels_negative", "remove")):
        if name in source.column_names:
            clean = _changed(source[name], changes, waits, joins)
            found[f"{name}_clean"] = clean
    return pa.table(found)


def _changed(
    lists: pa.ChunkedArray,
    changes: dict[int, list[tuple[str, object]]],
    waits: set[int],
    joins: str,
) -> pa.Array:
    values, start = flat(lists)
    labels = values.to_pylist()
    clean: list[list[object] | None] = []
    for item in range(len(start) - 1):
        now = list(dict.fromkeys(labels[start[item] : start[item + 1]]))
        for action, label in changes.get(item, ()):
            if action == joins and label not in now:
                now.append(label)
            elif action != joins and label in now:
                now.remove(label)
        clean.append(None if item in waits else now)
    return pa.array(clean, pa.list_(values.type))
