"""The log of decisions, and the labels that follow from it.

The log has a row for every label (of an item that may have several: for every class of it) that
something was decided about; what has no row is kept as it is. It is only ever appended to: of
several rows for one label the last counts. What a data set looks like without a rule, or without a
single decision, is found by leaving those rows out.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import (
    DECISIONS,
    WHOLE,
    WORDS,
    Action,
    Decision,
    Outcome,
    Proposals,
    outcome,
)
from labelops.ragged import owners
from pipelines.labels import candidates, lists
from pipelines.labels.columns import flat, lists_of
from pipelines.labels.space import announced
from pipelines.storage.forms import is_listed

LOG_FOLDER = "decisions"


def left_out(
    log: pa.Table, *, rules: Collection[str] = (), items: Collection[str] = ()
) -> np.ndarray:
    """Return which rows of a log belong to some rules or items, bool, shape (rows,)."""
    by_rule = pc.is_in(log["rule"], value_set=pa.array(list(rules), pa.string()))
    ids = log["item_id"].cast(pa.string())
    by_item = pc.is_in(ids, value_set=pa.array([str(item) for item in items], pa.string()))
    return np.asarray(pc.or_(by_rule, by_item).to_numpy())


def last_rows(row: np.ndarray, slot: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the positions, by item and slot, of rows that count: of several for one slot the last.

    Items and slots are those of every row of the log; of these, rows to keep ascend.
    """
    order = keep[np.lexsort((keep, slot[keep], row[keep]))]
    same = (row[order][1:] == row[order][:-1]) & (slot[order][1:] == slot[order][:-1])
    return np.asarray(order[np.append(~same, np.ones(min(len(order), 1), bool))])


def replay(log: pa.Table, row: np.ndarray, at: np.ndarray, class_id: np.ndarray) -> Proposals:
    """Return what rows of a log say was done.

    Parameters
    ----------
    log, row
        All rows, and the item of each, int64.
    at
        Which rows count, from `last_rows`.
    class_id
        Of every row: of the label after, or of a class that is decided about; −1 if not known.
    """
    words = pc.index_in(log["action"].cast(pa.string()), value_set=pa.array(WORDS))
    action = words.to_numpy()[at].astype(np.uint8)
    right = pc.cast(log["p_correct"], pa.float64()).to_numpy()[at]
    slot, changed = slots(log)[at], np.isin(action, CHANGES)
    # What is known of a row is how right it is as it stands; the rest is the answer against it.
    p_after = np.where(changed, right, 1 - right)
    removed = action == Action.REMOVE
    return Proposals(
        row=row[at],
        slot=slot,
        before=np.where(removed, class_id[at], -1),
        after=np.where(removed, -1, class_id[at]),
        action=action,
        rule=np.zeros(len(at), np.uint8),
        p_after=p_after,
        p_before=1 - p_after,
        p_next=1 - p_after,
    )


CHANGES = (Action.RELABEL, Action.ADD, Action.REMOVE)


def slots(log: pa.Table) -> np.ndarray:
    """Return the slot that each row of a log is about, int64."""
    return np.asarray(log["label_id"].fill_null(WHOLE).to_numpy().astype(np.int64))


def decided_words(clean: pa.Array, items: Outcome, *, may_be_open: bool) -> pa.Array:
    """Return what became of items; without a label, one that must have one is unresolved."""
    if may_be_open:
        return pa.array(DECISIONS[items.decision])
    lacks = pc.and_(pc.is_null(clean), pa.array(~items.is_aside))
    unresolved = str(DECISIONS[Decision.UNRESOLVED])
    return pc.if_else(lacks, unresolved, pa.array(DECISIONS[items.decision]))


