"""The log of decisions, and the labels that follow from it.

The log has a row for every item that something was decided about; an item without one is kept as it
is. It is only ever appended to: of several rows for an item the last counts. What a data set looks
like without a rule, or without a single decision, is found by leaving those rows out.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LOG_FOLDER = "decisions"

EVIDENCE_FLAGS = ("is_label_issue", "is_outlier", "is_duplicate_conflict")

DECISION_OF_ACTION = {
    "keep": "keep",
    "soften": "keep",
    "relabel": "relabel",
    "drop": "drop",
    "review": "review",
    "abstain": "abstain",
}
"""A softened item is kept, with a lower weight."""


def log_schema(item_id: pa.DataType, label: pa.DataType) -> pa.Schema:
    """Return the columns of the log.

    `label_id` is null where items have one label each; `time` is null in rows that a stage wrote:
    when that was stands in the run's timings, and equal runs have equal logs.
    """
    evidence = pa.struct(
        [
            ("p_given", pa.float32()),
            ("p_believed", pa.float32()),
            ("believed", label),
            ("label_score", pa.float32()),
            *((name, pa.bool_()) for name in EVIDENCE_FLAGS),
        ]
    )
    return pa.schema(
        [
            ("item_id", item_id),
            ("label_id", pa.int32()),
            ("before", label),
            ("after", label),
            ("action", pa.string()),
            ("p_correct", pa.float32()),
            ("rule", pa.string()),
            ("evidence", evidence),
            ("actor", pa.string()),
            ("run", pa.string()),
            ("time", pa.timestamp("us", "UTC")),
        ]
    )


def log_rows(
    *,
    item_id: pa.Array,
    before: pa.Array,
    after: pa.Array,
    action: np.ndarray,
    p_correct: np.ndarray,
    rule: np.ndarray,
    evidence: Mapping[str, pa.Array | np.ndarray],
    actor: np.ndarray,
    run: str,
    label_id: np.ndarray | None = None,
) -> pa.Table:
    """Return rows of the log, one for each item (or label of an item) given.

    Parameters
    ----------
    item_id
        N ids; all others are of the same length.
    before, after
        Labels; `after` is null for items set aside.
    action
        What was done, in the words of `DECISION_OF_ACTION`.
    p_correct
        Probability that `after` is right; that `before` is, for items set aside.
    rule
        Names of rules.
    evidence
        What spoke for it; flags that nobody looked for may be missing.
    actor
        Which stage, or "reviewer".
    run
        Key of the run.
    label_id
        Class ids, where an item has several labels and each is decided about.
    """
    n = len(item_id)
    parts = {
        **dict(evidence),
        **{name: pa.nulls(n, pa.bool_()) for name in EVIDENCE_FLAGS if name not in evidence},
    }
    names = [field.name for field in log_schema(item_id.type, before.type).field("evidence").type]
    return pa.table(
        {
            "item_id": item_id,
            "label_id": pa.nulls(n, pa.int32()) if label_id is None else label_id,
            "before": before,
            "after": after,
            "action": action,
            "p_correct": p_correct,
            "rule": rule,
            "evidence": pa.StructArray.from_arrays([pa.array(parts[k]) for k in names], names),
            "actor": actor,
            "run": pa.array([run] * n, pa.string()),
            "time": pa.nulls(n, pa.timestamp("us", "UTC")),
        }
    )


def left_out(
    log: pa.Table, *, rules: Collection[str] = (), items: Collection[str] = ()
) -> np.ndarray:
    """Return which rows of a log belong to some rules or items, bool, shape (rows,)."""
    by_rule = pc.is_in(log["rule"], value_set=pa.array(list(rules), pa.string()))
    ids = log["item_id"].cast(pa.string())
    by_item = pc.is_in(ids, value_set=pa.array([str(item) for item in items], pa.string()))
    return np.asarray(pc.or_(by_rule, by_item).to_numpy())


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
        `item_id` and `label`, any number of items.
    log
        Rows in the order they were written; those of other items are ignored.
    leave_out_rules, leave_out_items
        Rules and item ids whose rows are taken as not written.

    Returns
    -------
    `item_id`, `decision`, `label_clean` (null for items set aside), `rule` (null without a row) and
    `log_row`, the position of the row that counts (null without one), one row an item of `source`.

    Examples
    --------
    >>> source = pa.table({"item_id": ["a", "b"], "label": ["cat", "dog"]})
    >>> log = pa.table({"item_id": ["b"], "action": ["relabel"], "after": ["cat"], "rule": ["r"]})
    >>> derive(source, log)["label_clean"].to_pylist()
    ['cat', 'cat']
    >>> derive(source, log, leave_out_rules=["r"])["label_clean"].to_pylist()
    ['cat', 'dog']
    """
    keep = np.flatnonzero(~left_out(log, rules=leave_out_rules, items=leave_out_items))
    # Reversed, the row that is found first is the one that was written last.
    last_first = pa.array(keep[::-1])
    ids = log["item_id"].take(last_first).combine_chunks()
    found = pc.index_in(source["item_id"].combine_chunks(), value_set=ids)
    row = last_first.take(found)
    action = log["action"].combine_chunks().take(row)
    words = pa.array(list(DECISION_OF_ACTION), pa.string())
    meaning = pa.array(list(DECISION_OF_ACTION.values()), pa.string())
    decision = meaning.take(pc.index_in(action, value_set=words)).fill_null("keep")
    label = source["label"].combine_chunks()
    after = log["after"].combine_chunks().take(row).cast(label.type)
    is_changed = pc.is_valid(row)
    return pa.table(
        {
            "item_id": source["item_id"],
            "decision": decision,
            "label_clean": pc.if_else(is_changed, after, label),
            "rule": log["rule"].combine_chunks().take(row),
            "log_row": row,
        }
    )
