"""Lists of labels as they follow from the source and the log of decisions.

The log has a row for every label of an item that something was decided about; `pipelines.ledger`
says the same of items with one label each.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.label_sets import flat
from pipelines.ledger import left_out


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
        `item_id`, `labels`, perhaps `labels_negative`; any number of items.
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