def derive(
    source: pa.Table,
    log: pa.Table,
    *,
    leave_out_rules: Collection[str] = (),
    leave_out_items: Collection[str] = (),
) -> pa.Table:
    """Return decisions and clean labels as they follow from the source and the log.

    Parameters
    ----------
    source
        `item_id` and the column with given labels: `label`, or `candidates`; or `labels`, perhaps
        with `labels_negative`. Any number of items.
    log
        Rows in the order they were written; those of other items are ignored.
    leave_out_rules, leave_out_items
        Rules and item ids whose rows are taken as not written.

    Returns
    -------
    `item_id`, `decision`, and `label_clean`, or where single classes were decided about
    `labels_clean` (given labels in their order, then added ones) and, where the source has such
    lists, `labels_negative_clean`; null for items set aside.

    Examples
    --------
    >>> source = pa.table({"item_id": ["a", "b"], "label": ["cat", "dog"]})
    >>> log = pa.table({
    ...     "item_id": ["b"], "label_id": pa.nulls(1, pa.int32()), "action": ["relabel"],
    ...     "before": ["dog"], "after": ["cat"], "rule": ["r"]})
    >>> derive(source, log)["label_clean"].to_pylist()
    ['cat', 'cat']
    >>> derive(source, log, leave_out_rules=["r"])["label_clean"].to_pylist()
    ['cat', 'dog']
    """
    ids = source["item_id"].combine_chunks()
    row = pc.index_in(log["item_id"].combine_chunks(), value_set=ids).fill_null(-1).to_numpy()
    row = row.astype(np.int64)
    out = left_out(log, rules=leave_out_rules, items=leave_out_items)
    slot = slots(log)
    at = last_rows(row, slot, np.flatnonzero(~out & (row >= 0)))
    words = pc.index_in(log["action"].cast(pa.string()), value_set=pa.array(WORDS))
    action = words.to_numpy()[at].astype(np.uint8)
    nothing = np.zeros(len(at))
    done = Proposals(row[at], slot[at], *(nothing,) * 2, action, *(nothing,) * 4)
    items = outcome(done, len(ids))
    columns = {"item_id": source["item_id"], "decision": pa.array(DECISIONS[items.decision])}
    space = announced(source.column_names)
    assert space is not None, f"a column with labels was expected, got {source.column_names}"
    if space is not lists.SPACE and (slot == WHOLE).all():
        label, changes = source[space.name].combine_chunks(), at[done.is_change]
        if is_listed(label.type):
            label = candidates.sole(label)
        change = np.full(len(ids), -1)
        change[row[changes]] = changes
        mine = pa.array(change, mask=(change < 0) | items.is_aside)
        after = log["after"].combine_chunks().take(mine).cast(label.type)
        clean = pc.if_else(pa.array(items.is_aside | (change >= 0)), after, label)
        columns["decision"] = decided_words(clean, items, may_be_open=space.may_be_open)
        return pa.table({**columns, space.clean[0]: clean})
    names, of = lists.SPACE.source, {name: source[name] for name in source.column_names}
    if space is not lists.SPACE:
        labels = source[space.name].combine_chunks()
        of[names[0]] = lists_of(labels, np.arange(len(labels) + 1))
    joining = (Action.ADD, Action.REMOVE)
    for name, clean, joins in zip(names, lists.SPACE.clean, joining, strict=True):
        if name in of:
            columns[clean] = _changed(of[name], log, row, at, action, joins, items)
    return pa.table(columns)


def _changed(
    lists: pa.ChunkedArray,
    log: pa.Table,
    row: np.ndarray,
    at: np.ndarray,
    action: np.ndarray,
    joins: Action,
    items: Outcome,
) -> pa.Array:
    """Return lists with some labels joined and others taken out, each label once."""
    values, start = flat(lists)
    is_change = np.isin(action, (Action.ADD, Action.REMOVE))
    at, action = at[is_change], action[is_change]
    labels = pc.coalesce(
        *(log[name].combine_chunks().take(pa.array(at)) for name in ("after", "before"))
    )
    known = pc.unique(pa.concat_arrays([values, labels.cast(values.type)]))
    code, changed = (
        pc.index_in(x.cast(values.type), value_set=known)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
        for x in (values, labels)
    )
    here, there = owners(start) * len(known) + code, row[at] * len(known) + changed
    is_joined = action == joins
    kept = here[~np.isin(here, there[~is_joined])]
    cells = np.concatenate([kept, there[is_joined]])
    _, first = np.unique(cells, return_index=True)
    cells = cells[np.sort(first)]
    cells = cells[np.argsort(cells // max(len(known), 1), kind="stable")]
    n = len(start) - 1
    ends = np.searchsorted(cells // max(len(known), 1), np.arange(n + 1))
    taken = known.take(pa.array(cells % max(len(known), 1)))
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), taken, mask=pa.array(items.is_aside)
    )
