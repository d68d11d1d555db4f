"""What a product has besides the columns of its source, for items with one label and with several.

Decisions of single rules or items can be left out: they are then as if they had never been made.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decide import Held
from labelops.multilabel.decide import reason
from labelops.multilabel.labels import with_changes
from pipelines.frame import Frame
from pipelines.label_ledger import Items, items_of, last_rows
from pipelines.label_sets import (
    RULED_OUT,
    clean_columns,
    is_multi_label,
    label_columns,
    labels_of,
)
from pipelines.ledger import LOG_FOLDER, left_out
from pipelines.stage import Context

WHY = ("decision", "reason", "confidence", "weight")

SOFT = ("topk_ids", "topk_probs", "tail_prob")

TYPES: Mapping[str, str] = {
    "decision": "string",
    "reason": "string",
    "confidence": "float32",
    "weight": "float32",
    "tail_prob": "float16",
}
"""Of columns, as `datasets` calls them."""


def _has_lists(columns: Collection[str]) -> bool:
    """Return whether the product has a list of labels for each item."""
    return is_multi_label(columns) or "labels_clean" in columns


def added(columns: Collection[str]) -> Sequence[str]:
    """Return the columns that the product has besides those of the source."""
    if not _has_lists(columns):
        return ["label_clean", *WHY, *SOFT]
    negative = ["labels_negative_clean"] if RULED_OUT in columns else []
    return ["labels_clean", *negative, *WHY]


def given_of(columns: Collection[str]) -> list[str]:
    """Return the columns with given classes."""
    return label_columns(columns) or ["given"]


def decided_by(columns: Collection[str]) -> str:
    """Return the stage whose decisions the product follows."""
    if "n_added" in columns:
        return "decide_maps"
    return "decide_labels" if is_multi_label(columns) else "decide"


def logs(config: Any, columns: Collection[str]) -> list[str]:
    """Return the files with logs that are needed to leave decisions out."""
    leaves_out = bool(config.leave_out_rules or config.leave_out_items)
    return [LOG_FOLDER] if leaves_out and _has_lists(columns) else []


# -- what `datasets` reads -------------------------------------------------------------------------


def added_features(old: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """Return the description of the added columns, as `datasets` keeps it in the footer.

    Parameters
    ----------
    old
        That of the source's columns.
    """
    single = "labels" if is_multi_label(ctx.columns) else "label"
    label = old.get(ctx.data.columns.get(single, single))
    found: dict[str, Any] = {}
    for name in added(ctx.columns):
        kind = ctx.types[name]
        if name.startswith("label"):
            found[name] = _feature(kind) if label is None else label
            if label is not None and single == "label" and pa.types.is_list(kind):
                found[name] = {"feature": label, "_type": "Sequence"}
        elif pa.types.is_list(kind):
            found[name] = _feature(kind)
        else:
            found[name] = {"dtype": TYPES[name], "_type": "Value"}
    return found


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        # Written as the name that both old and new versions of `datasets` read.
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": "float16" if pa.types.is_float16(kind) else str(kind), "_type": "Value"}


def soft_label_metadata(ctx: Context) -> bytes:
    """Return how soft labels are stored, for the footer."""
    decided = ctx.result("decide", "outcome")
    return json.dumps(
        {
            "format_version": 1,
            "num_classes": ctx.n_classes,
            "classes": list(ctx.classes) if ctx.n_classes <= 10_000 else None,
            "value_kind": "prob",
            "temperature": float(decided["temperature"]),
            "reconstruct": "ms",
            "k": int(decided["top_k"]),
            "given_is_stored": True,
            "columns": list(SOFT),
        },
        sort_keys=True,
    ).encode()


# -- leaving out -----------------------------------------------------------------------------------


def with_left_out(frame: Frame, ctx: Context) -> pa.Table:
    """Return a shard's decisions, with those undone that are to be left out."""
    decided = frame.table(["item_id", "rule", *added(ctx.columns)])
    if not ctx.config.leave_out_rules and not ctx.config.leave_out_items:
        return decided
    undo = _without_labels if _has_lists(ctx.columns) else _without_items
    return undo(decided, frame, ctx)


def _replace(decided: pa.Table, out: pa.Array, undone: Mapping[str, Any]) -> pa.Table:
    for name, values in undone.items():
        column = pc.if_else(out, values, decided[name].combine_chunks())
        decided = decided.set_column(decided.column_names.index(name), name, column)
    return decided


def _without_items(decided: pa.Table, frame: Frame, ctx: Context) -> pa.Table:
    rules = pa.array(ctx.config.leave_out_rules, pa.string())
    items = pa.array(ctx.config.leave_out_items, pa.string())
    by_item = pc.is_in(decided["item_id"].cast(pa.string()), value_set=items)
    out = pc.or_(pc.is_in(decided["rule"], value_set=rules), by_item)
    given = frame.array("given")
    undone = {
        "decision": pa.scalar("keep"),
        "label_clean": ctx.labels(given),
        "reason": pc.binary_join_element_wise("left out", decided["rule"], ": "),
        "confidence": pa.array(_belief_in(decided, given)),
        "weight": pa.scalar(1.0, pa.float32()),
    }
    return _replace(decided, out, undone)


def _belief_in(decided: pa.Table, given: np.ndarray) -> np.ndarray:
    """Return the probability of the given classes, which every soft label has."""
    ids = decided["topk_ids"].combine_chunks()
    owner = pc.list_parent_indices(ids).to_numpy()
    hit = ids.flatten().to_numpy() == given[owner]
    probs = decided["topk_probs"].combine_chunks().flatten().to_numpy()
    found = np.zeros(len(given), np.float32)
    found[owner[hit]] = probs[hit]
    return found


def _without_labels(decided: pa.Table, frame: Frame, ctx: Context) -> pa.Table:
    """Derive a shard's lists anew from what is left of its log."""
    log, config = frame.file(LOG_FOLDER), ctx.config
    out = left_out(log, rules=config.leave_out_rules, items=config.leave_out_items)
    index = pc.index_in(log["item_id"], value_set=frame["item_id"])
    row_of_log = index.to_numpy(zero_copy_only=False).astype(np.int64)
    touched = np.zeros(frame.n, bool)
    touched[row_of_log[out]] = True
    kept = last_rows(log, np.flatnonzero(~out))
    action, row = np.array(log["action"].to_pylist(), object)[kept], row_of_log[kept]
    class_id = log["label_id"].to_numpy()[kept].astype(np.int64)
    changed = np.isin(action, ("add", "remove"))
    clean = with_changes(
        labels_of(frame, ctx), row[changed], class_id[changed], action[changed] == "add"
    )
    items = items_of(row, action, log["p_correct"].to_numpy()[kept].astype(np.float64), frame.n)
    undone = {
        **clean_columns(clean, ~items.waits, ctx),
        "decision": pa.array(items.decision),
        "reason": pa.array(_reasons(items)),
        "confidence": items.confidences(),
        "weight": pa.array(items.weight.astype(np.float32)),
    }
    undone = {name: column for name, column in undone.items() if name in decided.column_names}
    return _replace(decided, pa.array(touched), undone)


def _reasons(items: Items) -> list[str]:
    """Return the reasons that are left."""
    counts = (items.n_added, items.n_removed, items.n_doubted, items.waits)
    found = []
    for add, remove, doubt, waits in zip(*(n.tolist() for n in counts), strict=True):
        left = reason(add, remove, doubt, Held.NO, is_review=waits)
        found.append(f"partly left out; {left}" if add + remove + doubt else "left out")
    return found
