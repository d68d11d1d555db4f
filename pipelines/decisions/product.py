"""What a product has besides the columns of its source, whatever kind of label items have.

Decisions of single rules or items can be left out: they are then as if they had never been made.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import COMMON, WHOLE, outcome, reasons
from pipelines.core.stage import Context
from pipelines.decisions.ledger import (
    LOG_FOLDER,
    decided_words,
    last_rows,
    left_out,
    replay,
    slots,
)
from pipelines.decisions.settings import Config
from pipelines.labels.columns import SOFT
from pipelines.labels.space import LabelSpace, clean_space, given_columns, given_sets, space_of
from pipelines.registry import load_space
from pipelines.storage.frame import Frame

WHY = ("decision", "reason", "confidence", "weight")

COMPARED = "wrong_as_cleaned"
"""Column of stage `evaluate`."""

TYPES: Mapping[str, str] = {
    "decision": "string",
    "reason": "string",
    "confidence": "float32",
    "weight": "float32",
    "tail_prob": "float16",
}
"""Of columns, as `datasets` calls them."""


def _space(columns: Collection[str]) -> LabelSpace:
    """Return the kind of label that was decided about; what it would be where nothing was."""
    return clean_space(columns) or space_of(columns) or load_space("label")


def decided_columns(columns: Collection[str]) -> list[str]:
    """Return the columns that follow from what was decided."""
    space = _space(columns)
    clean = [name for name in space.clean if name in columns] or space.clean[:1]
    return [*clean, *WHY]


def carried_columns(columns: Collection[str]) -> list[str]:
    """Return further columns of the product, such as soft labels."""
    # The source may have columns of these names.
    return [*_space(columns).carried]


def added(columns: Collection[str]) -> Sequence[str]:
    """Return the columns that the product has besides those of the source."""
    return [*decided_columns(columns), *carried_columns(columns)]


def is_worse(ctx: Context) -> bool:
    """Return whether a reference says that cleaned labels are surely worse than the given ones."""
    if COMPARED not in ctx.columns:
        return False
    gain = ctx.result("evaluate", "measures").get("clean_micro_f1_gain")
    return gain is not None and bool(gain[2] < 0)


def rules_left_out(ctx: Context[Config]) -> list[str]:
    """Return the rules of which nothing is done: as set, and all where labels became worse."""
    named = list(ctx.config.leave_out_rules)
    if is_worse(ctx):
        judged = ctx.result(ctx.deciding_stage, "outcome")
        named += judged["rules"][judged["changes_labels"]].tolist()
    return named


def leaves_out(ctx: Context[Config]) -> bool:
    """Return whether decisions are left out."""
    return bool(ctx.config.leave_out_items or rules_left_out(ctx))


def narrow_columns(columns: Collection[str]) -> list[str]:
    """Return all columns that `with_left_out` reads."""
    given = given_columns(columns) or _space(columns).given[:1]
    return ["item_id", *given, "rule", *decided_columns(columns)]


def narrow(ctx: Context[Config]) -> list[str]:
    """Return the same, and the files."""
    return [*narrow_columns(ctx.columns), *([LOG_FOLDER] if leaves_out(ctx) else [])]


# -- what `datasets` reads -------------------------------------------------------------------------


def added_features(old: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """Return the description of the added columns, as `datasets` keeps it in the footer.

    Parameters
    ----------
    old
        That of the source's columns.
    """
    given = space_of(ctx.columns)
    assert given is not None
    single = given.name
    label = old.get(ctx.data.columns.get(single, single))
    features: dict[str, Any] = {}
    for name in added(ctx.columns):
        kind = ctx.types[name]
        if name in _space(ctx.columns).clean:
            features[name] = _feature(kind) if label is None else label
            if label is not None and single == "label" and pa.types.is_list(kind):
                features[name] = {"feature": label, "_type": "Sequence"}
        elif pa.types.is_list(kind):
            features[name] = _feature(kind)
        else:
            features[name] = {"dtype": TYPES.get(name, str(kind)), "_type": "Value"}
    return features


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        # Written as the name that both old and new versions of `datasets` read.
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": "float16" if pa.types.is_float16(kind) else str(kind), "_type": "Value"}


def soft_label_metadata(ctx: Context) -> bytes:
    """Return how soft labels are stored, for the footer."""
    decided = ctx.result(ctx.deciding_stage, "outcome")
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


def with_left_out(frame: Frame, ctx: Context[Config]) -> pa.Table:
    """Return a shard's decisions, with those undone that are to be left out."""
    decided = frame.table(["item_id", "rule", *decided_columns(ctx.columns)])
    if not leaves_out(ctx):
        return decided
    log = frame.file(LOG_FOLDER)
    out = left_out(log, rules=rules_left_out(ctx), items=ctx.config.leave_out_items)
    row = pc.index_in(log["item_id"], value_set=frame["item_id"]).to_numpy().astype(np.int64)
    slot = slots(log)
    known = ctx.labels(np.arange(ctx.n_classes))
    whole = pc.index_in(log["after"], value_set=known).fill_null(-1).to_numpy()
    class_id = np.where(slot == WHOLE, whole, slot)
    done = replay(log, row, last_rows(row, slot, np.flatnonzero(~out)), class_id)
    items = outcome(done, frame.n)
    # What is undone is believed as little as it was before.
    p_given = pc.cast(pc.struct_field(log["evidence"], "p_given"), pa.float64())
    confidence = items.confidence.copy()
    np.fmin.at(confidence, row[out], p_given.to_numpy()[out])
    texts, of_item = reasons(done, np.zeros(len(done.row), np.uint8), items, COMMON)
    first = np.full(frame.n, -1)
    first[row[out][::-1]] = np.flatnonzero(out)[::-1]
    rule = log["rule"].combine_chunks().take(pa.array(first, mask=first < 0))
    is_partly = pa.array(items.first >= 0)
    prefix = pc.if_else(is_partly, "partly left out: ", "left out: ")
    reason = pa.array(texts, pa.string()).take(pa.array(of_item))
    rest = pc.binary_join_element_wise("; ", reason, "")
    space = _space(ctx.columns)
    clean = space.apply(given_sets(frame, ctx), done, items, ctx)
    decision = decided_words(clean[space.clean[0]], items, may_be_open=space.may_be_open)
    weight = np.where(pc.equal(decision, "unresolved").to_numpy(False), 0.0, items.weight)
    undone = {
        **clean,
        "decision": decision,
        "reason": pc.binary_join_element_wise(prefix, rule, pc.if_else(is_partly, rest, ""), ""),
        "confidence": pa.array(confidence, pa.float32(), from_pandas=True),
        "weight": pa.array(weight.astype(np.float32)),
    }
    for name, values in undone.items():
        column = pc.if_else(pa.array(first >= 0), values, decided[name].combine_chunks())
        decided = decided.set_column(decided.column_names.index(name), name, column)
    return decided
